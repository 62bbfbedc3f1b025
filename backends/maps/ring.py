"""Ring buffers, in libbpf's memory layout: a consumer position, a producer position, records of 8-byte
aligned sizes.

    record: length 4 | BUSY | DISCARDED      page offset 4      data ...

Producers take the map's lock to reserve and none to submit; the consumer only reads what is not BUSY. The
data are mapped twice, one after the other, so that no record wraps.
"""

from __future__ import annotations

from errno import EAGAIN, EINVAL
from typing import Final

from backends.maps.operation import Operation, refuse
from backends.maps.shape import Shape, copy, lock, unlock
from backends.writer import Value, Writer
from ir import map_layout as layout
from ir.map_layout import (
    RECORD_BUSY,
    RECORD_DISCARDED,
    RECORD_HEADER,
    RING_CONSUMER,
    RING_DATA,
    RING_PRODUCER,
)
from ir.maps import PAGE

_WAKEUP_FLAGS: Final = 3
_LARGEST: Final = 0x3FFF_FFFF


def reserve(w: Writer, shape: Shape) -> None:
    """A record of `size` bytes that the consumer does not see before it is submitted, or null when there is
    no room.
    """
    with w.if_(w["flags"].ne(0), likely=False):
        w.ret(w.null())
    w.ret(reserve_record(w, shape, w["map"], w["size"]))


def output(w: Writer, shape: Shape) -> None:
    """Copy `size` bytes into a new record: 0, -EINVAL, -EAGAIN when there is no room."""
    with w.if_((w["flags"] & ~_WAKEUP_FLAGS).ne(0), likely=False):
        w.ret(-EINVAL)
    record = reserve_record(w, shape, w["map"], w["size"])
    with w.if_(record.eq(w.null()), likely=False):
        w.ret(-EAGAIN)
    copy(w, record, w["data"], w["size"], None, align=8)
    commit(w, record, discards=False)
    w.ret(0)


def query(w: Writer, shape: Shape) -> None:
    """0: bytes not consumed yet, 1: size of the ring, 2: consumer position, 3: producer position."""
    map, what = w["map"], w["flags"]
    produced = map.load("i64", RING_PRODUCER, order="acquire")
    consumed = map.load("i64", RING_CONSUMER, order="acquire")
    for number, answer in enumerate(
        (produced - consumed, shape.number(w, map, layout.BUCKET_MASK) + 1, consumed, produced)
    ):
        with w.if_(what.eq(number)):
            w.ret(answer)
    w.ret(0)


def reserve_record(w: Writer, shape: Shape, map: Value, size: Value) -> Value:
    """The data of a new BUSY record of `size` bytes, null when it does not fit."""
    mask = shape.number(w, map, layout.BUCKET_MASK)
    found = w.var("ptr", 0)
    length = (size + (RECORD_HEADER + 7)) & ~7
    with w.if_(size.ule(_LARGEST) & length.ule(mask + 1), likely=True):
        lock(w, map.at(layout.LOCK))
        consumed = map.load("i64", RING_CONSUMER, order="acquire")
        produced = map.load("i64", RING_PRODUCER)
        with w.if_((produced + length - consumed).ule(mask), likely=True):
            offset = produced & mask
            header = map.at(RING_DATA).at(offset)
            header.store(size.to("i32") | RECORD_BUSY, order="monotonic")
            header.store(((offset + RING_DATA - RING_CONSUMER) // PAGE).to("i32"), 4)
            map.store(produced + length, RING_PRODUCER, order="release")
            found.set(header.at(RECORD_HEADER))
        unlock(w, map.at(layout.LOCK))
    return found.get()


def commit(w: Writer, record: Value, discards: bool) -> None:
    """Let the consumer have the record, or skip it."""
    header = record.at(-RECORD_HEADER)
    length = header.load("i32", order="monotonic") & ~RECORD_BUSY
    header.store(length | RECORD_DISCARDED if discards else length, order="release")


OPERATIONS: Final = {
    "reserve": Operation(reserve),
    "output": Operation(output),
    "query": Operation(query, is_small=True),
    "update": refuse(EINVAL),
    "delete": refuse(EINVAL),
}
