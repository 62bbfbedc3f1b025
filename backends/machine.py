"""LLVM's side of a target: parse IR text, optimize it, emit objects and assembly.

One TargetMachine serves one target and level and is not shared between threads: its owner makes one a thread.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Final, final

import llvmlite.binding as llvm

from backends.target import Target
from ir.diagnostics import Diagnostic, UnsupportedError


@final
@dataclass(frozen=True, slots=True)
class Effort:
    """How hard LLVM works: levels 0 to 3 of its passes and of code generation, and whether loops may grow."""

    pipeline: int
    code_generation: int
    may_grow: bool


# LLVM's way to see through loops takes the square of time for many of them whose results go into the next, and more: what a
# loop counts has a few terms, these have as many as there are loops. The usual threshold is 4096.
_OPTIONS: Final = ("-scalar-evolution-huge-expr-threshold=32",)


class Level(Enum):
    """How hard to optimize.

    DEFAULT has what clang has at -O2: vectorization, and unrolling as far as the processor's model
    finds it useful. FAST has neither: half the time of DEFAULT on small loops, and a tenth on large functions.
    """

    NONE = Effort(0, 0, may_grow=False)
    FAST = Effort(1, 1, may_grow=False)
    DEFAULT = Effort(2, 2, may_grow=True)
    MOST = Effort(3, 3, may_grow=True)


@final
class Machine:
    """Compiles for one target at one level, for the host's own CPU and features unless others are said."""

    def __init__(
        self,
        target: Target,
        level: Level = Level.DEFAULT,
        cpu: str | None = None,
        features: str | None = None,
    ) -> None:
        is_host = target.name == os.uname().machine
        if is_host:
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
        else:
            llvm.initialize_all_targets()
            llvm.initialize_all_asmprinters()
        _say(_OPTIONS)
        _say(target.llvm_options)
        self.target = target
        self.level = level
        self.cpu = cpu or (_host_cpu() if is_host else target.cpu)
        self.features = features or (_host_features() if is_host and cpu is None else target.features)
        self._machine = llvm.Target.from_triple(target.triple).create_target_machine(
            cpu=self.cpu,
            features=self.features,
            opt=max(level.value.code_generation, 0 if target.can_hurry else 1),
            reloc="pic",
            codemodel="small",
            abiname=target.abi,
        )
        self.data_layout = str(self._machine.target_data)

    def parse(self, text: str) -> llvm.ModuleRef:
        """A module from LLVM IR text, checked, with this machine's triple and data layout."""
        try:
            module = llvm.parse_assembly(text)
            module.triple = self.target.triple
            module.data_layout = self.data_layout
            module.verify()
        except RuntimeError as error:
            raise AssertionError(f"lowering wrote IR that LLVM refuses: {error}") from error
        return module

    def adopt(self, module: llvm.ModuleRef) -> llvm.ModuleRef:
        """A copy of a module that another machine parsed, for this one."""
        copy = module.clone()
        copy.triple = self.target.triple
        copy.data_layout = self.data_layout
        return copy

    def optimize(self, module: llvm.ModuleRef, large: Collection[str] = ()) -> None:
        """Run the default pipeline of the level over a module. At FAST, the `large` functions are then selected in a hurry."""
        effort = self.level.value
        options = llvm.create_pipeline_tuning_options(effort.pipeline)
        options.loop_unrolling = effort.may_grow
        options.loop_interleaving = effort.may_grow
        options.loop_vectorization = effort.may_grow
        options.slp_vectorization = effort.may_grow  # off unless said, unlike in clang
        builder = llvm.create_pass_builder(self._machine, options)
        if self.level is Level.FAST:
            _fast_passes().run(module, builder)
            for function in module.functions if large and self.target.can_hurry else ():
                if function.name in large:
                    _hurry(function)
        else:
            builder.getModulePassManager().run(module, builder)

    def emit_object(self, module: llvm.ModuleRef) -> bytes:
        """The module as a relocatable ELF object."""
        self._keep_order(module)
        return bytes(self._machine.emit_object(module))

    def emit_assembly(self, module: llvm.ModuleRef) -> str:
        """The module as assembly text."""
        self._keep_order(module)
        return str(self._machine.emit_assembly(module))

    def _keep_order(self, module: llvm.ModuleRef) -> None:
        """At NONE, have code that LLVM allocates registers for with care not sunk and merged: that is for no line any more."""
        if self.level is Level.NONE and not self.target.can_hurry:
            for function in module.functions:
                if not function.is_declaration and b"alwaysinline" not in function.attributes:
                    _hurry(function)


@cache  # LLVM ends the process when it hears an option twice
def _say(options: tuple[str, ...]) -> None:
    for option in options:
        llvm.set_option("bpfc", option)


def _fast_passes() -> llvm.ModulePassManager:
    """What is left to do after our own passes: a third of the time of -O1 on large straight code, and the same size."""
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.add_global_dead_code_eliminate_pass()
    return passes


def _hurry(function: llvm.ValueRef) -> None:
    """Have LLVM select the instructions of a function one by one, without a graph of each block, and not schedule them.

    Registers are still allocated with care: a third of the time, and a tenth more instructions.
    """
    function.add_function_attribute("noinline")  # which the other one demands
    function.add_function_attribute("optnone")


def llvm_version() -> str:
    """LLVM's version, for cache keys and reports."""
    return ".".join(str(part) for part in llvm.llvm_version_info)


@cache
def _host_cpu() -> str:
    return str(llvm.get_host_cpu_name())


@cache
def _host_features() -> str:
    try:
        return str(llvm.get_host_cpu_features().flatten())
    except RuntimeError as error:
        message = "LLVM can't tell the features of this CPU; name them"
        raise UnsupportedError([Diagnostic("unknown-host-cpu", message)]) from error
