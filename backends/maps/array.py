"""Operations of arrays and per-cpu arrays: value = map + values_offset + index x value_stride (+ cpu x
cpu_stride).
"""

from __future__ import annotations

from errno import E2BIG, EEXIST, EINVAL
from typing import Final

from backends.maps.operation import (
    Operation,
    borrow_stack,
    call_back,
    copy_locked,
    may_lock,
    of_cpu,
    refuse,
    return_stack,
    this_cpu,
)
from backends.maps.shape import Shape, copy_value, lock_of
from backends.writer import Value, Writer
from ir.map_layout import MAX_ENTRIES, VALUE_STRIDE, VALUES_OFFSET
from ir.maps import UpdateFlag


def lookup(w: Writer, shape: Shape) -> None:
    """The value at index *key, or null past the end."""
    index = _index(w)
    _null_past_end(w, shape, index)
    w.ret(of_cpu(w, shape, w["map"], value_at(w, shape, w["map"], index), this_cpu(w)))


def lookup_cpu(w: Writer, shape: Shape) -> None:
    """As lookup, of another cpu; null when there is no such cpu (the caller checked it)."""
    index = _index(w)
    _null_past_end(w, shape, index)
    w.ret(of_cpu(w, shape, w["map"], value_at(w, shape, w["map"], index), w["cpu"]))


def locate(w: Writer, shape: Shape) -> None:
    """As lookup, of cpu 0."""
    index = _index(w)
    _null_past_end(w, shape, index)
    w.ret(value_at(w, shape, w["map"], index))


def update(w: Writer, shape: Shape) -> None:
    """Overwrite the value in place, word by word. Linux looks for a lock last, for one of a per-cpu array in vain."""
    flags = w["flags"]
    with w.if_((flags & ~int(UpdateFlag.LOCK)).ugt(UpdateFlag.EXIST), likely=False):
        w.ret(-EINVAL)
    index = _index(w)
    with w.if_(index.uge(shape.number(w, w["map"], MAX_ENTRIES)), likely=False):
        w.ret(-E2BIG)
    with w.if_((flags & UpdateFlag.NOEXIST).ne(0), likely=False):
        w.ret(-EEXIST)
    value = of_cpu(w, shape, w["map"], value_at(w, shape, w["map"], index), this_cpu(w))
    with w.if_((flags & UpdateFlag.LOCK).ne(0), likely=False):
        if may_lock(shape):
            with w.if_(lock_of(w, shape, w["map"], value).ne(0)):
                copy_locked(w, shape, w["map"], value)
                w.ret(0)
        w.ret(-EINVAL)
    copy_value(w, shape, w["map"], value, w["value"])
    w.ret(0)


def each(w: Writer, shape: Shape) -> None:
    """Call back with (map, &index, value, context) for each index, until it returns non-zero."""
    with w.if_(w["flags"].ne(0)):
        w.ret(-EINVAL)
    key, top = borrow_stack(w, w.i64(8))
    visited = w.var("i64", 0)
    with w.count(0, shape.number(w, w["map"], MAX_ENTRIES)) as index:
        key.store(index.to("i32"))
        visited.set(index + 1)
        value = of_cpu(w, shape, w["map"], value_at(w, shape, w["map"], index), this_cpu(w))
        w.break_if(call_back(w, w["callback"], w["map"], key, value, w["context"]).ne(0))
    return_stack(w, top)
    w.ret(visited.get())


def value_at(w: Writer, shape: Shape, map: Value, index: Value) -> Value:
    """The value at `index`, of cpu 0."""
    values = map.at(shape.offset(w, map, VALUES_OFFSET))
    return values.at(index * shape.number(w, map, VALUE_STRIDE))


def _index(w: Writer) -> Value:
    return w["key"].load("i32", align=1).to("i64")


def _null_past_end(w: Writer, shape: Shape, index: Value) -> None:
    with w.if_(index.uge(shape.number(w, w["map"], MAX_ENTRIES)), likely=False):
        w.ret(w.null())


def locate_cell(w: Writer, shape: Shape) -> None:
    """The one value of a cell, of cpu 0, whatever the key is."""
    w.ret(value_at(w, shape, w["map"], w.i64(0)))


CELL_OPERATIONS: Final = {"locate": Operation(locate_cell)}
OPERATIONS: Final = {
    "lookup": Operation(lookup, is_small=True),
    "lookup_cpu": Operation(lookup_cpu, is_small=True),
    "locate": Operation(locate),
    "update": Operation(update, is_small=True),
    "delete": refuse(EINVAL),
    "each": Operation(each),
}
