"""What is in the maps: entries with their BTF types, for people, for JSON, and from JSON files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from errno import EINVAL
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, Literal

from bpfc.cli.terminal import Json, dim
from bpfc.cli.values import read_value, show_value, type_name
from ir.btf_values import decode_value, encode_value
from ir.diagnostics import Diagnostic, Location, RejectedError, UnreadableError
from ir.kinds import MapType
from ir.maps import HASHES, SLOT_ARRAYS

if TYPE_CHECKING:
    from ir.btf import Btf
    from runtime.maps.live import LiveMap

_LISTED: Final = HASHES | {MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.LPM_TRIE}
SHOWN: Final = 10


def describe_map(btf: Btf | None, live: LiveMap) -> Json | None:
    """The entries of a map that has keys and values: those that are not zero, in the order of their keys."""
    declared = live.declared
    if declared.type not in _LISTED - SLOT_ARRAYS or declared.initial is not None:
        return None
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
    what = "entries" if "hash" in said["type"] or "trie" in said["type"] else "entries not zero"
    yield f"{name}: {said['type']}, {len(entries)} of {said['max_entries']} {what}"
    for entry in entries[:limit]:
        value = _across_cpus(entry["value"]) if said["per_cpu"] else show_value(entry["value"], said["value"])
        yield f"  {show_value(entry['key'], said['key'])}: {value}"
    if limit is not None and len(entries) > limit:
        yield dim(f"  and {len(entries) - limit} more (-v shows all)")


def fill_map(btf: Btf | None, live: LiveMap, path: str) -> None:
    """Put the entries of a JSON file into a map.

    It holds an object of keys and values, a list of {"key", "value"}, or for a queue a list of values. Raises
    UnreadableError when it is something else, RejectedError when its entries are none of this map's.
    """
    try:
        with open(path) as file:
            content = json.load(file)
    except ValueError as error:
        raise UnreadableError([Diagnostic("bad-json", f"not JSON: {error}", Location(file=path))]) from None
    if isinstance(content, dict) and isinstance(content.get("entries"), list):
        content = content["entries"]
    declared = live.declared
    if declared.type in (MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER):
        for value in content:
            live.push(_encode(btf, declared.value_btf_id, declared.value_size, value))
        return
    for key, value in _pairs(content, path):
        raw_key = _encode(btf, declared.key_btf_id, declared.key_size, key, declared.type is MapType.LPM_TRIE)
        live.update(raw_key, _encode_values(btf, live, value))


def _pairs(content: object, path: str) -> Iterator[tuple[object, object]]:
    if isinstance(content, dict):
        yield from content.items()
        return
    for entry in content if isinstance(content, list) else [None]:
        if not isinstance(entry, dict) or not {"key", "value"} <= set(entry):
            said = 'wanted {"KEY": VALUE, ...} or [{"key": KEY, "value": VALUE}, ...]'
            raise UnreadableError([Diagnostic("bad-map-file", said, Location(file=path))])
        yield entry["key"], entry["value"]


def _encode_values(btf: Btf | None, live: LiveMap, value: object) -> bytes:
    """A value, or for a per-cpu map a list with one for each cpu, or one for all."""
    declared = live.declared
    id, size = declared.value_btf_id, declared.value_size
    if not live.is_per_cpu:
        return _encode(btf, id, size, value)
    if isinstance(value, list) and len(value) == live.cpus:
        return b"".join(_encode(btf, id, size, one) for one in value)
    return _encode(btf, id, size, value) * live.cpus


def _decode(btf: Btf | None, id: int, raw: bytes) -> object:
    if btf is not None and id:
        return decode_value(btf, id, raw)
    return int.from_bytes(raw, sys.byteorder) if len(raw) in (1, 2, 4, 8) else raw


def _encode(btf: Btf | None, id: int, size: int, value: object, is_prefix: bool = False) -> bytes:
    """A key or value from JSON: by BTF, a number, hexadecimal, a list of bytes or an IP address."""
    if isinstance(value, str):
        address = _address(value, size, is_prefix)
        if address is not None:
            return address
        read = read_value(value)
        value = read if not isinstance(read, str) or btf is None or not id else value
    if btf is not None and id:
        return encode_value(btf, id, value)
    if isinstance(value, int) and -(1 << 8 * size - 1) <= value < 1 << 8 * size:
        return (value & (1 << 8 * size) - 1).to_bytes(size, sys.byteorder)
    if isinstance(value, bytes) and len(value) == size:
        return value
    if (
        isinstance(value, list)
        and len(value) == size
        and all(type(one) is int and 0 <= one < 256 for one in value)
    ):
        return bytes(value)
    said = f"{value!r:.80} is no key or value of {size} bytes"
    raise RejectedError([Diagnostic("bad-value", said, errno=EINVAL)])


def _address(text: str, size: int, is_prefix: bool) -> bytes | None:
    """An IP address, or an LPM trie's key from `10.0.0.0/8`, when it is `size` bytes long."""
    try:
        if is_prefix:
            network = ip_network(text, strict=False)
            raw = network.prefixlen.to_bytes(4, sys.byteorder) + network.network_address.packed
        else:
            raw = ip_address(text).packed
    except ValueError:
        return None
    return raw if len(raw) == size else None


def _across_cpus(values: Sequence[object]) -> str:
    if all(isinstance(value, int) for value in values):
        return str(sum(value for value in values if isinstance(value, int)))
    shown = [f"cpu {cpu} {show_value(value)}" for cpu, value in enumerate(values) if _is_set(value)]
    return ", ".join(shown) or "zero"


def _is_set(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_is_set(one) for one in value.values())
    return any(value) if isinstance(value, bytes | list) else bool(value)
