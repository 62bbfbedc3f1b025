"""Which view a map has."""

from __future__ import annotations

from ir.btf import Btf
from ir.kinds import MapType
from ir.maps import CELLS, SLOT_ARRAYS
from runtime.maps.insn_array import InsnArrayView
from runtime.maps.live import LiveMap
from runtime.maps.ring import RingView, UserRingView
from runtime.maps.slots import MapOfMapsView, SlotView
from runtime.maps.view import BloomView, CellView, MapView, QueueView, View


def view_of(live: LiveMap, btf: Btf | None = None) -> View:
    """The view that fits the map's type."""
    match live.declared.type:
        case MapType.QUEUE | MapType.STACK:
            return QueueView(live, btf)
        case MapType.BLOOM_FILTER:
            return BloomView(live, btf)
        case MapType.RINGBUF | MapType.PERF_EVENT_ARRAY:
            return RingView(live, btf)
        case MapType.USER_RINGBUF:
            return UserRingView(live, btf)
        case type if type in CELLS:
            return CellView(live, btf)
        case MapType.INSN_ARRAY:
            return InsnArrayView(live, btf)
        case MapType.HASH_OF_MAPS:
            return MapOfMapsView(live, btf)
        case type if type in SLOT_ARRAYS:
            return SlotView(live, btf)
        case _:
            return MapView(live, btf)
