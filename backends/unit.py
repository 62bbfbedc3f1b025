"""What the functions of a module share while it is lowered: facts, options, declarations, problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

from backends.calls import Natives
from backends.origins import Origins
from ir.callees import callees_of, functions_taken, token_names
from ir.core import Address, Atomic, Block, Call, Inst, Load, Module, Store, Value
from ir.diagnostics import Diagnostic
from ir.isa import Callee
from ir.object import ReferenceKind
from ir.region import Region, RegionKind
from ir.regions import Regions
from ir.verify.values import ANY, Known


class Facts(Protocol):
    """What verification proved: accesses that need no check, loops that need no fuel, divisors that are not 0."""

    def is_proved(self, inst: Inst) -> bool: ...

    def trip_bound(self, block: Block) -> int | None: ...

    def is_never_zero(self, value: Value, bits: int) -> bool: ...

    def value(self, value: Value) -> Known: ...


@final
class NothingProved:
    """No facts: every access is checked, every loop spends fuel."""

    def is_proved(self, inst: Inst) -> bool:
        return False

    def trip_bound(self, block: Block) -> int | None:
        return None

    def is_never_zero(self, value: Value, bits: int) -> bool:
        return False

    def value(self, value: Value) -> Known:
        return ANY


@final
@dataclass(frozen=True, slots=True)
class LowerOptions:
    """How to lower. `count_insns` adds up executed instructions; `site_bytes` is the target's static-branch region;
    `lines` gives LLVM's instructions the slots they are for. `proved`: a proof says that what cannot be right is never
    run, so that a trap will do for it. `has_batch`: with the loops over many packets.
    With a `word` of 4, addresses are of 32 bits: what functions get behind the run, and pointers in memory, are 64 all the same.

    With a `prologue` (the target's entry NOP), main and global functions can be hooked and replaced while they run.
    """

    big_endian: bool = False
    count_insns: bool = False
    site_bytes: int = 9
    callx_helpers: frozenset[int] = frozenset()
    lines: bool = False
    prologue: str = ""
    proved: bool = False
    has_batch: bool = True
    word: int = 8


@final
class Unit:
    """What the functions of a module share while it is lowered."""

    def __init__(
        self, module: Module, regions: Regions, facts: Facts, options: LowerOptions, natives: Natives
    ) -> None:
        self.module, self.regions, self.facts, self.options = module, regions, facts, options
        self.natives = natives
        self.callx_helpers = options.callx_helpers
        self.origins = Origins(module, regions, facts)
        self.needs_segments = False
        self.taken = frozenset(functions_taken(module))
        self.uses_run_stack = _needs_run_stack(module, regions, facts)
        self.declared: dict[str, str] = {}
        self.globals: set[str] = set()
        self.problems: list[Diagnostic] = []
        self.flags: set[int] = set()  # slots of static branches that are tests of a word
        self.may_trap: set[str] = set()
        self.large: set[str] = set()
        self.checks = 0
        self.fueled = 0
        self.order = _callees_first(module)
        self.tokens = token_names(module)
        self.entry_taken = sorted(
            {
                inst.reference.name
                for function in module.functions.values()
                for inst in function.insts()
                if isinstance(inst, Address) and inst.reference.kind is ReferenceKind.FUNCTION
            }
        )

    def is_replaceable(self, name: str) -> bool:
        """Whether the function that runs when `name` is called may be another one by then, which nothing is known of."""
        function = self.module.functions[name]
        return bool(self.options.prologue) and function.info.is_global and function is not self.module.main

    def declare(self, name: str, result: str, arguments: str, attributes: str = "") -> str:
        """Declare an external function once; its operand."""
        self.declared.setdefault(name, f"{result} @{quote(name)}({arguments}) {attributes}".rstrip())
        return f"@{quote(name)}"

    def symbol(self, name: str) -> str:
        """An external data symbol; its operand."""
        self.globals.add(name)
        return f"@{quote(name)}"


def _needs_run_stack(module: Module, regions: Regions, facts: Facts) -> bool:
    """Whether some unproved access may be through a pointer to another function's frame."""
    for name, function in module.functions.items():
        for inst in function.insts():
            if isinstance(inst, Call):
                if _lends_frame(module, regions, inst) or _passes_foreign(name, regions, facts, inst):
                    return True
                continue
            if not isinstance(inst, Load | Store | Atomic) or facts.is_proved(inst):
                continue
            if _may_be_foreign(name, regions.of(inst.base)):
                return True
    return False


def _may_be_foreign(name: str, region: Region) -> bool:
    """Whether a pointer in function `name` may be one to another function's frame."""
    if region.kind is RegionKind.FRAME:
        return region.name != name
    kinds = {kind for kind, _ in region.parts}
    return region.kind is RegionKind.UNKNOWN and (not kinds or RegionKind.FRAME in kinds)


def _passes_foreign(name: str, regions: Regions, facts: Facts, call: Call) -> bool:
    """Whether a helper or kernel function gets a pointer whose place must be checked, perhaps in another's frame."""
    if call.callee not in (Callee.HELPER, Callee.KFUNC) or facts.is_proved(call):
        return False
    return any(_may_be_foreign(name, regions.of(argument)) for argument in call.args)


def _lends_frame(module: Module, regions: Regions, call: Call) -> bool:
    """Whether a global function gets a pointer to the caller's frame: what replaces it may have to check accesses."""
    if not isinstance(call.target, str) or call.target not in module.functions:
        return False
    is_global = module.functions[call.target].info.is_global
    return is_global and any(regions.of(arg).kind is RegionKind.FRAME for arg in call.args)


def _callees_first(module: Module) -> list[str]:
    """The functions that main can reach, each after those that it calls; others are not lowered."""
    called = {name: callees_of(module, function) for name, function in module.functions.items()}
    order: list[str] = []
    seen: set[str] = set()
    stack: list[tuple[str, bool]] = [(module.main.name, False)]
    while stack:
        name, done = stack.pop()
        if done:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            stack.append((name, True))
            stack += [(callee, False) for callee in called[name]]
    return order


def quote(name: str) -> str:
    """An LLVM identifier for any symbol name, without its sigil."""
    escaped = "".join(
        c
        if c.isprintable() and c not in '"\\' and ord(c) < 127
        else "".join(f"\\{b:02X}" for b in c.encode())
        for c in name
    )
    return f'"{escaped}"'
