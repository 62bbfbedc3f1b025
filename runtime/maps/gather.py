"""The maps an object starts with: new ones, ones that it shares with other objects, and pinned ones."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from errno import EINVAL, ENOENT
from pathlib import Path
from typing import final

from ir.diagnostics import Diagnostic, RejectedError, known_names
from ir.kinds import MapType
from ir.maps import needs_cpus
from ir.object import Map
from runtime.maps.errors import map_error
from runtime.maps.host import Operations
from runtime.maps.live import LiveMap, create
from runtime.maps.pin import open_pin, pin
from runtime.maps.view import View
from runtime.memory import Pool

_SAME = ("type", "key_size", "value_size", "max_entries", "flags")


@final
@dataclass(frozen=True, slots=True)
class Sources:
    """Where maps come from: `shared` by the name that this object calls them, `pins`: the folder for maps that the
    object declares pinned by name (LIBBPF_PIN_BY_NAME); without it they are maps like any other.
    """

    shared: Mapping[str, View] = field(default_factory=dict)
    pins: Path | None = None


def gather(
    declared: Mapping[str, Map], pool: Pool, operations: Operations, cpus: int, sources: Sources
) -> dict[str, LiveMap]:
    """The live maps by name. RejectedError when one can't be made, or is unlike what it should be shared with."""
    unknown = sorted(set(sources.shared) - set(declared))
    if unknown:
        said = f"no map '{unknown[0]}' to share (maps: {known_names(declared)})"
        raise RejectedError([Diagnostic("no-such-map", said, errno=ENOENT)])
    found: dict[str, LiveMap] = {}
    done = False
    try:
        for name, map in declared.items():
            found[name] = _one(map, pool, operations, cpus, sources)
        done = True
    finally:
        if not done:
            for live in found.values():
                live.close()
    return found


def _one(declared: Map, pool: Pool, operations: Operations, cpus: int, sources: Sources) -> LiveMap:
    other = sources.shared.get(declared.name)
    if other is not None:
        return _shared(declared, other.live, cpus)
    if not declared.is_pinned or sources.pins is None:
        return create(declared, pool, operations, cpus, secrets.randbits(64))
    path = sources.pins / declared.name
    if path.exists():
        return open_pin(path, operations, declared, cpus)
    live = create(declared, pool, operations, cpus, secrets.randbits(64))
    pin(live, path)
    return live


def _shared(declared: Map, live: LiveMap, cpus: int) -> LiveMap:
    for name in _SAME:
        wanted, has = getattr(declared, name), getattr(live.declared, name)
        if wanted != has:
            said = (
                f"can't be shared: {name} is {_word(wanted)} here, {_word(has)} in map {live.declared.name}"
            )
            raise map_error(declared, EINVAL, said)
    if needs_cpus(live.declared.type) and live.cpus < cpus:
        raise map_error(declared, EINVAL, f"can't be shared: it has room for {live.cpus} cpus, not {cpus}")
    return live.share()


def _word(number: int) -> str:
    return number.name.lower() if isinstance(number, MapType) else str(number)
