"""Operations of arrays whose entries name something: programs, maps, devices, cpus, sockets.

A slot is {handle 8, value 8}: the handle is 0 when the slot is empty, else what code needs (an address of
code or of a map; 1 for a redirect target); the value is what the host put there.
"""

from __future__ import annotations

from errno import EINVAL
from typing import Final

from backends.maps.operation import Operation, nothing, refuse
from backends.maps.shape import Shape
from backends.writer import Value, Writer
from ir import map_layout as layout
from ir.kinds import MapType
from ir.maps import SLOT_ARRAYS


def lookup_map(w: Writer, shape: Shape) -> None:
    """The map at index *key, or null."""
    w.ret(handle_at(w, shape, w["map"], w["key"].load("i32", align=1).to("i64")).to("ptr"))


def lookup_value(w: Writer, shape: Shape) -> None:
    """What the host put at index *key, or null when the slot is empty."""
    index = w["key"].load("i32", align=1).to("i64")
    with w.if_(handle_at(w, shape, w["map"], index).eq(0)):
        w.ret(w.null())
    w.ret(slot_at(w["map"], index).at(layout.SLOT_VALUE))


def put(w: Writer, shape: Shape) -> None:
    """Fill or empty a slot (for the host): the value first, then the handle."""
    slot = slot_at(w["map"], w["index"])
    with w.if_(w["handle"].eq(0)):
        slot.store(w["handle"], order="release")
        w.ret(0)
    slot.store(w["content"], layout.SLOT_VALUE, order="monotonic")
    slot.store(w["handle"], order="release")
    w.ret(0)


def handle_at(w: Writer, shape: Shape, map: Value, index: Value) -> Value:
    """The handle of slot `index`, 0 when it is empty or past the end."""
    handle = w.var("i64", 0)
    with w.if_(index.ult(shape.number(w, map, layout.MAX_ENTRIES)), likely=True):
        handle.set(slot_at(map, index).load("i64", order="acquire"))
    return handle.get()


def slot_at(map: Value, index: Value) -> Value:
    """The slot of an index."""
    return map.at(layout.DATA).at(index * layout.SLOT_STRIDE)


def _operations(type: MapType) -> dict[str, Operation]:
    found = {MapType.ARRAY_OF_MAPS: lookup_map, MapType.PROG_ARRAY: nothing, MapType.CGROUP_ARRAY: nothing}
    return {
        "lookup": Operation(found.get(type, lookup_value), is_small=True),
        "locate": Operation(lookup_value),
        "update": refuse(EINVAL),
        "delete": refuse(EINVAL),
        "put": Operation(put),
    }


SLOT_OPERATIONS: Final = {type: _operations(type) for type in SLOT_ARRAYS}
