"""What taking or not taking a branch tells about its operands.

The test of a branch row is read off its meaning: the row runs over an algebra whose values are terms, and the
term that comes out is a comparison. So a new branch row needs nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, cast, final

from ir.algebra import Algebra
from ir.isa import ROWS, Kind, Row, compute
from ir.verify.scalar import Scalar, make, meet, tighten, with_low
from ir.verify.transfer import FALSE, SCALARS, TRUE


class Relation(Enum):
    """The comparisons that tests are made of."""

    EQ = "=="
    ULT = "<"
    SLT = "s<"
    SET = "&"


# By names of their own, for a member of an Enum is slow to find.
_EQ, _ULT, _SET = Relation.EQ, Relation.ULT, Relation.SET


@final
@dataclass(frozen=True, slots=True)
class Test:
    """`x relation y` at `bits`; operands exchanged first if `is_flipped`, outcome negated if `is_negated`."""

    relation: Relation
    bits: int
    is_flipped: bool
    is_negated: bool


def test_of(row: Row) -> Test:
    """What a branch row tests."""
    return _TESTS[row.name]


def outcome(row: Row, x: Scalar, y: Scalar) -> bool | None:
    """Whether the branch is surely taken (True) or surely not (False)."""
    condition = compute(row, SCALARS, x, y)
    return True if condition is TRUE else False if condition is FALSE else None


def refine(row: Row, taken: bool, x: Scalar, y: Scalar) -> tuple[Scalar, Scalar] | None:
    """The operands on the way where the branch is `taken` or not; None when nothing goes that way."""
    test = _TESTS[row.name]
    holds = taken != test.is_negated
    if test.bits == x.bits:
        return _ordered(test, holds, x, y)
    # The row compares low halves: refine those, then the whole.
    halves = _ordered(test, holds, x.half(), y.half())
    if halves is None:
        return None
    left = x if halves[0] is x.half() else with_low(x, halves[0])
    right = y if halves[1] is y.half() else with_low(y, halves[1])
    return None if left is None or right is None else (left, right)


def _ordered(test: Test, holds: bool, x: Scalar, y: Scalar) -> tuple[Scalar, Scalar] | None:
    if not test.is_flipped:
        return refine_relation(test.relation, holds, x, y)
    pair = refine_relation(test.relation, holds, y, x)
    return None if pair is None else (pair[1], pair[0])


def refine_relation(relation: Relation, holds: bool, x: Scalar, y: Scalar) -> tuple[Scalar, Scalar] | None:
    """The operands where `x relation y` holds, or does not; None when that cannot be."""
    if relation is _EQ:
        if not holds:
            return _pair(_without(x, y), _without(y, x))
        both = meet(x, y)
        return None if both is None else (both, both)
    if relation is _SET:
        return _pair(_masked(x, y, holds), _masked(y, x, holds))
    if relation is _ULT:
        if holds:
            return _pair(_within(x, 0, y.umax - 1), _within(y, x.umin + 1, y.umax))
        return _pair(_within(x, y.umin, x.umax), _within(y, 0, x.umax))
    if holds:
        return _pair(_within_signed(x, x.smin, y.smax - 1), _within_signed(y, x.smin + 1, y.smax))
    return _pair(_within_signed(x, y.smin, x.smax), _within_signed(y, y.smin, x.smax))


def _pair(x: Scalar | None, y: Scalar | None) -> tuple[Scalar, Scalar] | None:
    return None if x is None or y is None else (x, y)


def _within(x: Scalar, umin: int, umax: int) -> Scalar | None:
    if umin <= x.umin and x.umax <= umax:
        return x
    umin, umax = max(umin, x.umin), min(umax, x.umax)
    if umin > umax:
        return None
    made = make(x.bits, x.value, x.mask, umin, umax, x.smin, x.smax, x.low)
    return None if made is None else tighten(made)


def _within_signed(x: Scalar, smin: int, smax: int) -> Scalar | None:
    if smin <= x.smin and x.smax <= smax:
        return x
    smin, smax = max(smin, x.smin), min(smax, x.smax)
    if smin > smax:
        return None
    made = make(x.bits, x.value, x.mask, x.umin, x.umax, smin, smax, x.low)
    return None if made is None else tighten(made)


def _without(x: Scalar, other: Scalar) -> Scalar | None:
    """x less the one number `other`, which only tells something at the ends of x."""
    if other.mask:
        return x
    number = other.value
    signed = other.smin
    umin, umax, smin, smax = x.umin, x.umax, x.smin, x.smax
    if umin == number:
        umin += 1
    if umax == number:
        umax -= 1
    if smin == signed:
        smin += 1
    if smax == signed:
        smax -= 1
    if umin > umax or smin > smax:
        return None
    low = x.low
    if umin == x.umin and umax == x.umax and smin == x.smin and smax == x.smax:
        return x
    made = make(x.bits, x.value, x.mask, umin, umax, smin, smax, low)
    return None if made is None else tighten(made)


def _masked(x: Scalar, bits: Scalar, any_set: bool) -> Scalar | None:
    """x, knowing whether it has a bit in common with `bits`."""
    value, mask = x.value, x.mask
    if any_set:
        shared = (value | mask) & (bits.value | bits.mask)
        if not shared:
            return None
        if shared & (shared - 1) or not shared & mask:
            return x
        value, mask = value | shared, mask & ~shared
    else:
        if value & bits.value:
            return None
        if not mask & bits.value:
            return x
        mask &= ~bits.value
    made = make(x.bits, value, mask, x.umin, x.umax, x.smin, x.smax, x.low)
    return None if made is None else tighten(made)


@final
class _Terms:
    """An Algebra whose values are terms: 'x', 'y', 0, or (operation, operand...)."""

    big_endian = False

    def trunc(self, bits: int, x: object, to: int) -> object:
        return x

    def const(self, bits: int, value: int) -> object:
        return value

    def __getattr__(self, name: str) -> object:
        if name == "not_":
            return lambda x: ("not_", x)
        return lambda bits, *operands: (name, *operands)


def _read(term: object, bits: int) -> Test:
    negated = False
    while isinstance(term, tuple) and term[0] == "not_":
        negated, term = not negated, term[1]
    assert isinstance(term, tuple), term
    name, *operands = term
    if name == "eq" and operands == [("and_", "x", "y"), 0]:
        return Test(Relation.SET, bits, False, not negated)
    relation = {"eq": Relation.EQ, "ult": Relation.ULT, "slt": Relation.SLT}[name]
    assert sorted(operands) == ["x", "y"]
    return Test(relation, bits, operands == ["y", "x"], negated)


_TESTS: Final = {
    row.name: _read(compute(row, cast(Algebra[Any], _Terms()), "x", "y"), row.bits)
    for row in ROWS
    if row.kind is Kind.BRANCH
}
