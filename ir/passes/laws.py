"""Algebraic laws of the rows, found by asking the rows: which constants change nothing or decide the result.

No operation is listed here. A law is what holds for every probe below; tests try each law on random operands.

    add64 x, 0 = x    and64 x, 0 = 0    xor64 x, x = 0    or32 x, x = zero-extended x    jlt64 x, 0 = 0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, final

from ir.algebra import Integers
from ir.isa import ROW_BY_NAME, Kind, Row, compute

OPERAND: Final = -1
"""Stands for "the other operand", zero-extended from the row's width; every real result is >= 0."""

_MASK: Final = (1 << 64) - 1
_PROBES: Final = (
    *(0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFF_FFFF, 0x8000_0000),
    *(0x8000_0001, 0xFFFF_FFFE, 0xFFFF_FFFF, 1 << 32, 0x7FFF_FFFF_FFFF_FFFF, 1 << 63, (1 << 63) + 1),
    *(_MASK - 1, _MASK, 0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210, 0x5555_5555_AAAA_AAAA),
)


@final
@dataclass(frozen=True, slots=True)
class Laws:
    """Results by the constant (masked to the row's width) on the right or left, and of x with itself.

    A result is a 64-bit value, or OPERAND.
    """

    right: Mapping[int, int]
    left: Mapping[int, int]
    same: int | None
    is_commutative: bool


def laws_of(row: Row, big_endian: bool) -> Laws:
    """The laws of an ALU or branch row."""
    return _find_laws(row.name, big_endian)


@cache
def _find_laws(name: str, big_endian: bool) -> Laws:
    row = ROW_BY_NAME[name]
    algebra = Integers(big_endian)
    mask = (1 << row.bits) - 1

    def find(result: Callable[[int], int]) -> int | None:
        results = [result(probe) for probe in _PROBES]
        if row.kind is Kind.ALU and results == [probe & mask for probe in _PROBES]:
            return OPERAND
        return results[0] if len(set(results)) == 1 else None

    right: dict[int, int] = {}
    left: dict[int, int] = {}
    for constant in (0, 1, mask):
        law = find(lambda x, c=constant: compute(row, algebra, x, c))  # type: ignore[misc]  # a default binds early
        if law is not None:
            right[constant] = law
        law = find(lambda y, c=constant: compute(row, algebra, c, y))  # type: ignore[misc]  # as above
        if law is not None:
            left[constant] = law
    swaps = all(
        compute(row, algebra, x, y) == compute(row, algebra, y, x) for x in _PROBES for y in _PROBES if x < y
    )
    return Laws(right, left, find(lambda x: compute(row, algebra, x, x)), swaps)
