"""Filling maps from JSON files: `bpfc run --map NAME=F.json`.

{"KEY": VALUE, ...}                        keys as text: a number, hexadecimal (hex:..), an IP address
[{"key": KEY, "value": VALUE}, ...]        as `bpfc -j run` shows a map, or the map itself from there
[VALUE, ...]                               queues, stacks and bloom filters
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from errno import EINVAL
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from bpfc.cli.values import read_hex, read_value
from ir.btf_types import Array
from ir.btf_values import encode_value
from ir.diagnostics import Diagnostic, Location, RejectedError, UnreadableError
from ir.kinds import MapType
from runtime.maps.slots import MapOfMapsView, SlotView

if TYPE_CHECKING:
    from bpfc.running import Runtime
    from ir.btf import Btf
    from runtime.maps.live import LiveMap


def fill_map(runtime: Runtime, name: str, path: str) -> None:
    """Put the entries of a JSON file into map `name`.

    Raises UnreadableError when it is no such file, RejectedError when its entries are none of this map's.
    """
    try:
        with open(path) as file:
            content = json.load(file)
    except ValueError as error:
        raise UnreadableError([Diagnostic("bad-json", f"not JSON: {error}", Location(file=path))]) from None
    if isinstance(content, dict) and isinstance(content.get("entries"), list):
        content = content["entries"]
    btf, view = runtime.loaded.object.btf, runtime.world.maps[name]
    live, declared = view.live, view.live.declared
    if declared.type in (MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER):
        for value in content if isinstance(content, list) else [content]:
            live.push(_encode(btf, declared.value_btf_id, declared.value_size, value))
        return
    for key, value in _pairs(content, path):
        if isinstance(view, SlotView):
            view[_index(key)] = _occupant(runtime, value)
            continue
        raw_key = _encode(btf, declared.key_btf_id, declared.key_size, key, declared.type is MapType.LPM_TRIE)
        if isinstance(view, MapOfMapsView):
            view[raw_key] = _occupant(runtime, value)
        else:
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


def _encode(btf: Btf | None, id: int, size: int, value: object, is_prefix: bool = False) -> bytes:
    """A key or value from JSON: an IP address, by BTF, or a number or bytes of the right size."""
    if isinstance(value, str):
        address = _address(value, size, is_prefix)
        if address is not None:
            return address
    if btf is not None and id:
        is_array = isinstance(btf.type(btf.strip(id)), Array)
        return encode_value(btf, id, read_value(value) if isinstance(value, str) and not is_array else value)
    raw = _raw(value, size)
    if raw is None:
        said = f"{value!r:.80} is no key or value of {size} bytes"
        raise RejectedError([Diagnostic("bad-value", said, errno=EINVAL)])
    return raw


def _raw(value: object, size: int) -> bytes | None:
    """A number, hexadecimal text or a list of bytes as `size` bytes; None for anything else."""
    if isinstance(value, str) and size not in (1, 2, 4, 8):
        value = read_hex(value.removeprefix("hex:"))
    if isinstance(value, str):
        value = read_value(value)
    if isinstance(value, int) and -(1 << 8 * size - 1) <= value < 1 << 8 * size:
        return (value & (1 << 8 * size) - 1).to_bytes(size, sys.byteorder)
    if isinstance(value, list) and all(type(one) is int and 0 <= one < 256 for one in value):
        value = bytes(value)
    return value if isinstance(value, bytes) and len(value) == size else None


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


def _index(key: object) -> int:
    number = read_value(key) if isinstance(key, str) else key
    if not isinstance(number, int):
        raise RejectedError([Diagnostic("bad-value", f"{key!r:.80} is no index", errno=EINVAL)])
    return number


def _occupant(runtime: Runtime, value: object) -> object:
    """What a slot is filled with: a program or map by its name, else a number."""
    if not isinstance(value, str):
        return value
    return runtime.world.maps[value] if value in runtime.world.maps else runtime[value]
