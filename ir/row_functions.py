"""Rows as Python functions of two integers: the meaning of an operation, written as one expression and compiled once.

    add32 reg      lambda x, y: ((x & 4294967295) + (y & 4294967295) & 4294967295)

They give what `compute` gives over `Integers`, in a tenth of the time, to whoever executes the same rows over and over.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final, cast, final

from ir.algebra import Algebra, Integers
from ir.isa import ROW_BY_NAME, compute

RowFunction = Callable[[int, int], int]
_INTEGERS: Final = Integers()


@final
class RowFunctions(dict[str, RowFunction]):
    """The functions by the names of rows, each made when it is first asked for; a branch row's gives its condition."""

    def __init__(self, big_endian: bool) -> None:
        super().__init__()
        self._text = cast(Algebra[Any], _Text(big_endian))

    def __missing__(self, name: str) -> RowFunction:
        expression = compute(ROW_BY_NAME[name], self._text, "x", "y")
        function: RowFunction = eval(f"lambda x, y: {expression}", {"integers": _INTEGERS})
        self[name] = function
        return function


@cache
def row_functions(big_endian: bool) -> RowFunctions:
    """Those of programs of one byte order."""
    return RowFunctions(big_endian)


@final
class _Text:
    """An Algebra whose values are Python expressions in x and y; each operand is an atom or in parentheses."""

    def __init__(self, big_endian: bool) -> None:
        self.big_endian = big_endian

    def const(self, bits: int, value: int) -> str:
        return str(value & _ones(bits))

    def add(self, bits: int, x: str, y: str) -> str:
        return f"({x} + {y} & {_ones(bits)})"

    def sub(self, bits: int, x: str, y: str) -> str:
        return f"({x} - {y} & {_ones(bits)})"

    def mul(self, bits: int, x: str, y: str) -> str:
        return f"({x} * {y} & {_ones(bits)})"

    def udiv(self, bits: int, x: str, y: str) -> str:
        return f"({x} // {y})"

    def urem(self, bits: int, x: str, y: str) -> str:
        return f"({x} % {y})"

    def sdiv(self, bits: int, x: str, y: str) -> str:
        return f"integers.sdiv({bits}, {x}, {y})"

    def srem(self, bits: int, x: str, y: str) -> str:
        return f"integers.srem({bits}, {x}, {y})"

    def and_(self, bits: int, x: str, y: str) -> str:
        return f"({x} & {y})"

    def or_(self, bits: int, x: str, y: str) -> str:
        return f"({x} | {y})"

    def xor(self, bits: int, x: str, y: str) -> str:
        return f"({x} ^ {y})"

    def shl(self, bits: int, x: str, y: str) -> str:
        return f"({x} << {y} & {_ones(bits)})"

    def lshr(self, bits: int, x: str, y: str) -> str:
        return f"({x} >> {y})"

    def ashr(self, bits: int, x: str, y: str) -> str:
        return f"({_signed(bits, x)} >> {y} & {_ones(bits)})"

    def bswap(self, bits: int, x: str) -> str:
        return f"integers.bswap({bits}, {x})"

    def trunc(self, bits: int, x: str, to: int) -> str:
        return f"({x} & {_ones(to)})"

    def zext(self, bits: int, x: str, to: int) -> str:
        return x

    def sext(self, bits: int, x: str, to: int) -> str:
        return f"({_signed(bits, x)} & {_ones(to)})"

    def eq(self, bits: int, x: str, y: str) -> str:
        return f"({x} == {y})"

    def ult(self, bits: int, x: str, y: str) -> str:
        return f"({x} < {y})"

    def slt(self, bits: int, x: str, y: str) -> str:
        return f"({_signed(bits, x)} < {_signed(bits, y)})"

    def not_(self, x: str) -> str:
        return f"(not {x})"

    def select(self, bits: int, condition: str, x: str, y: str) -> str:
        return f"({x} if {condition} else {y})"


def _ones(bits: int) -> int:
    return (1 << bits) - 1


def _signed(bits: int, x: str) -> str:
    """The two's complement reading of x, which has `bits` bits: moving the sign bit's weight from 2**n to -2**n."""
    sign = 1 << (bits - 1)
    return f"(({x} ^ {sign}) - {sign})"
