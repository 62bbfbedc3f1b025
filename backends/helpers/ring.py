"""The halves of the ring buffer helpers that have no map: submit and discard; and perf events."""

from __future__ import annotations

from errno import E2BIG, EFAULT, EINVAL, ENOSPC
from typing import Final

from backends import abi
from backends.helpers.packet import length, pointer
from backends.helpers.row import HelperRow, Site
from backends.helpers.segments import IN_SEGMENT, in_segment
from backends.maps.ring import commit, reserve_record
from backends.maps.shape import Shape, copy
from backends.writer import Writer
from ir.context import Pointer, layout_of
from ir.map_layout import MAX_ENTRIES, PERF_HEADER, RECORD_HEADER, RING_LOST

_CURRENT_CPU: Final = 0xFFFF_FFFF
_CONTEXT_SHIFT: Final = 32
_CONTEXT_BITS: Final = 0xFFFFF


def ringbuf_submit(w: Writer, site: Site) -> None:
    """Let the consumer have record r1."""
    _finish(w, site, discards=False)


def ringbuf_discard(w: Writer, site: Site) -> None:
    """Let the consumer skip record r1."""
    _finish(w, site, discards=True)


def perf_event_output(w: Writer, site: Site) -> None:
    """Append r4 (r5 bytes), and the first bytes of the packet that the high half of r3 asks for, to map r2.

    record: cpu 4, packet bytes 4, data, packet
    """
    _output(w, site, has_packet=bool(layout_of(site.program_type).pointers))


def skb_output(w: Writer, site: Site) -> None:
    """As perf_event_output, of a packet that only a kernel has: without its bytes."""
    _output(w, site, has_packet=False)


def xdp_output(w: Writer, site: Site) -> None:
    """As perf_event_output, of the packet of the XDP program that this one runs around."""
    _output(w, site, has_packet=site.has_xdp_buff)


def _output(w: Writer, site: Site, has_packet: bool) -> None:
    flags, size = w["r3"], w["r5"] & 0xFFFF_FFFF
    shape = Shape(site.known_map.type, site.known_map)
    wanted = (flags >> _CONTEXT_SHIFT) & _CONTEXT_BITS
    with w.if_((flags >> 52).ne(0), likely=False):
        w.ret(-EINVAL)
    cpu = w["run"].load("i32", abi.CPU).to("i64")
    index = (flags & _CURRENT_CPU).eq(_CURRENT_CPU).choose(cpu, flags & _CURRENT_CPU)
    with w.if_(index.uge(shape.number(w, w["r2"], MAX_ENTRIES)), likely=False):
        w.ret(-E2BIG)
    if has_packet:
        with w.if_(wanted.ugt(length(w)), likely=False):
            w.ret(-EFAULT)
    else:
        wanted = w.i64(0)
    record = reserve_record(w, shape, w["r2"], size + wanted + PERF_HEADER)
    with w.if_(record.eq(0), likely=False):
        w["r2"].at(RING_LOST).exchange(w.i64(1), "monotonic", "add")
        w.ret(-ENOSPC)
    record.store(index.to("i32"))
    record.store(wanted.to("i32"), 4)
    copy(w, record.at(PERF_HEADER), w["r4"], size, None)
    if has_packet:
        copy(w, record.at(PERF_HEADER).at(size), pointer(w, Pointer.DATA).to("ptr"), wanted, None)
    commit(w, record, discards=False)
    w.ret(0)


def _finish(w: Writer, site: Site, discards: bool) -> None:
    if not site.trusts:
        header = w["r1"].to("i64") - RECORD_HEADER
        with w.unless(in_segment(w, header, w.i64(RECORD_HEADER), writes=True), likely=True):
            w["run"].store(w.i32(abi.Trap.HELPER), abi.TRAP_CODE)
            w.ret(0)
    commit(w, w["r1"], discards)
    w.ret(0)


RINGS: Final = {
    "ringbuf_submit": HelperRow(ringbuf_submit, may_trap=True, parts=(IN_SEGMENT,)),
    "ringbuf_discard": HelperRow(ringbuf_discard, may_trap=True, parts=(IN_SEGMENT,)),
    "perf_event_output": HelperRow(perf_event_output, is_small=False, needs_map=True),
    "skb_output": HelperRow(skb_output, is_small=False, needs_map=True),
    "xdp_output": HelperRow(xdp_output, is_small=False, needs_map=True),
}
