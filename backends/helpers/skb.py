"""Helpers that change an skb beyond its bytes: room at its ends, inside of it, its VLAN tag, its marks.

What a kernel keeps beside the packet (the hardware-accelerated VLAN tag, the hash) are fields of the context's image.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOMEM
from typing import Final

from backends.helpers.packet import length, move, pointer, set_pointer
from backends.helpers.row import ENOTSUPP, HelperRow, Site
from backends.maps.shape import clear_bytes, copy, load_big_endian
from backends.writer import Value, Writer
from ir.context import HEADER, SK_BUFF, Pointer

_ETH: Final = 14
_LONGEST: Final = 16064  # SKB_MAX_ALLOC with pages of 4 KiB
_FARTHEST: Final = 0xFFFF
_IPV4, _IPV6 = 0x0800, 0x86DD
_VLAN_PROTOCOLS: Final = (0x8100, 0x88A8)
_NET, _MAC = 0, 1
_ROOM_FLAGS: Final = 0x1FF | 0xFF << 56
_MOST_ROOM: Final = 0xFFF


def skb_change_tail(w: Writer, site: Site) -> None:
    """Make the packet r2 bytes long; what is gained is zeroed."""
    wanted = w["r2"] & 0xFFFF_FFFF
    bad = w["r3"].ne(0) | wanted.ult(_ETH) | wanted.ugt(_LONGEST)
    with w.if_(bad, likely=False):
        w.ret(-EINVAL)
    end = pointer(w, Pointer.DATA_END)
    new = pointer(w, Pointer.DATA) + wanted
    with w.if_(new.ugt(pointer(w, Pointer.PACKET_END)), likely=False):
        w.ret(-ENOMEM)
    with w.if_(new.ugt(end)):
        clear_bytes(w, end.to("ptr"), new - end)
    _set_end(w, new)
    w.ret(0)


def skb_change_head(w: Writer, site: Site) -> None:
    """Grow the packet by r2 zeroes at its start."""
    room = w["r2"] & 0xFFFF_FFFF
    with w.if_(w["r3"].ne(0) | room.ugt(_LONGEST), likely=False):
        w.ret(-EINVAL)
    with w.unless(_push(w, room)):
        w.ret(-ENOMEM)
    clear_bytes(w, pointer(w, Pointer.DATA).to("ptr"), room)
    w.ret(0)


def skb_adjust_room(w: Writer, site: Site) -> None:
    """Grow or shrink by r2 bytes after the MAC header (r3 = 1) or after the network header (0)."""
    difference = w["r2"].to("i32").signed_to("i64")
    size = difference.slt(0).choose(w.i64(0) - difference, difference)
    with w.if_((w["r4"] & ~_ROOM_FLAGS).ne(0), likely=False):
        w.ret(-EINVAL)
    with w.if_(size.ugt(_MOST_ROOM), likely=False):
        w.ret(-EFAULT)
    protocol = _protocol(w)
    bad_mode = (w["r3"] & 0xFFFF_FFFF).ugt(_MAC)
    with w.if_(bad_mode | (protocol.ne(_IPV4) & protocol.ne(_IPV6)), likely=False):
        w.ret(-ENOTSUPP)
    network = protocol.eq(_IPV4).choose(w.i64(20), 40)
    offset = (w["r3"] & 1).eq(_NET).choose(network + _ETH, _ETH)
    with w.if_(difference.slt(0)):
        with w.if_((length(w) - size).slt(network + _ETH) | length(w).slt(offset + size)):
            w.ret(-ENOTSUPP)
        _cut(w, offset, size)
        w.ret(0)
    with w.if_(length(w).ult(offset), likely=False):
        w.ret(-EFAULT)
    with w.unless(_insert(w, offset, size)):
        w.ret(-ENOMEM)
    w.ret(0)


def skb_vlan_push(w: Writer, site: Site) -> None:
    """Tag the packet with protocol r2 (network order) and tag r3; a tag it has already goes into its bytes."""
    protocol = _network16(w, w["r2"])
    known = protocol.eq(_VLAN_PROTOCOLS[0]) | protocol.eq(_VLAN_PROTOCOLS[1])
    with w.if_(_field(w, "vlan_present").ne(0)):
        with w.unless(_insert(w, w.i64(12), w.i64(4))):
            w.ret(-ENOMEM)
        data = pointer(w, Pointer.DATA).to("ptr")
        data.store(_field(w, "vlan_proto").to("i16"), 12, align=1)
        _store16(w, data, 14, _field(w, "vlan_tci").to("i64"))
    _set_field(w, "vlan_present", w.i32(1))
    _set_field(w, "vlan_tci", (w["r3"] & 0xFFFF).to("i32"))
    chosen = known.choose(w["r2"] & 0xFFFF, _host16(w, _VLAN_PROTOCOLS[0]))
    _set_field(w, "vlan_proto", chosen.to("i32"))
    w.ret(0)


def skb_vlan_pop(w: Writer, site: Site) -> None:
    """Take the packet's outermost tag off; one that is in its bytes takes its place."""
    with w.if_(_field(w, "vlan_present").eq(0)):
        with w.unless(_is_tagged(w)):
            w.ret(0)
        _cut(w, w.i64(12), w.i64(4))
        w.ret(0)
    with w.unless(_is_tagged(w)):
        _set_field(w, "vlan_present", w.i32(0))
        _set_field(w, "vlan_tci", w.i32(0))
        _set_field(w, "vlan_proto", w.i32(0))
        w.ret(0)
    data = pointer(w, Pointer.DATA).to("ptr")
    _set_field(w, "vlan_proto", data.load("i16", 12, align=1).to("i32"))
    _set_field(w, "vlan_tci", load_big_endian(w, data, 14, 2).to("i32"))
    _cut(w, w.i64(12), w.i64(4))
    w.ret(0)


