"""By how much a value differs from another, exactly."""

from __future__ import annotations

from ir.algebra import signed
from ir.core import Alu, Const, Value
from ir.verify.state import State
from ir.verify.values import Pointer


def step_of(state: State, arg: Value, param: Value) -> int | None:
    """By how much `arg` is surely more than `param`, without wrapping."""
    fact = state.of(arg)
    if type(fact) is Pointer:
        known = state.of(param)
        if fact.symbol is not param or fact.is_nullable or type(known) is not Pointer:
            return None
        return fact.offset if known.span.umax + fact.offset < 1 << 63 and fact.span.smin >= 0 else None
    symbol, offset = state.symbol(arg, folds=False)
    if symbol is param:
        return offset
    if type(arg) is Alu and arg.row.name == "add64 reg" and param in (arg.x, arg.y):
        amount = state.number(arg.y if arg.x is param else arg.x)
        if state.number(param).umax + amount.umax < 1 << 64:
            return amount.umin
    return None


def halves(state: State, arg: Value, param: Value) -> bool:
    """Whether `arg` is `param` with a bit less, or its half or less, and neither is 0: so at most 64 times."""
    if type(arg) is not Alu or state.number(arg).umin == 0:
        return False
    name, y = arg.row.name, state.number(arg.y)
    if arg.x is param and name.startswith(("rsh", "div")):
        return y.umin >= (1 if name.startswith("rsh") else 2) and y.umax < arg.row.bits
    if not name.startswith("and"):
        return False
    other = arg.y if arg.x is param else arg.x
    return param in (arg.x, arg.y) and type(other) is Alu and _is_one_less(other, param)


def _is_one_less(alu: Alu, param: Value) -> bool:
    if alu.x is not param or type(alu.y) is not Const:
        return False
    amount = signed(alu.row.bits, alu.y.value)
    return (alu.row.name.startswith("add") and amount == -1) or (
        alu.row.name.startswith("sub") and amount == 1
    )
