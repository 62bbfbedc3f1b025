"""What read-only data did to a program: the branches it decided, by variable, and what the code would be without.

filter.c:41:6: branch at insn 12 is never taken
    config.mode = 3 (filter.rodata+0x8, 4 bytes), read at filter.c:41:13
40 of 214 operations are left; 612 bytes of native code, 2480 without
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

from bpfc.codegen import PIPELINES
from bpfc.compile import compile_program, effective_level
from bpfc.globals import find_variables
from bpfc.options import Options
from ir.btf_paths import path_at
from ir.core import Function, Module
from ir.diagnostics import Diagnostic, DiagnosticError, Location
from ir.explain import Decision, ReadOnlyLoad
from ir.lift import lift
from ir.object import Object, Program

if TYPE_CHECKING:
    from backends.native_code import NativeCode
    from backends.target import Target
    from bpfc.loaded import Loaded


@final
@dataclass(frozen=True, slots=True)
class Cause:
    """A value that decided a branch: of `variable` as C names it, '' where nothing has a name."""

    load: ReadOnlyLoad
    variable: str

    def __str__(self) -> str:
        load = self.load
        place = f"{load.map}+{load.offset:#x}, {load.size} byte{'s' if load.size > 1 else ''}"
        return f"{self.variable or 'what lies there'} = {load.value:#x} ({place}), read at {_place(load.at)}"


@final
@dataclass(frozen=True, slots=True)
class DecidedBranch:
    """A branch that always goes one way; no `causes`: by what the program itself says."""

    at: Location
    is_taken: bool
    causes: tuple[Cause, ...]

    def __str__(self) -> str:
        way = "always" if self.is_taken else "never"
        head = f"{_place(self.at)}: branch at insn {self.at.insn} is {way} taken"
        causes = [f"    {cause}" for cause in self.causes] or ["    by constants of the program alone"]
        return "\n".join([head, *causes])


@final
@dataclass(frozen=True, slots=True)
class Explanation:
    """The decided branches of a program, and its sizes: operations of the SSA form and bytes of native code, with and without.

    `general_bytes` is None where the program does not compile unless its branches are decided: `problem` says why.
    """

    program: str
    branches: tuple[DecidedBranch, ...]
    operations: int
    operations_left: int
    native_bytes: int
    general_bytes: int | None
    problem: Diagnostic | None = None

    def __str__(self) -> str:
        lines = [str(branch) for branch in self.branches] or ["no branch is decided by read-only data"]
        left = f"{self.operations_left} of {self.operations} operations are left; {self.native_bytes} bytes of native code"
        without = f", {self.general_bytes} without" if self.general_bytes is not None else ""
        lines.append(left + without)
        if self.problem is not None:
            lines.append(f"without, it would be refused: {self.problem.message}")
        return "\n".join(lines)


def explain(loaded: Loaded, program: Program, options: Options, target: Target | None = None) -> Explanation:
    """Explain `program` as it would be compiled now, for `target` or this host. Raises as compiling does."""
    module = lift(program, loaded.maps)
    before = _count(module)
    changes = PIPELINES[effective_level(program, options)].run(module)
    compiled = compile_program(program, loaded.maps, options, target=target)
    general, problem = None, None
    try:
        without = compile_program(program, loaded.maps, replace(options, fold=False), target=target)
        general = native_bytes(without.code)
    except DiagnosticError as error:
        problem = error.diagnostics[0]
    branches = tuple(_branch(loaded.object, decision) for decision in changes.decisions)
    sizes = (before, _count(module), native_bytes(compiled.code), general)
    return Explanation(program.name, branches, *sizes, problem)


def native_bytes(code: NativeCode) -> int:
    """The bytes of all code sections."""
    return sum(section.size for section in code.sections if section.is_executable)


def _branch(object: Object, decision: Decision) -> DecidedBranch:
    causes = tuple(Cause(load, _variable(object, load)) for load in decision.loads)
    return DecidedBranch(decision.at, decision.is_taken, causes)


def _variable(object: Object, load: ReadOnlyLoad) -> str:
    """The variable, member or element that was loaded."""
    for variable in find_variables(object).values():
        beyond = load.offset - variable.offset
        if variable.map == load.map and beyond >= 0 and beyond + load.size <= variable.size:
            path = path_at(object.btf, variable.type_id, beyond, load.size) if object.btf is not None else ""
            return variable.name + path
    return ""


def _count(module: Module) -> int:
    """The instructions of the program that something in the module stands for."""
    return len({at for function in module.functions.values() for at in _slots(function)})


def _slots(function: Function) -> Iterator[int]:
    for block in function.blocks:
        yield from (inst.at for inst in block.insts)
        yield block.terminator.at


def _place(at: Location) -> str:
    return str(at.source or f"{at.function}: insn {at.insn}")
