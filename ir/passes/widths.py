"""How many bits of a value matter, as its own instruction shows, and how to keep only some of them."""

from __future__ import annotations

from typing import Final, final

from ir.context import ContextLayout
from ir.core import Address, Alu, Atomic, Call, Const, Frame, Inst, Load, PacketLoad, Value
from ir.isa import ROW_BY_NAME, Callee, Row
from ir.regions import constant_step

U64: Final = (1 << 64) - 1

_ZERO_EXTEND: Final = ROW_BY_NAME["mov32 reg"]
_SIGN_EXTEND: Final = {width: ROW_BY_NAME[f"movsx{width}to64"] for width in (8, 16, 32)}
_AND: Final = ROW_BY_NAME["and64 imm"]
_OR: Final = ROW_BY_NAME["or64 reg"]
_LEFT: Final = ROW_BY_NAME["lsh64 imm"]
_RIGHT: Final = ROW_BY_NAME["rsh64 imm"]


@final
class Widths:
    """The widths of values in a program with this context."""

    def __init__(self, context: ContextLayout) -> None:
        self._pointers = frozenset(context.pointers)  # offsets at which 32-bit loads give 64-bit pointers

    def of(self, value: Value) -> int:
        """How many low bits of `value` may be set."""
        if type(value) is Const:
            return value.value.bit_length()
        if type(value) is Alu:
            if value.row.meaning is _AND.meaning and type(value.y) is Const:
                return min(value.row.bits, value.y.value.bit_length())
            is_swap = isinstance(value.row.imm, int) and value.row.imm
            return value.row.imm if is_swap else value.row.bits  # type: ignore[return-value]  # just asked
        if type(value) is Load:
            return 64 if value.row.signed or self._may_be_pointer(value) else 8 * value.row.size
        if isinstance(value, Atomic | PacketLoad):
            return 8 * value.row.size
        return 64

    def extend(self, value: Value, bits: int, is_signed: bool, at: int) -> tuple[Value, list[Inst]]:
        """The low `bits` of `value`, zero- or sign-extended: that value, and the new instructions it needs."""
        if bits == 64 or (not is_signed and self.of(value) <= bits):
            return value, []
        if type(value) is Const:
            low = value.value & ((1 << bits) - 1)
            is_negative = is_signed and low >> (bits - 1)
            const = Const(low | U64 << bits & U64 if is_negative else low, at)
            return const, [const]
        if not is_signed and bits != 32:
            mask = Const((1 << bits) - 1, at)
            masked = Alu(_AND, value, mask, at)
            return masked, [mask, masked]
        inst = Alu(_SIGN_EXTEND[bits] if is_signed else _ZERO_EXTEND, value, value, at)
        return inst, [inst]

    def _may_be_pointer(self, load: Load) -> bool:
        """Whether this may be the load of a packet pointer from the context."""
        if load.row.size != 4 or not self._pointers:
            return False
        base, offset = load.base, load.offset
        while type(base) is Alu:
            step = constant_step(base)
            if step is None:
                return True
            base, amount = step
            offset += amount
        is_packet = type(base) is Load and base.row.size == 4
        is_result = type(base) is Call and base.callee is Callee.HELPER
        return offset in self._pointers and not (is_packet or is_result or isinstance(base, Frame | Address))


@final
class Bits:
    """Shifting and joining values: collects the new instructions this takes in `made`, all of slot `at`."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.made: list[Inst] = []

    def shift_right(self, value: Value, count: int) -> Value:
        """`value` without its `count` low bits."""
        return self._alu(_RIGHT, value, self._const(count)) if count else value

    def shift_left(self, value: Value, count: int) -> Value:
        """`value` above `count` zero bits."""
        return self._alu(_LEFT, value, self._const(count)) if count else value

    def replace(self, old: Value, new: Value, mask: int) -> Value:
        """`old` with its bits in `mask` taken from `new`."""
        kept = self._alu(_AND, old, self._const(mask ^ U64))
        return self._alu(_OR, kept, self._alu(_AND, new, self._const(mask)))

    def _alu(self, row: Row, x: Value, y: Value) -> Alu:
        alu = Alu(row, x, y, self.at)
        self.made.append(alu)
        return alu

    def _const(self, value: int) -> Const:
        const = Const(value, self.at)
        self.made.append(const)
        return const
