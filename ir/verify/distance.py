"""By how much a value differs from another, exactly."""

from __future__ import annotations

from ir.core import Alu, Value
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
    symbol, offset = state.symbol(arg)
    if symbol is param:
        return offset
    if type(arg) is Alu and arg.row.name == "add64 reg" and param in (arg.x, arg.y):
        amount = state.number(arg.y if arg.x is param else arg.x)
        if state.number(param).umax + amount.umax < 1 << 64:
            return amount.umin
    return None
