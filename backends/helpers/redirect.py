"""Redirect helpers: they note in the run state where the packet shall go; the runtime reports or acts on it.

run + REDIRECT:  kind 4 (RedirectKind), index 4 (interface or map index), flags 8, map 8 (address of its
block), unused 8
"""

from __future__ import annotations

from enum import IntEnum
from errno import EINVAL
from typing import Final

from backends import abi
from backends.helpers.row import HelperRow, Site
from backends.maps.chain import find, hash_of
from backends.maps.shape import Shape
from backends.maps.slots import handle_at
from backends.writer import Value, Writer
from ir.kinds import MapType, ProgramType
from ir.object import Map

_BROADCAST: Final = 1 << 3
_EXCLUDE_INGRESS: Final = 1 << 4
_ACTIONS: Final = 3
_XDP_ABORTED: Final = 0
_XDP_REDIRECT: Final = 4
_TC_ACT_SHOT: Final = 2
_TC_ACT_REDIRECT: Final = 7
_INGRESS: Final = 1


class RedirectKind(IntEnum):
    """How the packet shall go on."""

    NONE = 0
    INTERFACE = 1
    MAP = 2
    NEIGHBOUR = 3
    PEER = 4


def redirect(w: Writer, site: Site) -> None:
    """To interface r1: XDP_REDIRECT or TC_ACT_REDIRECT; flags r2 that do not exist abort or shoot."""
    is_xdp = site.program_type is ProgramType.XDP
    with w.if_((w["r2"] & ~(0 if is_xdp else _INGRESS)).ne(0), likely=False):
        w.ret(_XDP_ABORTED if is_xdp else _TC_ACT_SHOT)
    _note(w, RedirectKind.INTERFACE, w["r1"], w["r2"], w.i64(0))
    w.ret(_XDP_REDIRECT if is_xdp else _TC_ACT_REDIRECT)


def clone_redirect(w: Writer, site: Site) -> None:
    """A copy to interface r2; the program goes on with its own."""
    with w.if_((w["r3"] & ~_INGRESS).ne(0), likely=False):
        w.ret(-EINVAL)
    _note(w, RedirectKind.INTERFACE, w["r2"], w["r3"], w.i64(0))
    w.ret(0)


def redirect_peer(w: Writer, site: Site) -> None:
    """To the peer of interface r1."""
    with w.if_(w["r2"].ne(0), likely=False):
        w.ret(_TC_ACT_SHOT)
    _note(w, RedirectKind.PEER, w["r1"], w["r2"], w.i64(0))
    w.ret(_TC_ACT_REDIRECT)


def redirect_neigh(w: Writer, site: Site) -> None:
    """To the neighbour of interface r1 that r2 (r3 bytes) says."""
    with w.if_(w["r4"].ne(0), likely=False):
        w.ret(_TC_ACT_SHOT)
    _note(w, RedirectKind.NEIGHBOUR, w["r1"], w["r4"], w.i64(0))
    w.ret(_TC_ACT_REDIRECT)


def redirect_map(w: Writer, site: Site) -> None:
    """XDP_REDIRECT to entry r2 of map r1; without such an entry the action in the low bits of r3."""
    map = site.known_map
    is_device = map.type in (MapType.DEVMAP, MapType.DEVMAP_HASH)
    known = _ACTIONS | (_BROADCAST | _EXCLUDE_INGRESS if is_device else 0)
    flags = w["r3"]
    with w.if_((flags & ~known).ne(0), likely=False):
        w.ret(_XDP_ABORTED)
    found = _has_entry(w, map)
    if is_device:
        found = found | (flags & _BROADCAST).ne(0)
    with w.unless(found, likely=True):
        _note(w, RedirectKind.NONE, w.i64(0), w.i64(0), w.i64(0))
        w.ret(flags & _ACTIONS)
    _note(w, RedirectKind.MAP, w["r2"], flags, w["r1"].to("i64"))
    w.ret(_XDP_REDIRECT)


def _has_entry(w: Writer, map: Map) -> Value:
    shape = Shape(map.type, map)
    if map.type is not MapType.DEVMAP_HASH:
        return handle_at(w, shape, w["r1"], w["r2"] & 0xFFFF_FFFF).ne(0)
    key = w.local(8)
    key.store(w["r2"].to("i32"))
    return find(w, shape, w["r1"], key, hash_of(w, shape, w["r1"], key)).get().ne(0)


def _note(w: Writer, kind: RedirectKind, index: Value, flags: Value, map: Value) -> None:
    place = w["run"].at(abi.REDIRECT)
    place.store(w.i32(kind))
    place.store(index.to("i32"), 4)
    place.store(flags, 8)
    place.store(map, 16)


REDIRECTS: Final = {
    "redirect": HelperRow(redirect),
    "clone_redirect": HelperRow(clone_redirect),
    "redirect_peer": HelperRow(redirect_peer),
    "redirect_neigh": HelperRow(redirect_neigh),
    "redirect_map": HelperRow(redirect_map, needs_map=True),
}
