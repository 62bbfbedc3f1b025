"""The abstract value of a bit vector: known bits, an unsigned and a signed range, and facts of its low half.

    value, mask    bits known (ir/verify/tnum.py)
    umin..umax     as an unsigned number
    smin..smax     as a signed number
    low            a Scalar of half the width if more is known of the low half than the rest tells, else None

A Scalar is immutable and normal: each part has already taken from the others what it can. Two Scalars of one
width are joined, met, compared and widened here; ir/verify/transfer.py computes with them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, final

from ir.verify.tnum import next_member, previous_member

_LOW_SIGN: Final = {bits: 1 << bits // 2 - 1 for bits in range(2, 65)} | {1: 0}


@final
class Scalar:
    """A set of `bits`-wide numbers. Made by `make`, `const`, `unknown` and `between`, never directly."""

    __slots__ = ("_view", "bits", "low", "mask", "smax", "smin", "umax", "umin", "value")

    def __init__(
        self,
        bits: int,
        value: int,
        mask: int,
        umin: int,
        umax: int,
        smin: int,
        smax: int,
        low: Scalar | None,
    ) -> None:
        self.bits = bits
        self.value = value
        self.mask = mask
        self.umin = umin
        self.umax = umax
        self.smin = smin
        self.smax = smax
        self.low = low
        self._view: Scalar | None = low

    def __repr__(self) -> str:
        if not self.mask:
            return f"{self.smin}"
        parts = [f"u{self.bits} {self.umin:#x}..{self.umax:#x}"]
        if self.smin < 0 <= self.smax:
            parts.append(f"s{self.bits} {self.smin}..{self.smax}")
        if self.mask & (self.mask + 1) or self.value:
            parts.append(f"bits ({self.value:#x}; {self.mask:#x})")
        if self.low is not None:
            parts.append(f"low [{self.low}]")
        return ", ".join(parts)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Scalar):
            return NotImplemented
        return (
            self.umin == other.umin
            and self.umax == other.umax
            and self.mask == other.mask
            and self.value == other.value
            and self.smin == other.smin
            and self.smax == other.smax
            and self.bits == other.bits
            and self.low == other.low
        )

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> tuple[object, ...]:
        """Everything that tells it from others."""
        low = self.low.key if self.low is not None else None
        return (self.bits, self.value, self.mask, self.umin, self.umax, self.smin, self.smax, low)

    @property
    def is_const(self) -> bool:
        """Whether it is one number, which is then `value`."""
        return not self.mask

    def contains(self, number: int) -> bool:
        """Whether the unsigned `number` is in the set."""
        top = 1 << self.bits
        signed = number - top if number >= top >> 1 else number
        if (number ^ self.value) & ~self.mask & (top - 1):
            return False
        if not (self.umin <= number <= self.umax and self.smin <= signed <= self.smax):
            return False
        return self.low is None or self.low.contains(number & ((1 << self.low.bits) - 1))

    def half(self) -> Scalar:
        """What is known of the low half."""
        view = self._view
        if view is None:
            view = self._view = narrow(self, self.bits >> 1)
        return view


@lru_cache(maxsize=4096)
def const(bits: int, number: int) -> Scalar:
    """The one number `number` modulo 2**bits."""
    top = 1 << bits
    number &= top - 1
    signed = number - top if number >= top >> 1 else number
    return Scalar(bits, number, 0, number, number, signed, signed, None)


@lru_cache(maxsize=64)
def unknown(bits: int) -> Scalar:
    """Any number."""
    top = 1 << bits
    return Scalar(bits, 0, top - 1, 0, top - 1, -(top >> 1), (top >> 1) - 1, None)


def between(bits: int, umin: int, umax: int) -> Scalar:
    """Every number from umin to umax, unsigned."""
    top = 1 << bits
    made = make(bits, 0, top - 1, umin, umax, -(top >> 1), (top >> 1) - 1)
    assert made is not None
    return made


def between_signed(bits: int, smin: int, smax: int) -> Scalar:
    """Every number from smin to smax, signed."""
    top = 1 << bits
    made = make(bits, 0, top - 1, 0, top - 1, smin, smax)
    assert made is not None
    return made


def make(
    bits: int,
    value: int,
    mask: int,
    umin: int,
    umax: int,
    smin: int,
    smax: int,
    low: Scalar | None = None,
) -> Scalar | None:
    """The numbers that all the given facts allow, in normal form; None when there are none."""
    top = 1 << bits
    sign = top >> 1
    if low is not None:
        return _make_with_low(bits, value, mask, umin, umax, smin, smax, low)
    if umin < value:
        umin = value
    if umax > value | mask:
        umax = value | mask
    if mask & sign:
        if smin < value - sign:
            smin = value - sign
        if smax > (value | mask) - sign:
            smax = (value | mask) - sign
    # The signed range is one or two stretches of the unsigned line.
    if smin >= 0:
        if umin < smin:
            umin = smin
        if umax > smax:
            umax = smax
    elif smax < 0:
        if umin < smin + top:
            umin = smin + top
        if umax > smax + top:
            umax = smax + top
    elif umax < smin + top:
        if umax > smax:
            umax = smax
    elif umin > smax and umin < smin + top:
        umin = smin + top
    if umin > umax or smin > smax:
        return None
    # Bits above the highest one in which the bounds differ are those of both bounds.
    span = (1 << (umin ^ umax).bit_length()) - 1
    if (umin ^ value) & ~(mask | span):
        return None
    if mask & ~span:
        value |= umin & mask & ~span
        mask &= span
        if umin < value:
            umin = value
        if umax > value | mask:
            umax = value | mask
        if umin > umax:
            return None
    if not mask or umin == umax:
        return const(bits, umin) if not (umin ^ value) & ~mask else None
    if umax < sign:
        smin, smax = umin, umax
    elif umin >= sign:
        smin, smax = umin - top, umax - top
    elif umax == top - 1 and not umin and mask == umax and smin == -sign and smax == sign - 1:
        return unknown(bits)
    return Scalar(bits, value, mask, umin, umax, smin, smax, None)


def _make_with_low(
    bits: int, value: int, mask: int, umin: int, umax: int, smin: int, smax: int, low: Scalar
) -> Scalar | None:
    half = bits >> 1
    ones = (1 << half) - 1
    if (value ^ low.value) & ~mask & ~low.mask & ones:
        return None
    value |= low.value
    mask &= low.mask | ~ones
    value &= ~mask
    umin, umax = _step_up(umin, half, low), _step_down(umax, half, low)
    smin, smax = _step_up(smin, half, low), _step_down(smax, half, low)
    if umin < 0 or umax < 0 or umin >> bits or umax >> bits or umin > umax or smin > smax:
        return None
    whole = make(bits, value, mask, umin, umax, smin, smax)
    if whole is None:
        return None
    if not whole.mask:
        return whole if low.contains(whole.value & ones) else None
    told = whole.half()
    both = meet(low, told)
    if both is None:
        return None
    if both is told or covers(both, told):
        return whole
    return Scalar(bits, whole.value, whole.mask, whole.umin, whole.umax, whole.smin, whole.smax, both)


def _step_up(bound: int, half: int, low: Scalar) -> int:
    """The least number >= bound whose low half lies in low's unsigned range."""
    part = bound & ((1 << half) - 1)
    if part < low.umin:
        return bound - part + low.umin
    if part > low.umax:
        return bound - part + (1 << half) + low.umin
    return bound


