"""What an ALU instruction makes of numbers and of pointers."""

from __future__ import annotations

from ir.core import Alu, Value
from ir.isa import compute
from ir.verify.scalar import Scalar, between, meet
from ir.verify.state import State
from ir.verify.transfer import ScalarAlgebra
from ir.verify.values import ANY, Known, Pointer, as_number

# Offsets that are added as symbols are below this, so that sums of a few do not wrap.
_NEAR = 1 << 62
_U32 = 1 << 32
_ADDITIONS_64 = ("add64 imm", "add64 reg")
_SUBTRACTIONS_64 = ("sub64 imm", "sub64 reg")
_SUBTRACTIONS = frozenset((*_SUBTRACTIONS_64, "sub32 imm", "sub32 reg"))


def compute_alu(state: State, inst: Alu, x: Known, y: Known, algebra: ScalarAlgebra) -> Known:
    """The result of `inst` of operands of which `x` and `y` are known.

    What Linux forbids to do with a pointer gives a number of which nothing is known.
    """
    if type(x) is Scalar and type(y) is Scalar:
        number = algebra.compute(inst.row, x, y)
        if state.rooms and number.mask and inst.row.name in _SUBTRACTIONS:
            return _difference(state, inst, x, y, number)
        return number
    name = inst.row.name
    if name in _ADDITIONS_64:
        if type(x) is Pointer and type(y) is Scalar:
            return _move(state, inst, x, inst.y, y, algebra, 1)
        if type(y) is Pointer and type(x) is Scalar:
            return _move(state, inst, y, inst.x, x, algebra, 1)
    elif name in _SUBTRACTIONS_64 and type(x) is Pointer:
        if type(y) is Scalar:
            return _move(state, inst, x, inst.y, y, algebra, -1)
        if x.area is y.area and x.area.is_single and not x.is_nullable and not y.is_nullable:
            return _distance(state, inst, x, y, algebra)
    return compute(inst.row, algebra, as_number(x), as_number(y))  # type: ignore[no-any-return]  # as above


def _difference(state: State, inst: Alu, x: Scalar, y: Scalar, number: Scalar) -> Scalar:
    """x - y, which is not negative if y <= x is known."""
    if inst.row.bits == 32 and (x.umax >= _U32 or y.umax >= _U32):
        return number
    left, right = state.symbol(inst.x), state.symbol(inst.y)
    if left[0] is None or right[0] is None:
        return number
    room = state.rooms.get((right[0], left[0]))
    least = room + left[1] - right[1] if room is not None else -1
    if least < 0:
        return number
    return meet(number, between(64, least, x.umax - y.umin)) or number


def _move(
    state: State, inst: Alu, pointer: Pointer, value: Value, amount: Scalar, algebra: ScalarAlgebra, sign: int
) -> Known:
    """`pointer` moved by `amount`, which is what is known of `value`."""
    if pointer.is_nullable:
        return ANY
    moved = algebra.add if sign > 0 else algebra.sub
    span = moved(64, pointer.span, amount)
    if not amount.mask:
        return Pointer(pointer.area, pointer.symbol, pointer.offset + sign * amount.smin, span)
    if pointer.symbol is None and sign > 0 and amount.umax < _NEAR:
        symbol, constant = state.symbol(value)
        return Pointer(pointer.area, symbol, pointer.offset + constant, span)
    return Pointer(pointer.area, inst, 0, span)


def _distance(state: State, inst: Alu, x: Pointer, y: Pointer, algebra: ScalarAlgebra) -> Scalar:
    """The difference of two pointers into one area."""
    if y.symbol is None and x.symbol is not None and x.span.smin >= y.offset >= 0:
        state.alias[inst] = (x.symbol, x.offset - y.offset)
    return algebra.sub(64, x.span, y.span)
