"""Operations of queues and stacks: a ring of values under the map's lock.

HEAD: where the next value goes        TAIL: how many values there are        (both counted in values)
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, ENOENT
from typing import Final

from backends.maps.operation import Operation, refuse
from backends.maps.shape import Shape, clear_bytes, copy, lock, unlock
from backends.writer import Value, Writer
from ir import map_layout as layout
from ir.kinds import MapType
from ir.maps import UpdateFlag


def push(w: Writer, shape: Shape) -> None:
    """Append *value: 0, or -E2BIG when full; with BPF_EXIST the oldest value makes room."""
    map, flags = w["map"], w["flags"]
    with w.if_(flags.ne(0) & flags.ne(UpdateFlag.EXIST), likely=False):
        w.ret(-EINVAL)
    entries = shape.number(w, map, layout.MAX_ENTRIES)
    lock(w, map.at(layout.LOCK))
    count = map.load("i64", layout.TAIL)
    with w.if_(count.uge(entries)), w.if_(flags.eq(0)):
        unlock(w, map.at(layout.LOCK))
        w.ret(-E2BIG)
    head = map.load("i64", layout.HEAD)
    copy(
        w,
        _value_at(w, shape, head),
        w["value"],
        shape.value_size(w, map),
        shape.constant(layout.VALUE_SIZE),
        align=8,
    )
    next = head + 1
    map.store(next.uge(entries).choose(w.i64(0), next), layout.HEAD)
    map.store(count.uge(entries).choose(entries, count + 1), layout.TAIL)
    unlock(w, map.at(layout.LOCK))
    w.ret(0)


def pop(w: Writer, shape: Shape) -> None:
    """Take the next value into *value: 0, or -ENOENT (and zeros) when there is none."""
    _take(w, shape, removes=True)


def peek(w: Writer, shape: Shape) -> None:
    """As pop, leaving the value there."""
    _take(w, shape, removes=False)


def _take(w: Writer, shape: Shape, removes: bool) -> None:
    map = w["map"]
    size = shape.value_size(w, map)
    entries = shape.number(w, map, layout.MAX_ENTRIES)
    lock(w, map.at(layout.LOCK))
    count = map.load("i64", layout.TAIL)
    with w.if_(count.eq(0), likely=False):
        unlock(w, map.at(layout.LOCK))
        clear_bytes(w, w["value"], size)
        w.ret(-ENOENT)
    head = map.load("i64", layout.HEAD)
    back = count if shape.type is MapType.QUEUE else w.i64(1)
    index = head.uge(back).choose(head - back, head + entries - back)
    copy(w, w["value"], _value_at(w, shape, index), size, shape.constant(layout.VALUE_SIZE))
    if removes:
        map.store(count - 1, layout.TAIL)
        if shape.type is MapType.STACK:
            map.store(index, layout.HEAD)
    unlock(w, map.at(layout.LOCK))
    w.ret(0)


def _value_at(w: Writer, shape: Shape, index: Value) -> Value:
    return w["map"].at(layout.DATA).at(index * shape.number(w, w["map"], layout.VALUE_STRIDE))


OPERATIONS: Final = {
    "push": Operation(push),
    "pop": Operation(pop),
    "peek": Operation(peek),
    "update": refuse(EINVAL),
    "delete": refuse(EINVAL),
}
