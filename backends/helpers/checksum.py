"""Internet checksums (RFC 1071): differences of memory, and fixing those of IP, TCP and UDP headers.

A sum is 32 bits, added with end-around carry; `fold` makes 16 bits of it. The byte order does not matter.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL
from typing import Final

from backends.helpers.packet import is_inside, pointer
from backends.helpers.row import ENOTSUPP, HelperRow, Site
from backends.writer import Value, Writer
from ir.context import Pointer

_FIELD_SIZE: Final = 0xF
_PSEUDO_HEADER: Final = 0x10
_MANGLED_ZERO: Final = 0x20
_MARK_ENFORCE: Final = 0x40
_IPV6: Final = 0x80


def csum_diff(w: Writer, site: Site) -> None:
    """The sum of r3 (r4 bytes) and seed r5 less that of r1 (r2 bytes), 16 bits; sizes are multiples of 4."""
    before, after = w["r2"] & 0xFFFF_FFFF, w["r4"] & 0xFFFF_FFFF
    with w.if_(((before | after) & 3).ne(0), likely=False):
        w.ret(-EINVAL)
    seed = w["r5"] & 0xFFFF_FFFF
    added = _sum(w, seed, w["r3"], after)
    with w.if_(before.eq(0)):
        w.ret(_fold(added))
    with w.if_(after.eq(0)):
        w.ret(_fold(_not32(_sum(w, _not32(seed), w["r1"], before))))
    w.ret(_fold(_fold32(added + _not32(_sum(w, w.i64(0), w["r1"], before)))))


def l3_csum_replace(w: Writer, site: Site) -> None:
    """Fix the checksum at offset r2 of the packet for a field of (r5 & 15) bytes that went from r3 to r4."""
    offset = w["r2"] & 0xFFFF_FFFF
    with w.if_((w["r5"] & ~_FIELD_SIZE).ne(0), likely=False):
        w.ret(-EINVAL)
    place = _checksum_place(w, offset)
    place.store(_replaced(w, place.load("i16", align=1), w["r5"] & _FIELD_SIZE), align=1)
    w.ret(0)


def l4_csum_replace(w: Writer, site: Site) -> None:
    """As l3_csum_replace, for TCP and UDP; MANGLED_ZERO leaves a UDP checksum of 0 (none) alone."""
    known = _FIELD_SIZE | _PSEUDO_HEADER | _MANGLED_ZERO | _MARK_ENFORCE | _IPV6
    offset, flags = w["r2"] & 0xFFFF_FFFF, w["r5"]
    with w.if_((flags & ~known).ne(0), likely=False):
        w.ret(-EINVAL)
    place = _checksum_place(w, offset)
    old = place.load("i16", align=1)
    keeps_none = (flags & _MANGLED_ZERO).ne(0) & (flags & _MARK_ENFORCE).eq(0) & old.eq(0)
    with w.if_(keeps_none):
        w.ret(0)
    new = _replaced(w, old, flags & _FIELD_SIZE)
    is_none = (flags & _MANGLED_ZERO).ne(0) & new.eq(0)
    place.store(is_none.choose(w.value("i16", 0xFFFF), new), align=1)
    w.ret(0)


def csum_update(w: Writer, site: Site) -> None:
    """There is no hardware sum of the packet to update."""
    w.ret(-ENOTSUPP)


def _checksum_place(w: Writer, offset: Value) -> Value:
    bad = offset.ugt(0xFFFF) | (offset & 1).ne(0)
    with w.if_(bad | ~is_inside(w, offset, w.i64(2)), likely=False):
        w.ret(-EFAULT)
    return pointer(w, Pointer.DATA).to("ptr").at(offset)


def _replaced(w: Writer, old: Value, size: Value) -> Value:
    """The checksum after the change, i16; size 0: r4 is a difference already."""
    left, right = w["r3"], w["r4"]
    removed = w.var("i64", 0)
    added = w.var("i64", right & 0xFFFF_FFFF)
    with w.if_(size.eq(0)), w.if_(left.ne(0), likely=False):
        w.ret(-EINVAL)
    with w.unless(size.eq(0)):
        with w.if_(size.ne(2) & size.ne(4), likely=False):
            w.ret(-EINVAL)
        mask = size.eq(2).choose(w.i64(0xFFFF), w.i64(0xFFFF_FFFF))
        removed.set(~left & mask)
        added.set(right & mask)
    total = (~old.to("i64") & 0xFFFF) + removed.get() + added.get()
    return (~_fold(_fold32(total))).to("i16")


def _sum(w: Writer, seed: Value, place: Value, size: Value) -> Value:
    """The 32-bit sum of a multiple of 4 bytes and `seed` (csum_partial)."""
    total = w.var("i64", seed)
    with w.count(0, size, 4) as i:
        total.set(total.get() + place.load("i32", i, align=1).to("i64"))
    return _fold32(total.get())


def _not32(number: Value) -> Value:
    return number ^ 0xFFFF_FFFF


def _fold32(total: Value) -> Value:
    """64 bits added up into 32."""
    once = (total & 0xFFFF_FFFF) + (total >> 32)
    return (once & 0xFFFF_FFFF) + (once >> 32)


def _fold(total: Value) -> Value:
    """32 bits added up into 16."""
    once = (total & 0xFFFF) + (total >> 16)
    return (once & 0xFFFF) + (once >> 16)


CHECKSUMS: Final = {
    "csum_diff": HelperRow(csum_diff, is_small=False),
    "l3_csum_replace": HelperRow(l3_csum_replace, is_small=False),
    "l4_csum_replace": HelperRow(l4_csum_replace, is_small=False),
    "csum_update": HelperRow(csum_update),
}
