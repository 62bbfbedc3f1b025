"""The body of a map in a file: checked before anybody works on it, and mended when who had it open is gone.

    hash, trie        every reference leads somewhere, once; then free lists are made anew (backends/maps/bodies)
    queue, stack      the places of the next value and of the last one are inside
    ring buffer       the records are as long as what was produced; one that was never submitted is discarded
    array, bloom      whatever the bytes are, they are values or bits

Both are for the first who opens a file, before others may: nobody else reads or writes the map.
"""

from __future__ import annotations

from typing import Final

from backends.maps.bodies import Damage
from backends.maps.registry import operation_of
from ir import map_layout
from ir.kinds import MapType
from ir.map_layout import (
    RECORD_BUSY,
    RECORD_DISCARDED,
    RECORD_HEADER,
    RING_CONSUMER,
    RING_DATA,
    RING_PRODUCER,
    SLOT_STRIDE,
)
from ir.maps import SLOT_ARRAYS
from runtime.maps.host import Room
from runtime.maps.live import LiveMap

# What such maps hold is addresses in the process that filled them: nobody else can use them, or share them.
PRIVATE: Final = frozenset({MapType.PROG_ARRAY, MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})

_RINGS: Final = frozenset({MapType.RINGBUF, MapType.USER_RINGBUF, MapType.PERF_EVENT_ARRAY})
_SAID: Final = {
    Damage.NO_ELEMENT: "refers to an element that it does not have",
    Damage.TWICE: "refers twice to one element",
    Damage.MISPLACED: "has a key where it belongs to no key",
    Damage.ENDLESS: "has a chain that does not end as it should",
    Damage.TOO_MANY: "has more entries than it has room for",
}


def open_body(live: LiveMap) -> str:
    """What is wrong with a map that nobody else has open; nothing is changed then. "" when it is right, and now ready."""
    type = live.declared.type
    if type in PRIVATE:
        _empty(live)
        return ""
    if type in _RINGS:
        return _open_ring(live)
    if operation_of(type, "check") is not None:
        marks = live.host.room(_marks_size(live))
        damage = live.host.of(type, "check")(live.address, marks.address)
        if damage:
            return _SAID[Damage(damage)]
        _mend(live, marks)
    elif type in (MapType.QUEUE, MapType.STACK) and not _is_queue_right(live):
        return "has its next value, or its last, outside"
    elif type in SLOT_ARRAYS and not _are_slots_right(live):
        return "has a slot that is neither empty nor full"
    _unlock(live)
    return ""


def _mend(live: LiveMap, marks: Room) -> None:
    live.host.of(live.declared.type, "mend")(live.address, marks.address)


def _empty(live: LiveMap) -> None:
    """Make it as it was when it was new."""
    view, start = live.block.view, map_layout.SPECIAL
    seed = _word(live, map_layout.SEED)
    view[start : live.layout.size] = bytes(live.layout.size - start)
    for place, content in map_layout.first_bytes(live.declared, live.cpus, seed, "="):
        view[place : place + len(content)] = content
    view[map_layout.LOCK : start] = bytes(start - map_layout.LOCK)


def _marks_size(live: LiveMap) -> int:
    """A byte for each element, and for those of a trie 8 more."""
    if live.declared.type is MapType.LPM_TRIE:
        return map_layout.align(live.layout.elements + 1, 8) + 8 * live.layout.elements
    return live.layout.elements + live.cpus + 1


def _is_queue_right(live: LiveMap) -> bool:
    entries = live.declared.max_entries
    return _word(live, map_layout.HEAD) < entries and _word(live, map_layout.TAIL) <= entries


def _are_slots_right(live: LiveMap) -> bool:
    words = live.block.view[map_layout.DATA : live.layout.size].cast("Q")
    handles = words[:: SLOT_STRIDE // 8].tolist()
    words.release()
    return all(handle in (0, 1) for handle in handles)


def _open_ring(live: LiveMap) -> str:
    size, view = live.layout.mirrored, live.block.view
    consumed, produced = _word(live, RING_CONSUMER), _word(live, RING_PRODUCER)
    if consumed % 8 or produced % 8 or not 0 <= produced - consumed <= size:
        return f"has read {consumed} bytes of {produced}"
    lost: list[int] = []
    position = consumed
    while position < produced:
        start = RING_DATA + position % size
        length = int.from_bytes(view[start : start + 4], live.host.order)
        if length & RECORD_BUSY:
            lost.append(start)
        position += map_layout.align(length & ~(RECORD_BUSY | RECORD_DISCARDED), 8) + RECORD_HEADER
    if position != produced:
        return "has records that are longer than what was produced"
    for start in lost:
        length = int.from_bytes(view[start : start + 4], live.host.order) & ~RECORD_BUSY | RECORD_DISCARDED
        view[start : start + 4] = length.to_bytes(4, live.host.order)
    _unlock(live)
    return ""


def _unlock(live: LiveMap) -> None:
    """Give back the map's lock, and those in its values."""
    view, field = live.block.view, map_layout.SPECIAL
    view[map_layout.LOCK : map_layout.LOCK + 4] = bytes(4)
    offset, size = (int.from_bytes(view[at : at + 4], live.host.order) for at in (field, field + 4))
    places = map_layout.value_places(live.declared, live.cpus)
    if size & map_layout.SPECIAL_LOCK and places is not None:
        words = view[live.layout.values_offset + offset : places.end].cast("I")
        locks = words[:: places.distance // 4]
        locks[:] = memoryview(bytes(4 * len(locks))).cast("I")
        locks.release()
        words.release()


def _word(live: LiveMap, offset: int) -> int:
    return int.from_bytes(live.block.view[offset : offset + 8], live.host.order)
