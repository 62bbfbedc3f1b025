"""`fold-constants`: operations on constants become their result, those that change nothing their operand.

    v1 = const 6                     v1 = const 6
    v2 = const 7                     v2 = const 7
    v3 = mul64 v1, v2          ->    v3 = const 42
    v4 = add64 v0, 0
    v5 = load u8 [v4 + 2]            v5 = load u8 [v0 + 2]
    v6 = mov32 v5
    store u8 [v0 + 3] = v6           store u8 [v0 + 3] = v5

Needs: no unreachable blocks. Keeps: blocks, edges, effects. Leaves what became unused to remove-dead-code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

from ir.algebra import Integers
from ir.core import (
    Address,
    Alu,
    Atomic,
    Call,
    Const,
    Frame,
    Function,
    Inst,
    Load,
    Module,
    PacketLoad,
    Value,
    substitute,
)
from ir.explain import Notes
from ir.isa import ROW_BY_NAME, Row, compute
from ir.passes.laws import OPERAND, laws_of
from ir.regions import constant_step

U64: Final = (1 << 64) - 1

_ZERO_EXTEND: Final = ROW_BY_NAME["mov32 reg"]
_SIGN_EXTEND: Final = {width: ROW_BY_NAME[f"movsx{width}to64"] for width in (8, 16, 32)}
_AND: Final = ROW_BY_NAME["and64 imm"]
_LEFT: Final = ROW_BY_NAME["lsh64 imm"].meaning
_RIGHT: Final = ROW_BY_NAME["rsh64 imm"].meaning
_SIGNED_RIGHT: Final = ROW_BY_NAME["arsh64 imm"].meaning


@final
@dataclass(frozen=True, slots=True)
class FoldConstants:
    """Fold constant operations and algebraic identities, in one sweep over each function."""

    name: ClassVar[str] = "fold-constants"
    summary: ClassVar[str] = "compute constant operations and drop those that change nothing"

    def run(self, module: Module, notes: Notes) -> bool:
        """Fold in every function."""
        wide = frozenset(module.context.pointers)
        return sum(fold_constants(function, wide) for function in module.functions.values()) > 0


def fold_constants(function: Function, wide: frozenset[int] = frozenset()) -> bool:
    """Fold in one function; whether anything changed. `wide`: offsets of packet pointers in the context."""
    algebra = Integers(function.program.big_endian)
    replaced: dict[Value, Value] = {}
    for block in function.reverse_postorder():  # definitions come before their uses, so that one sweep does
        kept: list[Inst] = []
        for inst in block.insts:
            if replaced:
                substitute(inst, replaced)
            better = _fold(inst, algebra, wide) if type(inst) is Alu else None
            if better is None:
                kept.append(inst)
            else:
                replaced[inst] = better[0]
                kept += better[1]
        if replaced:
            block.insts = kept
            substitute(block.terminator, replaced)
    return bool(replaced)


def width_of(value: Value, wide: frozenset[int]) -> int:
    """How many low bits of a value may be set, as its own instruction shows.

    A 32-bit load of a packet pointer from the context (whose offsets are `wide`) gives 64 bits.
    """
    match value:
        case Const(number):
            return number.bit_length()
        case Load(row, base, offset):
            is_wide = row.signed or (row.size == 4 and wide and _may_be(base, offset, wide))
            return 64 if is_wide else 8 * row.size
        case Atomic(row) | PacketLoad(row):
            return 8 * row.size
        case Alu(row, _, y):
            if row.meaning is _AND.meaning and isinstance(y, Const):
                return min(row.bits, y.value.bit_length())
            if isinstance(row.imm, int) and row.imm:  # a byte swap
                return row.imm
            return row.bits
        case _:
            return 64


def extended(
    value: Value, bits: int, is_signed: bool, at: int, wide: frozenset[int]
) -> tuple[Value, list[Inst]]:
    """The low `bits` of `value`, zero- or sign-extended: the value, and the new instructions it needs."""
    if bits == 64 or (not is_signed and width_of(value, wide) <= bits):
        return value, []
    if isinstance(value, Const):
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


def _may_be(base: Value, offset: int, wide: frozenset[int]) -> bool:
    """Whether `offset` bytes from `base` may be one of the `wide` offsets of the context."""
    while isinstance(base, Alu):
        step = constant_step(base)
        if step is None:
            return True
        base, amount = step
        offset += amount
    from_packet = isinstance(base, Load) and base.row.size == 4
    return offset in wide and not from_packet and not isinstance(base, Frame | Address | Call)


def _fold(alu: Alu, algebra: Integers, wide: frozenset[int]) -> tuple[Value, list[Inst]] | None:
    """What stands for `alu`, and the new instructions that takes; None when nothing better is known."""
    row, x, y = alu.row, alu.x, alu.y
    if type(y) is Const:
        if type(x) is Const:
            const = Const(compute(row, algebra, x.value, y.value), alu.at)
            return const, [const]
        if row.meaning is _RIGHT or row.meaning is _SIGNED_RIGHT:
            shifted = _fold_shifts(alu, x, y.value, wide)
            if shifted is not None:
                return shifted
        law = laws_of(row, algebra.big_endian).right.get(y.value & (1 << row.bits) - 1)
        return None if law is None else _apply(law, row, x, alu.at, wide)
    if type(x) is Const:
        law = laws_of(row, algebra.big_endian).left.get(x.value & (1 << row.bits) - 1)
        return None if law is None else _apply(law, row, y, alu.at, wide)
    if x is y:
        law = laws_of(row, algebra.big_endian).same
        return None if law is None else _apply(law, row, x, alu.at, wide)
    return None


def _apply(law: int, row: Row, x: Value, at: int, wide: frozenset[int]) -> tuple[Value, list[Inst]] | None:
    if law != OPERAND:
        const = Const(law, at)
        return const, [const]
    if row.meaning is _ZERO_EXTEND.meaning and width_of(x, wide) > row.bits:
        return None
    return extended(x, row.bits, False, at, wide)


def _fold_shifts(alu: Alu, x: Value, count: int, wide: frozenset[int]) -> tuple[Value, list[Inst]] | None:
    """A shift to the left and back by the same count: how clang extends narrow integers before cpu v3."""
    if alu.row.bits != 64 or not isinstance(x, Alu) or x.row.bits != 64 or x.row.meaning is not _LEFT:
        return None
    bits = 64 - (count & 63)
    if bits not in _SIGN_EXTEND or not isinstance(x.y, Const) or x.y.value & 63 != count & 63:
        return None
    return extended(x.x, bits, alu.row.meaning is _SIGNED_RIGHT, alu.at, wide)
