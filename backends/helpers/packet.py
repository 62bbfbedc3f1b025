"""Helpers that read, write and move packet data: the pointers stand in the context's header (ir/context.py).

packet_start     data_meta   data          data_end        packet_end
  | head room    | metadata  | packet      | tail room     |
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EACCES, EFAULT, EINVAL, ENOMEM
from typing import Final

from backends.helpers.row import HelperRow, Site
from backends.maps.shape import clear_bytes, copy
from backends.writer import Value, Writer
from ir.context import Pointer

ETH_HLEN: Final = 14
XDP_FRAME: Final = 40  # the kernel keeps a struct xdp_frame at the start of the head room
_INT_MAX: Final = 0x7FFF_FFFF
_XDP_LIMIT: Final = 0xFFFF
_META_LIMIT: Final = 255
_STORE_FLAGS: Final = 3


def pointer(w: Writer, which: Pointer) -> Value:
    """A packet pointer, as i64."""
    return w["r1"].load("i64", which.value)


def set_pointer(w: Writer, which: Pointer, value: Value) -> None:
    """Change a packet pointer."""
    w["r1"].store(value, which.value)


def length(w: Writer) -> Value:
    """The packet's length."""
    return pointer(w, Pointer.DATA_END) - pointer(w, Pointer.DATA)


def is_inside(w: Writer, offset: Value, size: Value) -> Value:
    """Whether [offset, offset + size) is in the packet (i1)."""
    have = length(w)
    return offset.ule(_INT_MAX) & size.ule(have) & offset.ule(have - size)


def skb_load_bytes(w: Writer, site: Site) -> None:
    """Copy r4 bytes at offset r2 to r3; -EFAULT and zeros when they are not all in the packet."""
    offset, to, size = w["r2"] & 0xFFFF_FFFF, w["r3"], w["r4"] & 0xFFFF_FFFF
    with w.unless(is_inside(w, offset, size), likely=False):
        clear_bytes(w, to, size)
        w.ret(-EFAULT)
    copy(w, to, pointer(w, Pointer.DATA).to("ptr").at(offset), size, None)
    w.ret(0)


def skb_store_bytes(w: Writer, site: Site) -> None:
    """Copy r4 bytes from r3 to offset r2."""
    with w.if_((w["r5"] & ~_STORE_FLAGS).ne(0), likely=False):
        w.ret(-EINVAL)
    _store(w, EFAULT)


def xdp_load_bytes(w: Writer, site: Site) -> None:
    """Copy r4 bytes at offset r2 to r3; -EINVAL when they are not all in the packet, -EFAULT far off."""
    offset, size = w["r2"] & 0xFFFF_FFFF, w["r4"] & 0xFFFF_FFFF
    _refuse_large(w, offset, size)
    with w.unless(is_inside(w, offset, size), likely=False):
        w.ret(-EINVAL)
    copy(w, w["r3"], pointer(w, Pointer.DATA).to("ptr").at(offset), size, None)
    w.ret(0)


def xdp_store_bytes(w: Writer, site: Site) -> None:
    """Copy r4 bytes from r3 to offset r2."""
    _refuse_large(w, w["r2"] & 0xFFFF_FFFF, w["r4"] & 0xFFFF_FFFF)
    _store(w, EINVAL)


def xdp_get_buff_len(w: Writer, site: Site) -> None:
    """The packet's length."""
    w.ret(length(w))


def xdp_adjust_head(w: Writer, site: Site) -> None:
    """Move the packet's start by r2; metadata moves along."""
    delta = _signed(w["r2"])
    data, meta = pointer(w, Pointer.DATA), pointer(w, Pointer.DATA_META)
    carried = data - meta
    new = data + delta
    least = pointer(w, Pointer.PACKET_START) + XDP_FRAME + carried
    with w.if_(new.ult(least) | new.ugt(pointer(w, Pointer.DATA_END) - ETH_HLEN), likely=False):
        w.ret(-EINVAL)
    with w.if_(carried.ne(0), likely=False):
        move(w, (meta + delta).to("ptr"), meta.to("ptr"), carried)
    set_pointer(w, Pointer.DATA_META, meta + delta)
    set_pointer(w, Pointer.DATA, new)
    w.ret(0)


def xdp_adjust_tail(w: Writer, site: Site) -> None:
    """Move the packet's end by r2; what is gained is zeroed."""
    delta = _signed(w["r2"])
    end = pointer(w, Pointer.DATA_END)
    new = end + delta
    too_far = new.ugt(pointer(w, Pointer.PACKET_END))
    with w.if_(too_far | new.ult(pointer(w, Pointer.DATA) + ETH_HLEN), likely=False):
        w.ret(-EINVAL)
    with w.if_(delta.sgt(0)):
        clear_bytes(w, end.to("ptr"), delta)
    set_pointer(w, Pointer.DATA_END, new)
    w.ret(0)


def xdp_adjust_meta(w: Writer, site: Site) -> None:
    """Move the start of the metadata by r2."""
    meta = pointer(w, Pointer.DATA_META) + _signed(w["r2"])
    data = pointer(w, Pointer.DATA)
    with w.if_(meta.ult(pointer(w, Pointer.PACKET_START) + XDP_FRAME) | meta.ugt(data), likely=False):
        w.ret(-EINVAL)
    size = data - meta
    with w.if_((size & 3).ne(0) | size.ugt(_META_LIMIT), likely=False):
        w.ret(-EACCES)
    set_pointer(w, Pointer.DATA_META, meta)
    w.ret(0)


def skb_pull_data(w: Writer, site: Site) -> None:
    """Everything is in one piece here; -ENOMEM for more than there is."""
    with w.if_((w["r2"] & 0xFFFF_FFFF).ugt(length(w)), likely=False):
        w.ret(-ENOMEM)
    w.ret(0)


def move(w: Writer, to: Value, source: Value, size: Value) -> None:
    """Copy bytes that may overlap."""
    with w.if_(to.to("i64").ult(source.to("i64"))), w.count(0, size) as i:
        to.store(source.load("i8", i), i, order="monotonic")
    with w.unless(to.to("i64").ult(source.to("i64"))), w.count(0, size) as i:
        to.store(source.load("i8", size - i - 1), size - i - 1, order="monotonic")


def _refuse_large(w: Writer, offset: Value, size: Value) -> None:
    with w.if_(offset.ugt(_XDP_LIMIT) | size.ugt(_XDP_LIMIT), likely=False):
        w.ret(-EFAULT)


def _store(w: Writer, errno: int) -> None:
    offset, size = w["r2"] & 0xFFFF_FFFF, w["r4"] & 0xFFFF_FFFF
    with w.unless(is_inside(w, offset, size), likely=False):
        w.ret(-errno)
    copy(w, pointer(w, Pointer.DATA).to("ptr").at(offset), w["r3"], size, None)
    w.ret(0)


def _signed(number: Value) -> Value:
    """The low 32 bits as a signed number."""
    return number.to("i32").signed_to("i64")


_EMITTERS: Final[tuple[Callable[[Writer, Site], None], ...]] = (
    skb_load_bytes,
    skb_store_bytes,
    skb_pull_data,
    xdp_load_bytes,
    xdp_store_bytes,
    xdp_get_buff_len,
    xdp_adjust_head,
    xdp_adjust_tail,
    xdp_adjust_meta,
)
PACKET: Final = {emit.__name__: HelperRow(emit, is_small=emit is xdp_get_buff_len) for emit in _EMITTERS}
