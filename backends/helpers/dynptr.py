"""Dynamic pointers: memory with its size, and windows of it, kept by the program in 16 bytes of its stack.

    data 8      the memory; the context, for a packet; 0: null
    size 4      bytes in the window, bit 28..30: kind (LOCAL, RINGBUF, SKB, XDP), bit 31: read-only
    offset 4    where the window starts

A program that was not verified may write over them, so what is not trusted is checked against the run's segments,
and a packet's context against the one the run has (kept in the run state when the pointer was made).
"""

from __future__ import annotations

from collections.abc import Callable
from errno import E2BIG, EINVAL, ERANGE
from typing import Final

from backends import abi
from backends.helpers.packet import length
from backends.helpers.row import HelperRow, Site
from backends.helpers.segments import IN_SEGMENT, in_segment
from backends.maps.ring import commit, reserve_record
from backends.maps.shape import Shape, copy
from backends.writer import Value, Variable, Writer
from ir.context import Pointer

_SIZE: Final = 8
_OFFSET: Final = 12
_LARGEST: Final = (1 << 24) - 1
_KIND_SHIFT: Final = 28
_READ_ONLY: Final = 1 << 31
_LOCAL: Final = 1
_RINGBUF: Final = 2
_SKB: Final = 3
_XDP: Final = 4


def from_mem(w: Writer, site: Site) -> None:
    """r4 = a pointer to the r2 bytes at r1."""
    size = w["r2"] & 0xFFFF_FFFF
    with w.if_(size.ugt(_LARGEST)):
        _make_null(w, w["r4"])
        w.ret(-E2BIG)
    with w.if_(w["r3"].ne(0)):
        _make_null(w, w["r4"])
        w.ret(-EINVAL)
    _make(w, w["r4"], w["r1"], size, _LOCAL)
    w.ret(0)


def from_packet(kind: int) -> Callable[[Writer, Site], None]:
    """The emitter of bpf_dynptr_from_skb and _xdp: r3 = a pointer to the packet of context r1."""

    def emit(w: Writer, site: Site) -> None:
        with w.if_(w["r2"].ne(0)):
            _make_null(w, w["r3"])
            w.ret(-EINVAL)
        w["run"].store(w["r1"], abi.CONTEXT)
        _make(w, w["r3"], w["r1"], length(w), kind)
        w.ret(0)

    return emit


def reserve(w: Writer, site: Site) -> None:
    """r4 = a pointer to a new record of r2 bytes in ring buffer r1; it has to be given back even when it is null."""
    size = w["r2"] & 0xFFFF_FFFF
    _make_null(w, w["r4"])
    with w.if_(w["r3"].ne(0)):
        w.ret(-EINVAL)
    with w.if_(size.ugt(_LARGEST)):
        w.ret(-E2BIG)
    record = reserve_record(w, Shape(site.known_map.type, site.known_map), w["r1"], size)
    with w.if_(record.eq(0)):
        w.ret(-EINVAL)
    _make(w, w["r4"], record, size, _RINGBUF)
    w.ret(0)


def finish(discards: bool) -> Callable[[Writer, Site], None]:
    """The emitter of bpf_ringbuf_submit_dynptr and _discard_dynptr."""

    def emit(w: Writer, site: Site) -> None:
        record = w["r1"].load("ptr", align=1)
        with w.if_(record.eq(0)):
            w.ret(0)
        _check(w, site, record.to("i64") - 8, w.i64(8), writes=True)
        commit(w, record, discards)
        _make_null(w, w["r1"])
        w.ret(0)

    return emit


def read(w: Writer, site: Site) -> None:
    """Copy r2 bytes from offset r4 of pointer r3 to r1: 0, -EINVAL, -E2BIG."""
    size = w["r2"] & 0xFFFF_FFFF
    with w.if_(w["r5"].ne(0)):
        w.ret(-EINVAL)
    place = _memory(w, site, w["r3"], w["r4"] & 0xFFFF_FFFF, size, writes=False, errors=True)
    copy(w, w["r1"], place.get(), size, None)
    w.ret(0)


def write(w: Writer, site: Site) -> None:
    """Copy r4 bytes from r3 to offset r2 of pointer r1: 0, -EINVAL, -E2BIG."""
    size = w["r4"] & 0xFFFF_FFFF
    with w.if_(w["r5"].ne(0)):
        w.ret(-EINVAL)
    place = _memory(w, site, w["r1"], w["r2"] & 0xFFFF_FFFF, size, writes=True, errors=True)
    copy(w, place.get(), w["r3"], size, None)
    w.ret(0)


def data(w: Writer, site: Site) -> None:
    """The address of r3 bytes at offset r2 of pointer r1, or null; packets have no such address."""
    with w.if_(_kind(w["r1"]).ugt(_RINGBUF)):
        w.ret(w.null())
    w.ret(_memory(w, site, w["r1"], w["r2"] & 0xFFFF_FFFF, w["r3"], writes=True, errors=False).get())


def slice_of(writes: bool) -> Callable[[Writer, Site], None]:
    """The emitter of bpf_dynptr_slice and _slice_rdwr: as bpf_dynptr_data, of packets too (nothing is copied)."""

    def emit(w: Writer, site: Site) -> None:
        size = w["r4"] & 0xFFFF_FFFF
        w.ret(_memory(w, site, w["r1"], w["r2"] & 0xFFFF_FFFF, size, writes, errors=False).get())

    return emit


