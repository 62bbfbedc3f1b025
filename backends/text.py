"""LLVM IR as text, one line an operation: the algebra that lowering runs the rows over.

Text and not llvmlite.ir objects: a 16 000-insn program takes a tenth of the time to write down, and LLVM parses
it at once. Values are operand texts ("%v12", "7"); their types are known where they are used.

32-bit operations on 64-bit values would double what LLVM has to read, so what undoes itself is not written:

    v1 = zext i32 v0 to i64;  trunc i64 v1 to i32   ->  v0
    trunc i64 v1 to i32, again in the same block    ->  the one that is there; ptrtoint, too
    v2 = and i64 v1, 63;  and i64 v2, 63            ->  v2
    v4 = icmp eq i64 v3, 0;  select i1 v4, x, y     ->  y, where v3 is known not to be 0
    v4 = icmp eq i64 v3, 0;  xor i1 v4, true        ->  icmp ne i64 v3, 0
"""

from __future__ import annotations

from typing import Final, final

from ir.algebra import signed

_INVERSE: Final = {"eq": "ne", "ult": "uge", "slt": "sge"}


@final
class Text:
    """The lines of the block being written. Names are unique in the function."""

    def __init__(self, big_endian: bool) -> None:
        self.big_endian = big_endian
        self.lines: list[str] = []
        self._count = 0
        self._extended: dict[str, tuple[int, str, bool]] = {}  # wide operand: (bits, narrow operand, signed)
        self._ones: dict[str, int] = {}  # operand: the bits that may be 1
        self._truncated: dict[
            tuple[str, int], str
        ] = {}  # of this LLVM block, and those that lead to it alone
        self._numbers: dict[str, str] = {}  # pointer: the address as an integer; as above
        self._nonzero: set[str] = set()

    def start_block(self) -> None:
        """What follows is another LLVM block: only what dominates it may be used there."""
        self._truncated.clear()
        self._numbers.clear()

    def note_nonzero(self, operand: str) -> None:
        """`operand` is never 0, wherever it is used."""
        self._nonzero.add(operand)

    def name(self, stem: str = "v") -> str:
        """A name not used yet, without its sigil."""
        self._count += 1
        return f"{stem}{self._count}"

    def emit(self, operation: str) -> str:
        """Append `%new = operation`; the new operand."""
        self._count += 1
        operand = f"%v{self._count}"
        self.lines.append(f"  {operand} = {operation}")
        return operand

    def do(self, operation: str) -> None:
        """Append an operation without a result."""
        self.lines.append("  " + operation)

    def step(self, pointer: str, offset: int) -> str:
        """The address `offset` bytes after `pointer`."""
        return self.emit(f"getelementptr i8, ptr {pointer}, i64 {offset}") if offset else pointer

    def to_int(self, pointer: str) -> str:
        """An address as an i64."""
        number = self._numbers.get(pointer)
        if number is None:
            number = self._numbers[pointer] = self.emit(f"ptrtoint ptr {pointer} to i64")
        return number

    def const(self, bits: int, value: int) -> str:
        return str(signed(bits, value))

    def add(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"add i{bits} {x}, {y}")

    def sub(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"sub i{bits} {x}, {y}")

    def mul(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"mul i{bits} {x}, {y}")

    def udiv(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"udiv i{bits} {x}, {y}")

    def urem(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"urem i{bits} {x}, {y}")

    def sdiv(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"sdiv i{bits} {x}, {y}")

    def srem(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"srem i{bits} {x}, {y}")

    def and_(self, bits: int, x: str, y: str) -> str:
        if _is_literal(y):
            mask = int(y) & (1 << bits) - 1
            if _is_literal(x):
                return str(signed(bits, int(x) & mask))
            ones = self._ones.get(x)
            if ones is not None and ones & ~mask == 0:
                return x
            result = self.emit(f"and i{bits} {x}, {y}")
            self._ones[result] = mask if ones is None else mask & ones
            return result
        return self.emit(f"and i{bits} {x}, {y}")

    def or_(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"or i{bits} {x}, {y}")

    def xor(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"xor i{bits} {x}, {y}")

    def shl(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"shl i{bits} {x}, {y}")

    def lshr(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"lshr i{bits} {x}, {y}")

    def ashr(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"ashr i{bits} {x}, {y}")

    def bswap(self, bits: int, x: str) -> str:
        return self.emit(f"call i{bits} @llvm.bswap.i{bits}(i{bits} {x})")

    def trunc(self, bits: int, x: str, to: int) -> str:
        if _is_literal(x):
            return str(signed(to, int(x)))
        known = self._truncated.get((x, to))
        if known is not None:
            return known
        narrow = self._extended.get(x)
        result = self._resize(*narrow, to) if narrow else self.emit(f"trunc i{bits} {x} to i{to}")
        self._truncated[x, to] = result
        return result

    def zext(self, bits: int, x: str, to: int) -> str:
        if _is_literal(x):
            return str(int(x) & (1 << bits) - 1)
        result = self.emit(f"zext i{bits} {x} to i{to}")
        self._extended[result] = bits, x, False
        self._ones[result] = self._ones.get(x, (1 << bits) - 1)
        return result

    def sext(self, bits: int, x: str, to: int) -> str:
        if _is_literal(x):
            return str(signed(bits, int(x)))
        result = self.emit(f"sext i{bits} {x} to i{to}")
        self._extended[result] = bits, x, True
        return result

    def _resize(self, bits: int, x: str, is_signed: bool, to: int) -> str:
        if bits == to:
            return x
        if bits > to:
            return self.trunc(bits, x, to)
        return self.sext(bits, x, to) if is_signed else self.zext(bits, x, to)

    def eq(self, bits: int, x: str, y: str) -> str:
        if _is_literal(y):
            if _is_literal(x):
                return "true" if (int(x) ^ int(y)) & (1 << bits) - 1 == 0 else "false"
            if y == "0" and x in self._nonzero:
                return "false"
        return self.emit(f"icmp eq i{bits} {x}, {y}")

    def ult(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"icmp ult i{bits} {x}, {y}")

    def slt(self, bits: int, x: str, y: str) -> str:
        return self.emit(f"icmp slt i{bits} {x}, {y}")

    def not_(self, x: str) -> str:
        """Turns round the comparison that gave `x`, if nothing was written since: nothing else has seen it."""
        if x in ("true", "false"):
            return "false" if x == "true" else "true"
        start = f"  {x} = icmp "
        if self.lines and self.lines[-1].startswith(start):
            predicate, operands = self.lines[-1].removeprefix(start).split(" ", 1)
            self.lines[-1] = f"{start}{_INVERSE[predicate]} {operands}"
            return x
        return self.emit(f"xor i1 {x}, true")

    def select(self, bits: int, condition: str, x: str, y: str) -> str:
        if condition in ("true", "false"):
            return x if condition == "true" else y
        return self.emit(f"select i1 {condition}, i{bits} {x}, i{bits} {y}")


def _is_literal(operand: str) -> bool:
    return operand[0] in "-0123456789"
