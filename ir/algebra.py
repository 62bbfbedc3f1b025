"""The arithmetic that the meaning of an operation is written in, and its simplest model: wrapping integers.

A row of `ir/isa.py` says what an operation does once, as a function over an `Algebra`. The interpreter and the constant
folder run it over `Integers`, the verifier over its scalar domain, lowering over an LLVM builder.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, final

V = TypeVar("V")


class Algebra(Protocol[V]):
    """Operations on bit vectors. `bits` is the width of the operands; a comparison's result has one bit.

    The caller keeps to the totals: a divisor is never 0, `sdiv`/`srem` never divide by -1, a shift count is < `bits`.
    The rows establish that *before* the operation, so that an algebra may map each one to a machine instruction.
    """

    @property
    def big_endian(self) -> bool: ...

    def const(self, bits: int, value: int) -> V: ...
    def add(self, bits: int, x: V, y: V) -> V: ...
    def sub(self, bits: int, x: V, y: V) -> V: ...
    def mul(self, bits: int, x: V, y: V) -> V: ...
    def udiv(self, bits: int, x: V, y: V) -> V: ...
    def urem(self, bits: int, x: V, y: V) -> V: ...
    def sdiv(self, bits: int, x: V, y: V) -> V: ...
    def srem(self, bits: int, x: V, y: V) -> V: ...
    def and_(self, bits: int, x: V, y: V) -> V: ...
    def or_(self, bits: int, x: V, y: V) -> V: ...
    def xor(self, bits: int, x: V, y: V) -> V: ...
    def shl(self, bits: int, x: V, y: V) -> V: ...
    def lshr(self, bits: int, x: V, y: V) -> V: ...
    def ashr(self, bits: int, x: V, y: V) -> V: ...
    def bswap(self, bits: int, x: V) -> V: ...
    def trunc(self, bits: int, x: V, to: int) -> V: ...
    def zext(self, bits: int, x: V, to: int) -> V: ...
    def sext(self, bits: int, x: V, to: int) -> V: ...
    def eq(self, bits: int, x: V, y: V) -> V: ...
    def ult(self, bits: int, x: V, y: V) -> V: ...
    def slt(self, bits: int, x: V, y: V) -> V: ...
    def not_(self, x: V) -> V: ...
    def select(self, bits: int, condition: V, x: V, y: V) -> V: ...


def signed(bits: int, value: int) -> int:
    """The two's complement reading of the low `bits` of `value`."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


@final
class Integers:
    """Values are Python ints in [0, 2**bits); comparisons give 0 or 1."""

    __slots__ = ("big_endian",)

    def __init__(self, big_endian: bool = False) -> None:
        self.big_endian = big_endian

    def const(self, bits: int, value: int) -> int:
        return value & ((1 << bits) - 1)

    def add(self, bits: int, x: int, y: int) -> int:
        return (x + y) & ((1 << bits) - 1)

    def sub(self, bits: int, x: int, y: int) -> int:
        return (x - y) & ((1 << bits) - 1)

    def mul(self, bits: int, x: int, y: int) -> int:
        return (x * y) & ((1 << bits) - 1)

    def udiv(self, bits: int, x: int, y: int) -> int:
        return x // y

    def urem(self, bits: int, x: int, y: int) -> int:
        return x % y

    def sdiv(self, bits: int, x: int, y: int) -> int:
        a, b = signed(bits, x), signed(bits, y)
        quotient = abs(a) // abs(b)
        return (quotient if (a < 0) == (b < 0) else -quotient) & ((1 << bits) - 1)

    def srem(self, bits: int, x: int, y: int) -> int:
        a, b = signed(bits, x), signed(bits, y)
        remainder = abs(a) % abs(b)
        return (-remainder if a < 0 else remainder) & ((1 << bits) - 1)

    def and_(self, bits: int, x: int, y: int) -> int:
        return x & y

    def or_(self, bits: int, x: int, y: int) -> int:
        return x | y

    def xor(self, bits: int, x: int, y: int) -> int:
        return x ^ y

    def shl(self, bits: int, x: int, y: int) -> int:
        return (x << y) & ((1 << bits) - 1)

    def lshr(self, bits: int, x: int, y: int) -> int:
        return x >> y

    def ashr(self, bits: int, x: int, y: int) -> int:
        return (signed(bits, x) >> y) & ((1 << bits) - 1)

    def bswap(self, bits: int, x: int) -> int:
        return int.from_bytes(x.to_bytes(bits // 8, "little"), "big")

    def trunc(self, bits: int, x: int, to: int) -> int:
        return x & ((1 << to) - 1)

    def zext(self, bits: int, x: int, to: int) -> int:
        return x

    def sext(self, bits: int, x: int, to: int) -> int:
        return signed(bits, x) & ((1 << to) - 1)

    def eq(self, bits: int, x: int, y: int) -> int:
        return int(x == y)

    def ult(self, bits: int, x: int, y: int) -> int:
        return int(x < y)

    def slt(self, bits: int, x: int, y: int) -> int:
        return int(signed(bits, x) < signed(bits, y))

    def not_(self, x: int) -> int:
        return 1 - x

    def select(self, bits: int, condition: int, x: int, y: int) -> int:
        return x if condition else y
