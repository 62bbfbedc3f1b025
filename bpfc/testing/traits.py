"""What is in a program that was proved: how varied those are that a campaign went through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bpfc.testing.claims import Claims
from ir.core import Atomic, Call, Load, Module, Param, Store
from ir.isa import Callee, Kind, Row
from ir.kinds import ProgramType
from ir.verify.values import AreaKind, Pointer

_OF_CALLEES: Final[Mapping[Callee, str]] = {
    Callee.SUBPROGRAM: "calls of functions",
    Callee.HELPER: "calls of helpers",
}
_OF_AREAS: Final[Mapping[AreaKind, str]] = {
    AreaKind.FRAME: "stack",
    AreaKind.PACKET: "packet",
    AreaKind.MAP_VALUE: "map value",
    AreaKind.MEMORY: "raw memory",
}


def traits_of(module: Module, claims: Claims) -> set[str]:
    """The traits of a program with the claims of its proof."""
    found = {_trait_of(row) for row in {row.name: row for row in module.program.rows}.values()}
    found.discard("")
    found.add("packets" if module.program.type is not ProgramType.UNSPEC else "raw memory")
    if len(module.functions) > 1:
        found.add("several functions")
    for function in module.functions.values():
        for block in function.blocks:
            if any(edge.block.start <= block.start and edge.block is not block for edge in block.edges()):
                found.add("loops")
            for inst in block.insts:
                if type(inst) is Call:
                    found.add(_OF_CALLEES.get(inst.callee, "other calls"))
                elif isinstance(inst, Load | Store | Atomic):
                    found |= _accesses(inst, claims)
    return found


def _trait_of(row: Row) -> str:
    if row.kind is Kind.ALU:
        return f"ALU of {row.bits} bits"
    if row.kind is Kind.BRANCH:
        sign = "signed" if row.name.startswith("js") and not row.name.startswith("jset") else "unsigned"
        return f"{sign} branches of {row.bits} bits"
    return "atomics" if row.is_atomic else ""


def _accesses(inst: Load | Store | Atomic, claims: Claims) -> set[str]:
    """What an access goes to, as far as an instruction of its own made the address."""
    found: set[str] = set()
    if type(inst.base) is Param:
        return found
    for made in claims.results.get(inst.base, {}).values():
        for claim in made:
            if type(claim.known) is Pointer:
                kind = _OF_AREAS.get(claim.known.area.kind)
                if kind is not None:
                    found.add(f"{'variable offsets' if claim.known.span.mask else 'accesses'}: {kind}")
    return found
