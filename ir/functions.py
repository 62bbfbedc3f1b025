"""Where functions start in bare bytecode: at slot 0, and wherever a call, a function address or a table points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from ir.isa import ROWS, Callee, Insn, Kind, Wide, row_of, slot_numbers
from ir.kinds import MapFlag, MapType
from ir.object import FUNCTION_TOKENS, FunctionInfo, FunctionTable, FunctionWord, Map

MAY_NAME_FUNCTION = frozenset(row.opcode for row in ROWS if row.kind in (Kind.CALL, Kind.WIDE))


def discover_functions(
    insns: Sequence[Insn], name: str, in_tables: Iterable[int] = ()
) -> tuple[FunctionInfo, ...]:
    """The functions of bare bytecode: main, whatever a subprogram call or function address points at, and the
    slots `in_tables`.
    """
    starts = slot_numbers(insns)
    entries = {0, *(slot for slot in in_tables if slot < starts[-1])}
    for slot, insn in zip(starts, insns, strict=False):
        target = called_slot(insn, slot)
        if target is not None and 0 <= target < starts[-1]:
            entries.add(target)
    bounds = [*sorted(entries), starts[-1]]
    return tuple(
        FunctionInfo(name if begin == 0 else f"subprog_{number}", begin, end - begin, is_global=begin == 0)
        for number, (begin, end) in enumerate(pairwise(bounds))
    )


def function_table(name: str, slots: Sequence[int | None], big_endian: bool = False) -> Map:
    """A read-only map of one value, a word for each of the functions at `slots` of a program; None is NULL."""
    words = tuple(
        FunctionWord(8 * number, FUNCTION_TOKENS + 8 * slot, "", 8 * slot)
        for number, slot in enumerate(slots)
        if slot is not None
    )
    content = bytearray(8 * len(slots))
    for word in words:
        content[word.offset : word.offset + 8] = word.token.to_bytes(8, "big" if big_endian else "little")
    return Map(
        name,
        MapType.ARRAY,
        4,
        len(content),
        1,
        int(MapFlag.RDONLY_PROG),
        initial=bytes(content),
        is_read_only=True,
        relocated=tuple((word.offset, 8) for word in words),
        tables=(FunctionTable(0, len(content), words),),
    )


def called_slot(insn: Insn, slot: int) -> int | None:
    """The slot of the function that the insn at `slot` calls or takes the address of, if it names one."""
    if insn.opcode not in MAY_NAME_FUNCTION:
        return None
    row = row_of(insn)
    if row.kind is Kind.CALL and row.callee is Callee.SUBPROGRAM:
        return slot + 1 + insn.imm
    if row.kind is Kind.WIDE and insn.src == Wide.FUNC.value:
        distance = insn.imm & 0xFFFF_FFFF
        return slot + 1 + (distance - (1 << 32) if distance >> 31 else distance)
    return None
