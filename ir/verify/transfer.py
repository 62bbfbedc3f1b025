"""Arithmetic on Scalars: the algebra that runs the meaning of every ALU and branch row over sets of numbers.

Each operation's result has every number that the operation gives for numbers of its operands. Comparisons
give one of three one-bit Scalars: FALSE, TRUE, MAYBE. As in every Algebra, a divisor is never 0 and a shift
count is always below the width.
"""

from __future__ import annotations

from typing import Final, final

from ir.algebra import Integers
from ir.isa import Row, compute
from ir.verify import tnum
from ir.verify.scalar import Scalar, const, join, make, meet, narrow, unknown

FALSE: Final = const(1, 0)
TRUE: Final = const(1, 1)
MAYBE: Final = unknown(1)

_exact: Final = Integers()


@final
class ScalarAlgebra:
    """`Algebra[Scalar]`. It remembers what ALU rows gave, for the same few Scalars come again and again."""

    __slots__ = ("_computed", "big_endian")

    def __init__(self, big_endian: bool = False) -> None:
        self.big_endian = big_endian
        self._computed: dict[tuple[str, int, int], tuple[Scalar, Scalar, Scalar]] = {}

    def compute(self, row: Row, x: Scalar, y: Scalar) -> Scalar:
        """As `ir.isa.compute`. Operands are told apart by identity, and kept, so that it stays theirs."""
        key = (row.name, id(x), id(y))
        known = self._computed.get(key)
        if known is None:
            result: Scalar = compute(row, self, x, y)
            known = self._computed[key] = (x, y, result)
        return known[2]

    def const(self, bits: int, value: int) -> Scalar:
        return const(bits, value)

    def add(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        if not y.mask:
            if not y.value:
                return x
            if not x.mask:
                return const(bits, x.value + y.value)
        top = 1 << bits
        sign = top >> 1
        umin, umax = x.umin + y.umin, x.umax + y.umax
        if umax >= top:
            umin, umax = (umin - top, umax - top) if umin >= top else (0, top - 1)
        smin, smax = x.smin + y.smin, x.smax + y.smax
        if smin < -sign or smax >= sign:
            if smin >= sign:
                smin, smax = smin - top, smax - top
            elif smax < -sign:
                smin, smax = smin + top, smax + top
            else:
                smin, smax = -sign, sign - 1
        value, mask = tnum.add(bits, x.value, x.mask, y.value, y.mask)
        low = None
        if x.low is not None or y.low is not None:
            low = self.add(bits >> 1, x.half(), y.half())
        return _made(bits, value, mask, umin, umax, smin, smax, low)

    def sub(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        if not y.mask:
            if not y.value:
                return x
            if not x.mask:
                return const(bits, x.value - y.value)
        top = 1 << bits
        sign = top >> 1
        umin, umax = x.umin - y.umax, x.umax - y.umin
        if umin < 0:
            umin, umax = (umin + top, umax + top) if umax < 0 else (0, top - 1)
        smin, smax = x.smin - y.smax, x.smax - y.smin
        if smin < -sign or smax >= sign:
            if smin >= sign:
                smin, smax = smin - top, smax - top
            elif smax < -sign:
                smin, smax = smin + top, smax + top
            else:
                smin, smax = -sign, sign - 1
        value, mask = tnum.sub(bits, x.value, x.mask, y.value, y.mask)
        low = None
        if x.low is not None or y.low is not None:
            low = self.sub(bits >> 1, x.half(), y.half())
        return _made(bits, value, mask, umin, umax, smin, smax, low)

    def mul(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        if not x.mask and not y.mask:
            return const(bits, x.value * y.value)
        top = 1 << bits
        sign = top >> 1
        umin, umax = x.umin * y.umin, x.umax * y.umax
        if umax >= top:
            umin, umax = 0, top - 1
        corners = (x.smin * y.smin, x.smin * y.smax, x.smax * y.smin, x.smax * y.smax)
        smin, smax = min(corners), max(corners)
        if smin < -sign or smax >= sign:
            smin, smax = -sign, sign - 1
        value, mask = tnum.mul(bits, x.value, x.mask, y.value, y.mask)
        low = None
        if x.low is not None or y.low is not None:
            low = self.mul(bits >> 1, x.half(), y.half())
        return _made(bits, value, mask, umin, umax, smin, smax, low)

    def udiv(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        if not x.mask and not y.mask:
            return const(bits, x.value // y.value if y.value else 0)
        if not y.mask and not y.value & (y.value - 1):
            return self.lshr(bits, x, const(bits, y.value.bit_length() - 1))
        return _unsigned(bits, x.umin // (y.umax or 1), x.umax // (y.umin or 1))

    def urem(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        if not x.mask and not y.mask:
            return const(bits, x.value % y.value if y.value else 0)
        if x.umax < y.umin:
            return x
        if not y.mask and not y.value & (y.value - 1):
            return self.and_(bits, x, const(bits, y.value - 1))
        if not y.mask and x.umin // y.value == x.umax // y.value:
            return _unsigned(bits, x.umin % y.value, x.umax % y.value)
        return _unsigned(bits, 0, min(x.umax, max(y.umax - 1, 0)))

    def sdiv(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        if not x.mask and not y.mask:
            return const(bits, _exact.sdiv(bits, x.value, y.value)) if y.value else unknown(bits)
        corners = [
            _quotient(n, d)
            for d in (y.smin, y.smax, -2, 1)
            if y.smin <= d <= y.smax and d not in (0, -1)
            for n in (x.smin, x.smax)
        ]
        if not corners:
            return unknown(bits)
        return _signed(bits, min(corners), max(corners))

    def srem(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        if not x.mask and not y.mask:
            return const(bits, _exact.srem(bits, x.value, y.value)) if y.value else unknown(bits)
        most = max(abs(y.smin), abs(y.smax), 1) - 1
        least = y.smin if y.smin > 0 else -y.smax if y.smax < 0 else 0
        if max(abs(x.smin), abs(x.smax)) < least:
            return x
        return _signed(bits, max(-most, x.smin) if x.smin < 0 else 0, min(most, x.smax) if x.smax > 0 else 0)

    def and_(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        if not x.mask and not y.mask:
            return const(bits, x.value & y.value)
        sign = 1 << (bits - 1)
        value, mask = tnum.and_(x.value, x.mask, y.value, y.mask)
        smin, smax = -sign, sign - 1
        if x.smin < 0 and y.smin < 0:
            smax = min(x.smax, y.smax) if x.smax < 0 and y.smax < 0 else max(x.smax, y.smax)
            smin = -1 << max(-x.smin - 1, -y.smin - 1).bit_length()
        low = None
        if x.low is not None or y.low is not None:
            low = self.and_(bits >> 1, x.half(), y.half())
        return _made(bits, value, mask, value, min(x.umax, y.umax), smin, smax, low)

    def or_(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        if not x.mask and not y.mask:
            return const(bits, x.value | y.value)
        sign = 1 << (bits - 1)
        value, mask = tnum.or_(x.value, x.mask, y.value, y.mask)
        smin, smax = -sign, sign - 1
        if x.smin < 0 or y.smin < 0:
            smin = min(x.smin, y.smin)
        low = None
        if x.low is not None or y.low is not None:
            low = self.or_(bits >> 1, x.half(), y.half())
        return _made(bits, value, mask, max(x.umin, y.umin), value | mask, smin, smax, low)

    def xor(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        if not x.mask and not y.mask:
            return const(bits, x.value ^ y.value)
        sign = 1 << (bits - 1)
        value, mask = tnum.xor(x.value, x.mask, y.value, y.mask)
        low = None
        if x.low is not None or y.low is not None:
            low = self.xor(bits >> 1, x.half(), y.half())
        return _made(bits, value, mask, value, value | mask, -sign, sign - 1, low)

    def shl(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        top = 1 << bits
        if not y.mask:
            count = y.value
            if not x.mask:
                return const(bits, x.value << count)
            return self._shl_const(bits, x, count)
        least, most = y.umin, min(y.umax, bits - 1)
        zeros = min(tnum.trailing_zeros(x.value | x.mask) + least, bits)
        umin, umax = x.umin << least, x.umax << most
        if umax >= top:
            umin, umax = 0, top - 1
        sign = top >> 1
        return _made(bits, 0, top - (1 << zeros), umin, umax, -sign, sign - 1)

    def _shl_const(self, bits: int, x: Scalar, count: int) -> Scalar:
        top = 1 << bits
        sign = top >> 1
        if count == bits >> 1 and x.mask:
            # Only the low half survives, and its signed range with it.
            low = x.half()
            value, mask = low.value << count, low.mask << count
            return _made(
                bits, value, mask, low.umin << count, low.umax << count, low.smin << count, low.smax << count
            )
        umin, umax = x.umin << count, x.umax << count
        if umin >> bits == umax >> bits:
            umin, umax = umin & (top - 1), umax & (top - 1)
        else:
            umin, umax = 0, top - 1
        smin, smax = x.smin << count, x.smax << count
        if smin < -sign or smax >= sign:
            smin, smax = -sign, sign - 1
        half = None
        if x.low is not None and count < bits >> 1:
            half = self._shl_const(bits >> 1, x.low, count)
        value, mask = x.value << count & (top - 1), x.mask << count & (top - 1)
        return _made(bits, value, mask, umin, umax, smin, smax, half)

    def lshr(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        sign = 1 << (bits - 1)
        if not y.mask:
            count = y.value
            if not count:
                return x
            if not x.mask:
                return const(bits, x.value >> count)
            value, mask = x.value >> count, x.mask >> count
            return _made(bits, value, mask, x.umin >> count, x.umax >> count, -sign, sign - 1)
        return _unsigned(bits, x.umin >> min(y.umax, bits - 1), x.umax >> y.umin)

    def ashr(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        top = 1 << bits
        sign = top >> 1
        if not y.mask:
            count = y.value
            value = (x.value - top if x.value & sign else x.value) >> count
            mask = (x.mask - top if x.mask & sign else x.mask) >> count
            return _made(
                bits, value & (top - 1), mask & (top - 1), 0, top - 1, x.smin >> count, x.smax >> count
            )
        least, most = y.umin, min(y.umax, bits - 1)
        smin = x.smin >> (least if x.smin < 0 else most)
        smax = x.smax >> (most if x.smax < 0 else least)
        return _signed(bits, smin, smax)

    def bswap(self, bits: int, x: Scalar) -> Scalar:
        if not x.mask:
            return const(bits, _exact.bswap(bits, x.value))
        top = 1 << bits
        sign = top >> 1
        value, mask = _exact.bswap(bits, x.value), _exact.bswap(bits, x.mask)
        return _made(bits, value, mask, 0, top - 1, -sign, sign - 1)

    def trunc(self, bits: int, x: Scalar, to: int) -> Scalar:
        if to << 1 == bits:
            return x.half()
        if to < bits >> 1 and x.low is not None:
            direct, through = narrow(x, to), self.trunc(bits >> 1, x.low, to)
            return meet(direct, through) or direct
        return x if to == bits else narrow(x, to)

    def zext(self, bits: int, x: Scalar, to: int) -> Scalar:
        if not x.mask:
            return const(to, x.value)
        low = None
        if to == bits << 1 and x.umin < 1 << (bits - 1) <= x.umax and x.smax - x.smin < (1 << bits) - 1:
            low = x
        made = Scalar(to, x.value, x.mask, x.umin, x.umax, x.umin, x.umax, low)
        if to == bits << 1:
            made._view = x
        return made

    def sext(self, bits: int, x: Scalar, to: int) -> Scalar:
        if not x.mask:
            return const(to, x.value - (1 << bits) if x.value >> (bits - 1) else x.value)
        top = 1 << to
        value, mask, sign = x.value, x.mask, 1 << (bits - 1)
        above = top - (1 << bits)
        if mask & sign:
            mask |= above
        elif value & sign:
            value |= above
        return _made(to, value, mask, 0, top - 1, x.smin, x.smax)

    def eq(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        if not x.mask and not y.mask:
            return TRUE if x.value == y.value else FALSE
        if (
            x.umax < y.umin
            or y.umax < x.umin
            or x.smax < y.smin
            or y.smax < x.smin
            or (x.value ^ y.value) & ~x.mask & ~y.mask
        ):
            return FALSE
        if x.low is not None or y.low is not None:
            return FALSE if self.eq(bits >> 1, x.half(), y.half()) is FALSE else MAYBE
        return MAYBE

    def ult(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        if x.umax < y.umin:
            return TRUE
        return FALSE if x.umin >= y.umax else MAYBE

    def slt(self, bits: int, x: Scalar, y: Scalar) -> Scalar:
        if x.smax < y.smin:
            return TRUE
        return FALSE if x.smin >= y.smax else MAYBE

    def not_(self, x: Scalar) -> Scalar:
        return FALSE if x is TRUE else TRUE if x is FALSE else MAYBE

    def select(self, bits: int, condition: Scalar, x: Scalar, y: Scalar) -> Scalar:
        return x if condition is TRUE else y if condition is FALSE else join(x, y)


SCALARS: Final = ScalarAlgebra()


def _made(
    bits: int,
    value: int,
    mask: int,
    umin: int,
    umax: int,
    smin: int,
    smax: int,
    low: Scalar | None = None,
) -> Scalar:
    # None only when an operand's facts, each met for itself, left no number: then nothing gets here.
    return make(bits, value, mask, umin, umax, smin, smax, low) or unknown(bits)


def _unsigned(bits: int, umin: int, umax: int) -> Scalar:
    top = 1 << bits
    return _made(bits, 0, top - 1, umin, umax, -(top >> 1), (top >> 1) - 1)


def _signed(bits: int, smin: int, smax: int) -> Scalar:
    top = 1 << bits
    return _made(bits, 0, top - 1, 0, top - 1, max(smin, -(top >> 1)), min(smax, (top >> 1) - 1))


def _quotient(x: int, y: int) -> int:
    quotient = abs(x) // abs(y)
    return quotient if (x < 0) == (y < 0) else -quotient