def _step_down(bound: int, half: int, low: Scalar) -> int:
    part = bound & ((1 << half) - 1)
    if part > low.umax:
        return bound - part + low.umax
    if part < low.umin:
        return bound - part - (1 << half) + low.umax
    return bound


def narrow(x: Scalar, to: int) -> Scalar:
    """The low `to` bits of x, without `x.low`."""
    ones = (1 << to) - 1
    if not x.mask:
        return const(to, x.value)
    sign = 1 << (to - 1)
    value, mask = x.value & ones, x.mask & ones
    umin, umax, smin, smax = 0, ones, -sign, sign - 1
    for first, last in ((x.umin, x.umax), (x.smin, x.smax)):
        if last - first > ones:
            continue
        start, end = first & ones, last & ones
        if start <= end:
            umin, umax = max(umin, start), min(umax, end)
        start, end = start ^ sign, end ^ sign
        if start <= end:
            smin, smax = max(smin, start - sign), min(smax, end - sign)
    return make(to, value, mask, umin, umax, smin, smax) or unknown(to)


def tighten(x: Scalar) -> Scalar | None:
    """x with its unsigned bounds moved in to members of its known bits; None when there are none left."""
    mask = x.mask
    if not mask & (mask + 1) or x.low is not None:
        return x
    umin = next_member(x.value, mask, x.umin)
    umax = previous_member(x.value, mask, x.umax)
    if umin == x.umin and umax == x.umax:
        return x
    return make(x.bits, x.value, mask, umin, umax, x.smin, x.smax) if umin <= umax else None


