"""What operations mean, each a function over an `Algebra` from operands x and y of `bits` bits.

Division and shifts are made total here, before the operation (RFC 9669 sections 4.1 and 4.3): x / 0 = 0, x
% 0 = x, the smallest integer / -1 wraps, and a shift count is taken modulo the width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ir.algebra import Algebra

Meaning = Callable[[Algebra[Any], int, Any, Any], Any]


def add(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.add(bits, x, y)


def sub(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.sub(bits, x, y)


def mul(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.mul(bits, x, y)


def or_(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.or_(bits, x, y)


def and_(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.and_(bits, x, y)


def xor(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.xor(bits, x, y)


def mov(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return y


def neg(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.sub(bits, a.const(bits, 0), x)


def _shift_count(a: Algebra[Any], bits: int, y: Any) -> Any:
    return a.and_(bits, y, a.const(bits, bits - 1))


def lsh(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.shl(bits, x, _shift_count(a, bits, y))


def rsh(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.lshr(bits, x, _shift_count(a, bits, y))


def arsh(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.ashr(bits, x, _shift_count(a, bits, y))


def div(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    zero = a.const(bits, 0)
    by_zero = a.eq(bits, y, zero)
    return a.select(bits, by_zero, zero, a.udiv(bits, x, a.select(bits, by_zero, a.const(bits, 1), y)))


def mod(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    by_zero = a.eq(bits, y, a.const(bits, 0))
    return a.select(bits, by_zero, x, a.urem(bits, x, a.select(bits, by_zero, a.const(bits, 1), y)))


def sdiv(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    zero, one = a.const(bits, 0), a.const(bits, 1)
    by_zero = a.eq(bits, y, zero)
    by_minus_one = a.eq(bits, y, a.const(bits, -1))
    quotient = a.sdiv(bits, x, a.select(bits, by_zero, one, a.select(bits, by_minus_one, one, y)))
    return a.select(bits, by_zero, zero, a.select(bits, by_minus_one, a.sub(bits, zero, x), quotient))


def smod(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    zero, one = a.const(bits, 0), a.const(bits, 1)
    by_zero = a.eq(bits, y, zero)
    by_minus_one = a.eq(bits, y, a.const(bits, -1))
    remainder = a.srem(bits, x, a.select(bits, by_zero, one, a.select(bits, by_minus_one, one, y)))
    return a.select(bits, by_zero, x, remainder)


def sign_extend(width: int) -> Meaning:
    def meaning(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
        return a.sext(width, a.trunc(bits, y, width), bits)

    return meaning


def swap(width: int, big: bool | None) -> Meaning:
    """Reverse the bytes of the low `width` bits, clear the rest; with `big`, only to reach that order."""

    def meaning(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
        low = x if width == bits else a.trunc(bits, x, width)
        swapped = low if big is not None and big == a.big_endian else a.bswap(width, low)
        return swapped if width == bits else a.zext(width, swapped, bits)

    return meaning


def _negated(meaning: Meaning) -> Meaning:
    return lambda a, bits, x, y: a.not_(meaning(a, bits, x, y))


def _flipped(meaning: Meaning) -> Meaning:
    return lambda a, bits, x, y: meaning(a, bits, y, x)


def eq(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.eq(bits, x, y)


def ult(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.ult(bits, x, y)


def slt(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.slt(bits, x, y)


def has_common_bits(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.not_(a.eq(bits, a.and_(bits, x, y), a.const(bits, 0)))


ne, ugt, sgt = _negated(eq), _flipped(ult), _flipped(slt)
uge, sge, ule, sle = _negated(ult), _negated(slt), _negated(ugt), _negated(sgt)
