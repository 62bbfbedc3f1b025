"""Dynptrs: made on the stack by helpers and kernel functions, given to others, cloned, released.

    reserve_dynptr            R, a reference that somebody has to give up
      dynptr on the stack     D, owned by R         clones: D', D'', owned by R too
        slice, data           memory, owned by D

Each has an area; when one of them ends, so does what it owns. D's name says what it is a view of: 'local' memory, a
'ring buffer' record, the packet of an 'skb' or 'xdp' frame.
"""

from __future__ import annotations

from typing import Final

from ir.core import Call, Value
from ir.verify.refusal import Refused
from ir.verify.stack_objects import DYNPTR_SIZE, find_object, start_object
from ir.verify.state import State
from ir.verify.steps import Steps
from ir.verify.values import Area, AreaKind, Pointer

KIND: Final = "dynptr"
_PACKETS: Final = ("skb", "xdp", "skb metadata")


def start_dynptr(
    steps: Steps, state: State, call: Call, value: Value, name: str, owner: Area | None, writable: bool = True
) -> Area:
    """Make a dynptr where `value` points; `owner` is the reference that it lives by."""
    area = steps.subject.area(("dynptr", call, value, owner), AreaKind.DYNPTR, name)
    area.owner, area.writable = owner, writable
    area.is_packet_view = name in _PACKETS
    start_object(steps, state, value, DYNPTR_SIZE, KIND, area, is_owned=owner is not None)
    return area


def find_dynptr(state: State, value: Value) -> Area:
    """The dynptr that `value` points at, on the stack or given to a callback. Raises Refused when there is none."""
    known = state.of(value)
    if type(known) is Pointer and known.area.kind is AreaKind.DYNPTR and known.span.is_const:
        if known.span.value:
            raise Refused("bad-argument", f"dynptr pointer that was moved by {known.span.value}", value)
        return known.area
    return find_object(state, value, KIND).area


def release_dynptr(state: State, value: Value) -> None:
    """Give up the reference that the dynptr at `value` lives by, and with it all of its clones."""
    area = find_dynptr(state, value)
    owner = area.owner
    if owner is None or owner not in state.held.references:
        raise Refused("bad-release", "the dynptr holds no reference to give up", value)
    held = state.held.without_reference(owner)
    ended = {found for found in held.objects if found.area.owner is owner}
    state.held = held.with_objects(held.objects - ended)
    for found in ended:
        state.forget_area(found.area)