def with_low(x: Scalar, low: Scalar) -> Scalar | None:
    """x, knowing also `low` of its low half; None when that cannot be."""
    return make(
        x.bits, x.value, x.mask, x.umin, x.umax, x.smin, x.smax, low if x.low is None else meet(x.low, low)
    )


def join(x: Scalar, y: Scalar) -> Scalar:
    """The smallest Scalar that has every number of both."""
    if x is y or (not y.mask and not x.mask and x.value == y.value):
        return x
    mask = x.mask | y.mask | (x.value ^ y.value)
    umin = x.umin if x.umin < y.umin else y.umin
    umax = x.umax if x.umax > y.umax else y.umax
    smin = x.smin if x.smin < y.smin else y.smin
    smax = x.smax if x.smax > y.smax else y.smax
    if (
        mask == x.mask
        and umin == x.umin
        and umax == x.umax
        and smin == x.smin
        and smax == x.smax
        and x.low is None
    ):
        return x
    whole = Scalar(x.bits, x.value & ~mask, mask, umin, umax, smin, smax, None)
    if x.low is None and y.low is None and not (x.value ^ y.value) & ~(x.mask | y.mask) & _LOW_SIGN[x.bits]:
        return whole  # unless both low halves have a sign, and differ in it: 0 and -1 of 32 bits are near each other
    low, told = join(x.half(), y.half()), whole.half()
    if covers(low, told):
        return whole
    return Scalar(x.bits, whole.value, mask, umin, umax, smin, smax, low)


def meet(x: Scalar, y: Scalar) -> Scalar | None:
    """The numbers in both (or a few more), None when there are none."""
    if x is y:
        return x
    if (x.value ^ y.value) & ~x.mask & ~y.mask:
        return None
    low = y.low if x.low is None else x.low if y.low is None else meet(x.low, y.low)
    if low is None and x.low is not None:
        return None
    return make(
        x.bits,
        x.value | y.value,
        x.mask & y.mask,
        max(x.umin, y.umin),
        min(x.umax, y.umax),
        max(x.smin, y.smin),
        min(x.smax, y.smax),
        low,
    )


def covers(x: Scalar, y: Scalar) -> bool:
    """Whether x surely has every number of y."""
    return x is y or (
        x.umin <= y.umin
        and y.umax <= x.umax
        and x.smin <= y.smin
        and y.smax <= x.smax
        and not y.mask & ~x.mask
        and not (x.value ^ y.value) & ~x.mask
        and (x.low is None or covers(x.low, y.half()))
    )


def widen(old: Scalar, new: Scalar, thresholds: Sequence[int]) -> Scalar:
    """Both, each bound that moved pushed on to the next of the sorted `thresholds`; repeated, it ends."""
    both = join(old, new)
    if both is old or covers(old, both):
        return old
    top = 1 << both.bits
    umin, umax, smin, smax, mask = both.umin, both.umax, both.smin, both.smax, both.mask
    if umin < old.umin:
        umin = _below(umin, thresholds, 0)
    if umax > old.umax:
        umax = _above(umax, thresholds, top - 1)
    if smin < old.smin:
        smin = _below(smin, thresholds, -(top >> 1))
    if smax > old.smax:
        smax = _above(smax, thresholds, (top >> 1) - 1)
    lost = mask & ~old.mask
    if lost:
        mask |= (top - 1) & ~((lost & -lost) - 1)
    value = both.value & ~mask
    low = both.low
    if low is not None:
        low = widen(old.half(), low, thresholds)
    made = make(both.bits, value, mask, umin, umax, smin, smax, low)
    return (tighten(made) or both) if made is not None else both


def _above(bound: int, thresholds: Sequence[int], limit: int) -> int:
    at = bisect_left(thresholds, bound)
    return min(thresholds[at], limit) if at < len(thresholds) else limit


def _below(bound: int, thresholds: Sequence[int], limit: int) -> int:
    at = bisect_right(thresholds, bound) - 1
    return max(thresholds[at], limit) if at >= 0 else limit
