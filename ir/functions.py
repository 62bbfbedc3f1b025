"""Where functions start in bare bytecode: at slot 0, and wherever a call or a function address points."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ir.isa import ROWS, Callee, Insn, Kind, Wide, row_of, slot_numbers
from ir.object import FunctionInfo

_MAY_NAME_FUNCTION = frozenset(row.opcode for row in ROWS if row.kind in (Kind.CALL, Kind.WIDE))


def discover_functions(insns: Sequence[Insn], name: str) -> tuple[FunctionInfo, ...]:
    """The functions of bare bytecode: main, and whatever a subprogram call or function address points at."""
    starts = slot_numbers(insns)
    entries = {0}
    for slot, insn in zip(starts, insns, strict=False):
        target = called_slot(insn, slot)
        if target is not None and 0 <= target < starts[-1]:
            entries.add(target)
    bounds = [*sorted(entries), starts[-1]]
    return tuple(
        FunctionInfo(name if begin == 0 else f"subprog_{number}", begin, end - begin, is_global=begin == 0)
        for number, (begin, end) in enumerate(pairwise(bounds))
    )


def called_slot(insn: Insn, slot: int) -> int | None:
    """The slot of the function that the insn at `slot` calls or takes the address of, if it names one."""
    if insn.opcode not in _MAY_NAME_FUNCTION:
        return None
    row = row_of(insn)
    if row.kind is Kind.CALL and row.callee is Callee.SUBPROGRAM:
        return slot + 1 + insn.imm
    if row.kind is Kind.WIDE and insn.src == Wide.FUNC.value:
        distance = insn.imm & 0xFFFF_FFFF
        return slot + 1 + (distance - (1 << 32) if distance >> 31 else distance)
    return None
