"""Dynptrs, iterators and saved interrupt states: objects that the kernel keeps in a program's stack."""

from __future__ import annotations

from typing import Final

from ir.core import Value
from ir.verify.held import StackObject
from ir.verify.refusal import Refused
from ir.verify.stack import write_frame
from ir.verify.state import State
from ir.verify.steps import Steps
from ir.verify.subject import FRAME_SIZE
from ir.verify.values import Area, AreaKind, Pointer

DYNPTR_SIZE: Final = 16


def start_object(
    steps: Steps, state: State, value: Value, size: int, kind: str, area: Area, is_owned: bool
) -> None:
    """Put a new object where `value`, a stack pointer, points."""
    pointer = _place(state, value, size, kind)
    low = pointer.span.value
    steps.subject.note_stack(pointer.area, low)
    for found in state.held.objects_in(pointer.area, low, low + size):
        if found.is_owned:
            raise Refused("object-overwritten", f"a {found.kind} that is in use is overwritten", value)
    write_frame(state, steps.frame, steps.frames, pointer.area, low, low + size)
    made = StackObject(pointer.area, low, size, kind, area, is_owned)
    state.held = state.held.with_objects(state.held.objects | {made})


def find_object(state: State, value: Value, *kinds: str) -> StackObject:
    """The object of one of these sorts that `value` points at. Raises Refused when there is none."""
    pointer = state.of(value)
    if type(pointer) is Pointer and pointer.area.kind is AreaKind.FRAME and not pointer.span.mask:
        found = state.held.object_at(pointer.area, pointer.span.value)
        if found is not None and found.kind in kinds:
            return found
    raise Refused("bad-argument", f"no {kinds[0]} that was started is there", value)


def end_object(steps: Steps, state: State, found: StackObject) -> None:
    """The object is no more; neither is what it gave access to."""
    state.held = state.held.with_objects(state.held.objects - {found})
    write_frame(state, steps.frame, steps.frames, found.frame, found.offset, found.offset + found.size)
    state.forget_area(found.area)


def _place(state: State, value: Value, size: int, kind: str) -> Pointer:
    pointer = state.of(value)
    if type(pointer) is not Pointer or pointer.area.kind is not AreaKind.FRAME or pointer.span.mask:
        raise Refused("bad-argument", f"a {kind} has to be at a constant place of the stack", value)
    low = pointer.span.value
    if low % 8 or low + size > FRAME_SIZE:
        raise Refused("bad-argument", f"a {kind} at stack offset {low - FRAME_SIZE} is misplaced", value)
    return pointer
