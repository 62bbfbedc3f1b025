"""What is in the maps: entries with their BTF types, for people and for JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from bpfc.cli.terminal import Json, dim
from bpfc.cli.values import show_value, type_name
from ir.btf_values import decode_value
from ir.kinds import MapType
from ir.maps import HASHES
from runtime.maps.ring import RingView
from runtime.maps.slots import MapOfMapsView, SlotView
from runtime.maps.view import QueueView, View

if TYPE_CHECKING:
    from ir.btf import Btf
    from runtime.maps.live import LiveMap

_LISTED: Final = (HASHES | {MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.LPM_TRIE}) - {MapType.HASH_OF_MAPS}
SHOWN: Final = 10


def describe_map(btf: Btf | None, view: View) -> Json | None:
    """What is in a map; None for one that has nothing to show. The events of a ring buffer are taken out of it."""
    declared = view.live.declared
    if declared.initial is not None:
        return None
    if declared.type in _LISTED:
        return _describe_entries(btf, view.live)
    entries: list[Json]
    match view:
        case SlotView() | MapOfMapsView():
            entries = [{"key": key, "value": _name_of(thing)} for key, thing in view.items()]
        case RingView():
            entries = [{"key": number, "value": event} for number, event in enumerate(view)]
        case QueueView():
            entries = [{"key": number, "value": view.pop()} for number in range(len(view))]
        case _:
            return None
    return {
        "type": declared.type.name.lower(),
        "key": "",
        "value": "",
        "max_entries": declared.max_entries,
        "per_cpu": False,
        "entries": entries,
    }


def _describe_entries(btf: Btf | None, live: LiveMap) -> Json:
    """The entries of a map that has keys and values: those that are not zero, in the order of their keys."""
    declared = live.declared
    key_type = type_name(btf, declared.key_btf_id)
    order: Literal["big", "little"] = "big" if "__be" in key_type else sys.byteorder
    items = sorted(live.items(), key=lambda item: int.from_bytes(item[0], order))
    if declared.type not in HASHES and declared.type is not MapType.LPM_TRIE:
        items = [item for item in items if any(item[1])]
    size = declared.value_size
    return {
        "type": declared.type.name.lower(),
        "key": key_type,
        "value": type_name(btf, declared.value_btf_id),
        "max_entries": declared.max_entries,
        "per_cpu": live.is_per_cpu,
        "entries": [
            {
                "key": _decode(btf, declared.key_btf_id, key),
                "value": [
                    _decode(btf, declared.value_btf_id, raw[i : i + size]) for i in range(0, len(raw), size)
                ]
                if live.is_per_cpu
                else _decode(btf, declared.value_btf_id, raw),
            }
            for key, raw in items
        ],
    }


def map_lines(name: str, said: Mapping[str, Any], limit: int | None = SHOWN) -> Iterator[str]:
    """A map for people; per-cpu numbers are added up."""
    entries = said["entries"]
    yield f"{name}: {said['type']}, {_count(said)}"
    for entry in entries[:limit]:
        value = _across_cpus(entry["value"]) if said["per_cpu"] else show_value(entry["value"], said["value"])
        yield f"  {show_value(entry['key'], said['key'])}: {value}"
    if limit is not None and len(entries) > limit:
        yield dim(f"  and {len(entries) - limit} more (-v shows all)")


def _count(said: Mapping[str, Any]) -> str:
    """How many entries are meant by what is shown of a map of this type."""
    count, room = len(said["entries"]), said["max_entries"]
    match said["type"]:
        case "ringbuf" | "perf_event_array":
            return f"{count} events"
        case "array" | "percpu_array":
            return f"{count} of {room} entries not zero"
        case _:
            return f"{count} of {room} entries"


def _decode(btf: Btf | None, id: int, raw: bytes) -> object:
    if btf is not None and id:
        return decode_value(btf, id, raw)
    return int.from_bytes(raw, sys.byteorder) if len(raw) in (1, 2, 4, 8) else raw


def _name_of(thing: object) -> object:
    """A program or map by its name, a number as it is."""
    return getattr(getattr(thing, "program", thing), "name", thing)


def _across_cpus(values: Sequence[object]) -> str:
    if all(isinstance(value, int) for value in values):
        return str(sum(value for value in values if isinstance(value, int)))
    shown = [f"cpu {cpu} {show_value(value)}" for cpu, value in enumerate(values) if _is_set(value)]
    return ", ".join(shown) or "zero"


def _is_set(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_is_set(one) for one in value.values())
    return any(value) if isinstance(value, bytes | list) else bool(value)