def skb_change_type(w: Writer, site: Site) -> None:
    """Change who the packet is for: host, broadcast, multicast, other host."""
    with w.if_((w["r2"] & 0xFFFF_FFFF).ugt(3) | _field(w, "pkt_type").ugt(3)):
        w.ret(-EINVAL)
    _set_field(w, "pkt_type", w["r2"].to("i32"))
    w.ret(0)


def get_hash_recalc(w: Writer, site: Site) -> None:
    """The packet's hash."""
    w.ret(_field(w, "hash").to("i64"))


def set_hash(w: Writer, site: Site) -> None:
    """Give the packet a hash."""
    _set_field(w, "hash", w["r2"].to("i32"))
    w.ret(0)


def set_hash_invalid(w: Writer, site: Site) -> None:
    """The packet has no hash any more."""
    _set_field(w, "hash", w.i32(0))
    w.ret(0)


def skb_set_tstamp(w: Writer, site: Site) -> None:
    """Give the packet a time stamp."""
    offset, _ = SK_BUFF.fields["tstamp"]
    w["r1"].store(w["r2"], HEADER + offset)
    w.ret(0)


def skb_load_bytes_relative(w: Writer, site: Site) -> None:
    """Copy r4 bytes at offset r2 from the MAC header (r5 = 0) or the network header (1) to r3."""
    to, size = w["r3"], w["r4"] & 0xFFFF_FFFF
    with w.if_((w["r5"] & 0xFFFF_FFFF).ugt(1), likely=False):
        clear_bytes(w, to, size)
        w.ret(-EFAULT)
    start = (w["r2"] & 0xFFFF_FFFF) + (w["r5"] & 1) * _ETH
    have = length(w)
    with w.if_(
        (w["r2"] & 0xFFFF_FFFF).ugt(_FARTHEST) | size.ugt(have) | start.ugt(have - size), likely=False
    ):
        clear_bytes(w, to, size)
        w.ret(-EFAULT)
    copy(w, to, pointer(w, Pointer.DATA).to("ptr").at(start), size, None)
    w.ret(0)


def _push(w: Writer, room: Value) -> Value:
    """Move the packet's start back by `room` when there is as much (i1)."""
    new = pointer(w, Pointer.DATA) - room
    fits = new.uge(pointer(w, Pointer.PACKET_START))
    with w.if_(fits):
        _set_start(w, new)
    return fits


def _insert(w: Writer, offset: Value, size: Value) -> Value:
    """Open a gap of `size` zeroes at `offset` by moving what is before it (i1: there was room)."""
    fits = _push(w, size)
    with w.if_(fits):
        data = pointer(w, Pointer.DATA).to("ptr")
        move(w, data, data.at(size), offset)
        clear_bytes(w, data.at(offset), size)
    return fits


def _cut(w: Writer, offset: Value, size: Value) -> None:
    """Remove `size` bytes at `offset` by moving what is before them."""
    data = pointer(w, Pointer.DATA)
    move(w, (data + size).to("ptr"), data.to("ptr"), offset)
    _set_start(w, data + size)


def _set_start(w: Writer, new: Value) -> None:
    set_pointer(w, Pointer.DATA, new)
    set_pointer(w, Pointer.DATA_META, new)
    _set_field(w, "len", (pointer(w, Pointer.DATA_END) - new).to("i32"))


def _set_end(w: Writer, new: Value) -> None:
    set_pointer(w, Pointer.DATA_END, new)
    _set_field(w, "len", (new - pointer(w, Pointer.DATA)).to("i32"))


def _is_tagged(w: Writer) -> Value:
    protocol = _protocol(w)
    return protocol.eq(_VLAN_PROTOCOLS[0]) | protocol.eq(_VLAN_PROTOCOLS[1])


def _protocol(w: Writer) -> Value:
    """The EtherType, 0 when the packet has none."""
    found = w.var("i64", 0)
    with w.if_(length(w).uge(_ETH)):
        found.set(load_big_endian(w, pointer(w, Pointer.DATA).to("ptr"), 12, 2))
    return found.get()


def _network16(w: Writer, number: Value) -> Value:
    """A 16-bit number in network order as the host's."""
    place = w.local(8)
    place.store(number.to("i16"))
    return load_big_endian(w, place, 0, 2)


def _host16(w: Writer, number: int) -> Value:
    """A constant in network order, as a number of the host."""
    place = w.local(8)
    place.store(w.value("i8", number >> 8))
    place.store(w.value("i8", number & 0xFF), 1)
    return place.load("i16").to("i64")


def _store16(w: Writer, place: Value, offset: int, number: Value) -> None:
    place.store((number >> 8).to("i8"), offset)
    place.store(number.to("i8"), offset + 1)


def _field(w: Writer, name: str) -> Value:
    offset, _ = SK_BUFF.fields[name]
    return w["r1"].load("i32", HEADER + offset)


def _set_field(w: Writer, name: str, value: Value) -> None:
    offset, _ = SK_BUFF.fields[name]
    w["r1"].store(value, HEADER + offset)


SKBS: Final = {
    emit.__name__: HelperRow(emit, is_small=False)
    for emit in (
        skb_change_tail,
        skb_change_head,
        skb_adjust_room,
        skb_vlan_push,
        skb_vlan_pop,
        skb_change_type,
        get_hash_recalc,
        set_hash,
        set_hash_invalid,
        skb_set_tstamp,
        skb_load_bytes_relative,
    )
}
