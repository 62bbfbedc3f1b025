"""bpf_user_ringbuf_drain: samples that the host put into a user ring buffer, each handed to a callback as a dynptr.

The ring is laid out like a ring buffer, with the parts turned: the host produces, the program consumes. The callback sees
a copy of the sample on the BPF stack: the ring's own memory may change under it.
"""

from __future__ import annotations

from errno import E2BIG, EBUSY, EINVAL
from typing import Final

from backends.helpers.row import HelperRow, Site
from backends.maps.operation import borrow_stack, call_back, return_stack
from backends.maps.shape import Shape, copy
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

_MOST_SAMPLES: Final = 128 * 1024
_WAKEUP_FLAGS: Final = 3
_LARGEST_SAMPLE: Final = 32768
_DYNPTR: Final = 16
_LOCAL_READ_ONLY: Final = 1 << 31 | 1 << 28


def drain(w: Writer, site: Site) -> None:
    """Call r2 with (dynptr, r3) for each sample in ring r1 until it returns 1; how many, -EBUSY, -EINVAL, -E2BIG."""
    ring = w["r1"]
    shape = Shape(site.known_map.type, site.known_map)
    with w.if_((w["r4"] & ~_WAKEUP_FLAGS).ne(0), likely=False):
        w.ret(-EINVAL)
    with w.if_(ring.at(layout.LOCK).exchange(w.i32(1), "acquire").ne(0)):
        w.ret(-EBUSY)
    result = w.var("i64", 0)
    with w.loop():
        w.break_if(result.get().uge(_MOST_SAMPLES))
        consumed = ring.load("i64", RING_CONSUMER)
        produced = ring.load("i64", RING_PRODUCER, order="acquire")
        w.break_if(consumed.uge(produced))
        mask = shape.number(w, ring, layout.BUCKET_MASK)
        header = ring.at(RING_DATA).at(consumed & mask)
        word = header.load("i32", order="acquire")
        w.break_if((word & RECORD_BUSY).ne(0))
        size = (word & ~(RECORD_BUSY | RECORD_DISCARDED)).to("i64")
        length = (size + (RECORD_HEADER + 7)) & ~7
        with w.if_(((produced | consumed) & 7).ne(0) | length.ugt(produced - consumed)):
            result.set(-EINVAL)
            w.break_()
        with w.if_(length.ugt(mask + 1) | size.ugt(_LARGEST_SAMPLE)):
            result.set(-E2BIG)
            w.break_()
        stop = w.var("i64", 0)
        with w.if_((word & RECORD_DISCARDED).eq(0)):
            stop.set(_hand_over(w, header.at(RECORD_HEADER), size))
            result.set(result.get() + 1)
        ring.store(consumed + length, RING_CONSUMER, order="release")
        w.break_if(stop.get().ne(0))
    ring.at(layout.LOCK).store(w.i32(0), order="release")
    w.ret(result.get())


def _hand_over(w: Writer, sample: Value, size: Value) -> Value:
    place, top = borrow_stack(w, size + _DYNPTR)
    content = place.at(_DYNPTR)
    copy(w, content, sample, size, None)
    place.store(content)
    place.store(size.to("i32") | _LOCAL_READ_ONLY, 8)
    place.store(w.i32(0), 12)
    stop = call_back(w, w["r2"], place, w["r3"])
    return_stack(w, top)
    return stop


USER_RINGS: Final = {
    "user_ringbuf_drain": HelperRow(drain, is_small=False, needs_map=True, may_trap=True),
}
