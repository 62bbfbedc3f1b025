"""The stack frames of a function and its callers: what stores leave there and loads find."""

from __future__ import annotations

from typing import Literal

from ir.core import Const, Value
from ir.verify.refusal import Refused
from ir.verify.scalar import Scalar, const
from ir.verify.state import State, pointer_room, without_symbol
from ir.verify.subject import FRAME_SIZE, Subject
from ir.verify.transfer import SCALARS
from ir.verify.values import Area, Known, Pointer


def own_or_outer(state: State, own: Area, frame: Area, frames: tuple[Area, ...]) -> State | None:
    """The state that keeps `frame`: this one, or that of a caller.

    `frames` are the callers', innermost first.
    """
    if frame is own:
        return state
    for area in frames:
        if state.outer is None:
            return None
        state = state.outer
        if area is frame:
            return state
    return None


def write_frame(
    state: State, own: Area, frames: tuple[Area, ...], frame: Area, low: int, high: int
) -> State | None:
    """Forget bytes [low, high) of `frame` (from its lowest byte) before something is stored there.

    Returns the state that keeps the frame, to note what is stored; a caller's state is copied first.
    """
    for found in state.held.objects_in(frame, low, high) if state.held.objects else ():
        if found.is_owned:
            raise Refused(
                "object-overwritten", f"store over the {found.kind} on the stack, which holds a reference"
            )
        state.held = state.held.with_objects(state.held.objects - {found})
        state.forget_area(found.area)
    if frame is own:
        state.kill_stack(low, high)
        return state
    holder = state
    for area in frames:
        if holder.outer is None:
            return None
        holder.outer = holder.outer.copy()
        holder = holder.outer
        if area is frame:
            holder.kill_stack(low, high)
            return holder
    return None


def read_slot(
    keeper: State, place: int, size: int, signed: bool, big_endian: bool
) -> tuple[Known, Value | None] | None:
    """What `size` bytes at `place` hold: what is known, and the value when it is kept there whole.

    Constants and numbers are taken apart, constants put together.
    """
    slot = keeper.stack.get(place)
    if slot is not None and slot[0] == size and not signed:
        return keeper.of(slot[1]), slot[1]
    number = _bytes_of(keeper, place, size, big_endian)
    if number is None:
        return _part_of(keeper, place, size, signed, big_endian)
    order: Literal["big", "little"] = "big" if big_endian else "little"
    return const(64, int.from_bytes(number, order, signed=signed)), None


def _part_of(
    keeper: State, place: int, size: int, signed: bool, big_endian: bool
) -> tuple[Known, Value | None] | None:
    """What `size` bytes at `place` hold that were stored as a part of more; the value where the rest of it is 0."""
    for start, (length, value) in keeper.stack.items():
        if not (start <= place and place + size <= start + length):
            continue
        known = keeper.of(value)
        if type(known) is not Scalar:
            return None
        low = start + length - place - size if big_endian else place - start
        if not low and not signed and known.umax < 1 << 8 * size:
            return known, value
        part = SCALARS.trunc(64, SCALARS.lshr(64, known, const(64, 8 * low)), 8 * size)
        return (SCALARS.sext if signed else SCALARS.zext)(8 * size, part, 64), None
    return None


def _bytes_of(keeper: State, place: int, size: int, big_endian: bool) -> bytes | None:
    """The constant bytes at `place`, None when some are not known."""
    order: Literal["big", "little"] = "big" if big_endian else "little"
    found = bytearray()
    at = place
    while at < place + size:
        for start, (length, value) in keeper.stack.items():
            if start <= at < start + length:
                known = keeper.of(value)
                if type(known) is not Scalar or known.mask:
                    return None
                content = (known.value & ((1 << 8 * length) - 1)).to_bytes(length, order)
                taken = content[at - start : place + size - start]
                found += taken
                at += len(taken)
                break
        else:
            return None
    return bytes(found)


def note_store(
    subject: Subject, keeper: State, state: State, frame: Area, place: int, size: int, value: Value
) -> None:
    """Remember that `value` (of `state`) was stored at `place` of a frame that `keeper` keeps."""
    known = state.of(value)
    if type(known) is Pointer:
        if size != 8:
            return
    elif size < 8 and known.umax >= 1 << 8 * size:
        if known.mask:
            return
        value = Const(known.value & ((1 << 8 * size) - 1))
    if keeper is state or type(value) is Const:
        keeper.stack[place] = (size, value)
        return
    # The value's name means something else in every call, so the caller gets one of its own.
    symbol = subject.stack_symbol(frame, place, size)
    keeper.forget_symbol(symbol)
    keeper.stack[place] = (size, symbol)
    keeper.known[symbol] = without_symbol(known, symbol)
    state.lent[symbol] = value
    room = pointer_room(state, known) if type(known) is Pointer else None
    if room is not None and type(known) is Pointer and known.area.length in keeper.limits:
        assert known.area.length is not None
        keeper.rooms[symbol, known.area.length] = room


def frame_place(pointer: Pointer, offset: int) -> int | None:
    """The byte from the frame's lowest that an access goes to, None when it varies."""
    return None if pointer.span.mask else pointer.span.value + offset


def covers_frame(pointer: Pointer, offset: int, size: int) -> bool:
    """Whether the bytes surely lie in the frame."""
    return pointer.span.smin + offset >= 0 and pointer.span.smax + offset + size <= FRAME_SIZE
