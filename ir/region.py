"""A region: which memory a pointer points into.

It chooses the bounds that an unproved access is checked against, and whether a value is lowered as an LLVM pointer. It is a
hint about the *program*, not a proof: a wrong one costs a trap, never safety, because checks compare real addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import final

from ir.core import Module, Value
from ir.object import Map


class RegionKind(Enum):
    """Sorts of memory."""

    SCALAR = "scalar"  # not an address
    CONTEXT = "context"
    FRAME = "frame"  # of the function `owner`
    PACKET = "packet"
    PACKET_END = "packet-end"
    PACKET_META = "packet-meta"
    MEMORY = "memory"  # the raw memory that r1 gives to a program without a context
    MAP = "map"  # a map itself: `name`
    MAP_VALUE = "map-value"  # a value of map `name`
    FUNCTION = "function"
    OBJECT = "object"  # a structure behind the context: `name` (ir/hook_objects.py)
    GIVEN = "given"  # by a helper, and no part of a frame: a ring buffer's record, a kernel object
    UNKNOWN = "unknown"  # some address


@final
@dataclass(frozen=True, slots=True)
class Region:
    """A region; `name` is the map's or the frame owner's. `origin` is the one value all such pointers come from, if one.

    `parts`: the kinds and names of the regions that an UNKNOWN one is one of, when these are few; empty for any.
    """

    kind: RegionKind
    name: str = ""
    origin: Value | None = None
    parts: frozenset[tuple[RegionKind, str]] = frozenset()


MOST_PARTS = 4
INNER = "[]"  # after a map's name: a map found in it
UNKNOWN = Region(RegionKind.UNKNOWN)
SCALAR = Region(RegionKind.SCALAR)


def join(a: Region, b: Region) -> Region:
    """The region of a value that is sometimes one, sometimes the other."""
    if a == b:
        return a
    if a.kind is b.kind and a.name == b.name and a.kind not in (RegionKind.SCALAR, RegionKind.UNKNOWN):
        return Region(a.kind, a.name)
    if UNKNOWN in (a, b):
        return UNKNOWN
    parts = _parts(a) | _parts(b)
    return Region(RegionKind.UNKNOWN, parts=parts) if len(parts) <= MOST_PARTS else UNKNOWN


def _parts(region: Region) -> frozenset[tuple[RegionKind, str]]:
    return region.parts or frozenset({(region.kind, region.name)})


def holds_maps(module: Module, name: str) -> bool:
    """Whether the values of map `name` are maps."""
    map_ = module.maps.get(name)
    return map_ is not None and map_.inner is not None


def map_named(module: Module, name: str) -> Map | None:
    """The map that a region names: declared, or the template of the maps in one (`outer[]`)."""
    if name.endswith(INNER):
        outer = module.maps.get(name.removesuffix(INNER))
        return None if outer is None else outer.inner
    return module.maps.get(name)