def adjust(w: Writer, site: Site) -> None:
    """Narrow the window of r1 to [r2, r3)."""
    start, end = w["r2"] & 0xFFFF_FFFF, w["r3"] & 0xFFFF_FFFF
    with w.if_(w["r1"].load("i64", align=1).eq(0) | start.ugt(end)):
        w.ret(-EINVAL)
    size = _size(w["r1"])
    with w.if_(start.ugt(size) | end.ugt(size)):
        w.ret(-ERANGE)
    word = w["r1"].load("i32", _SIZE, align=1)
    w["r1"].store((word & ~_LARGEST) | (end - start).to("i32"), _SIZE, align=1)
    w["r1"].store(w["r1"].load("i32", _OFFSET, align=1) + start.to("i32"), _OFFSET, align=1)
    w.ret(0)


def is_null(w: Writer, site: Site) -> None:
    """Whether r1 is null."""
    w.ret(w["r1"].load("i64", align=1).eq(0).to("i64"))


def is_rdonly(w: Writer, site: Site) -> None:
    """Whether r1 may only be read; false for null."""
    has = w["r1"].load("i64", align=1).ne(0)
    w.ret((has & (w["r1"].load("i32", _SIZE, align=1) & _READ_ONLY).ne(0)).to("i64"))


def size_of(w: Writer, site: Site) -> None:
    """The bytes in the window of r1, -EINVAL for null."""
    with w.if_(w["r1"].load("i64", align=1).eq(0)):
        w.ret(-EINVAL)
    w.ret(_size(w["r1"]))


def clone(w: Writer, site: Site) -> None:
    """r2 = r1; -EINVAL for null."""
    first, second = w["r1"].load("i64", align=1), w["r1"].load("i64", 8, align=1)
    w["r2"].store(first, align=1)
    w["r2"].store(first.eq(0).choose(w.i64(0), second), 8, align=1)
    w.ret(first.eq(0).choose(w.i64(-EINVAL), 0))


def _make(w: Writer, place: Value, memory: Value, size: Value, kind: int) -> None:
    place.store(memory, align=1)
    place.store(size.to("i32") | kind << _KIND_SHIFT, _SIZE, align=1)
    place.store(w.i32(0), _OFFSET, align=1)


def _make_null(w: Writer, place: Value) -> None:
    place.store(w.i64(0), align=1)
    place.store(w.i64(0), 8, align=1)


def _size(place: Value) -> Value:
    return (place.load("i32", _SIZE, align=1) & _LARGEST).to("i64")


def _kind(place: Value) -> Value:
    return (place.load("i32", _SIZE, align=1) >> _KIND_SHIFT) & 7


def _memory(
    w: Writer, site: Site, place: Value, offset: Value, size: Value, writes: bool, errors: bool
) -> Variable:
    """Where [offset, offset + size) of a pointer's window is; leaves the function when there is no such memory.

    `errors`: with -EINVAL, -E2BIG instead of null.
    """
    base = place.load("i64", align=1)
    window = _size(place)
    start = place.load("i32", _OFFSET, align=1).to("i64") + offset
    refused = base.eq(0)
    if writes:
        refused = refused | (place.load("i32", _SIZE, align=1) & _READ_ONLY).ne(0)
    with w.if_(refused, likely=False):
        w.ret(w.i64(-EINVAL) if errors else w.null())
    with w.if_(offset.ugt(window) | size.ugt(window - offset), likely=False):
        w.ret(w.i64(-E2BIG) if errors else w.null())
    found = w.var("ptr", 0)
    is_packet = _kind(place).ugt(_RINGBUF)
    with w.if_(is_packet):
        if not site.trusts:
            with w.if_(base.ne(w["run"].load("i64", abi.CONTEXT)), likely=False):
                _trap(w)
        context = base.to("ptr")
        packet = context.load("i64", Pointer.DATA.value)
        there = context.load("i64", Pointer.DATA_END.value) - packet
        with w.if_(start.ugt(there) | size.ugt(there - start), likely=False):
            w.ret(w.i64(-E2BIG) if errors else w.null())
        found.set((packet + start).to("ptr"))
    with w.unless(is_packet):
        _check(w, site, base + start, size, writes)
        found.set((base + start).to("ptr"))
    return found


def _check(w: Writer, site: Site, address: Value, size: Value, writes: bool) -> None:
    if not site.trusts:
        with w.unless(in_segment(w, address, size, writes) | size.eq(0), likely=True):
            _trap(w)


def _trap(w: Writer) -> None:
    w["run"].store(w.i32(abi.Trap.MEMORY), abi.TRAP_CODE)
    w.ret(w.value(w.returns, 0))


def _row(emit: Callable[[Writer, Site], None], pointer: bool = False, map: bool = False) -> HelperRow:
    return HelperRow(
        emit, is_small=False, needs_map=map, may_trap=True, returns_pointer=pointer, parts=(IN_SEGMENT,)
    )


DYNPTRS: Final = {
    "dynptr_from_mem": _row(from_mem),
    "ringbuf_reserve_dynptr": _row(reserve, map=True),
    "ringbuf_submit_dynptr": _row(finish(discards=False)),
    "ringbuf_discard_dynptr": _row(finish(discards=True)),
    "dynptr_read": _row(read),
    "dynptr_write": _row(write),
    "dynptr_data": _row(data, pointer=True),
    "dynptr_from_skb": _row(from_packet(_SKB)),
    "dynptr_from_xdp": _row(from_packet(_XDP)),
    "dynptr_slice": _row(slice_of(writes=False), pointer=True),
    "dynptr_slice_rdwr": _row(slice_of(writes=True), pointer=True),
    "dynptr_adjust": _row(adjust),
    "dynptr_is_null": _row(is_null),
    "dynptr_is_rdonly": _row(is_rdonly),
    "dynptr_size": _row(size_of),
    "dynptr_clone": _row(clone),
}
