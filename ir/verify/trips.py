"""Bounds on the trips of a loop, from the ranges of what it counts with."""

from __future__ import annotations

from ir.core import Value
from ir.verify.distance import halves, step_of
from ir.verify.loops import Loop
from ir.verify.ranges import FunctionRanges
from ir.verify.state import State
from ir.verify.values import Pointer


def trip_bound(ranges: FunctionRanges, loop: Loop) -> int | None:
    """The trips of a natural loop, by a parameter of its head that every back-edge moves the same way."""
    start = ranges.states[loop.head]
    arrivals: list[tuple[State, list[Value]]] = []
    for latch in loop.latches:
        if latch not in ranges.states:
            continue
        for state, edge in zip(ranges.out_states(latch), latch.edges(), strict=True):
            if edge.block is loop.head and state is not None:
                arrivals.append((state, edge.args))
    if not arrivals:
        return 0
    counted = ranges.arrivals.get(loop.head)
    bounds: list[int] = [] if counted is None else [counted - 1]
    for position, param in enumerate(loop.head.params):
        fact = start.of(param)
        span = fact.span if type(fact) is Pointer else fact
        if type(fact) is Pointer and (fact.is_nullable or span.smin < 0):
            continue
        steps = [step_of(state, args[position], param) for state, args in arrivals]
        if all(halves(state, args[position], param) for state, args in arrivals):
            bounds.append(64)
        if None in steps:
            continue
        sure = [step for step in steps if step is not None]
        pace = min(sure) if min(sure) > 0 else -max(sure)
        if pace > 0:
            bounds.append((span.umax - span.umin) // pace)
    return min(bounds, default=None)
