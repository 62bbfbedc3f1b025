"""References that a program acquires and has to give up."""

from __future__ import annotations

from collections.abc import Hashable

from ir.core import Call
from ir.verify.refusal import Refused
from ir.verify.state import State
from ir.verify.subject import Subject
from ir.verify.values import ANY, Area, AreaKind, Known

_MOST: int = 64


def acquire(
    subject: Subject,
    state: State,
    call: Call,
    kind: AreaKind,
    size: int = 0,
    name: str = "",
    sort: Hashable = None,
) -> Area:
    """A new object that has to be released; one for each acquired at `call` and not released yet.

    `sort`: what else tells apart the objects that the call gives.
    """
    for number in range(_MOST):
        area = subject.area(("held", call, sort, number), kind, name, size, writable=kind is AreaKind.MEMORY)
        if area not in state.held.references:
            area.is_held, area.origin = True, call.at
            state.held = state.held.with_reference(area)
            return area
    raise Refused("reference-leak", "more and more references are acquired here and not released", call)


def release(state: State, area: Area, gone: Known = ANY) -> None:
    """Give up the reference to `area`: pointers to it, and to what it owns, are `gone`."""
    state.held = state.held.without_reference(area)
    state.forget_area(area, gone)
