"""Which view a map has."""

from __future__ import annotations

from ir.kinds import MapType
from ir.maps import SLOT_ARRAYS
from runtime.maps.live import LiveMap
from runtime.maps.ring import RingView
from runtime.maps.slots import MapOfMapsView, SlotView
from runtime.maps.view import BloomView, MapView, QueueView, View


def view_of(live: LiveMap) -> View:
    """The view that fits the map's type."""
    match live.declared.type:
        case MapType.QUEUE | MapType.STACK:
            return QueueView(live)
        case MapType.BLOOM_FILTER:
            return BloomView(live)
        case MapType.RINGBUF | MapType.PERF_EVENT_ARRAY:
            return RingView(live)
        case MapType.HASH_OF_MAPS:
            return MapOfMapsView(live)
        case type if type in SLOT_ARRAYS:
            return SlotView(live)
        case _:
            return MapView(live)
