"""Arrays whose entries name programs, maps, devices, cpus or sockets, as Python sees them."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from errno import EINVAL
from typing import Protocol, final, runtime_checkable

from ir import map_layout
from ir.btf import Btf
from ir.kinds import MapType
from ir.maps import is_template
from runtime.maps.errors import map_error
from runtime.maps.live import LiveMap
from runtime.maps.view import View


@runtime_checkable
class TailCallee(Protocol):
    """A program that others can jump into, at `entry_address`; it is told in how many tables it is, and may refuse."""

    @property
    def entry_address(self) -> int: ...

    def join_table(self) -> None: ...

    def leave_table(self) -> None: ...


@final
@dataclass(frozen=True, slots=True)
class Occupant:
    """What the host put into a slot: the object, the handle that code uses and the number that Linux would
    show.
    """

    thing: object
    handle: int
    number: int


@final
class SlotView(View, MutableMapping[int, object]):
    """Index -> program (prog arrays), map (arrays of maps) or number (interface, queue size, socket)."""

    def __init__(self, live: LiveMap, btf: Btf | None = None) -> None:
        super().__init__(live, btf)
        self._occupants: dict[int, Occupant] = {}

    def __getitem__(self, index: int) -> object:
        return self._occupants[index].thing

    def __setitem__(self, index: int, thing: object) -> None:
        if not isinstance(index, int):
            raise map_error(self.live.declared, EINVAL, f"has numbers for keys, not {index!r:.80}")
        occupant = self._occupant(thing)
        if isinstance(thing, TailCallee):
            thing.join_table()
        is_in = False
        try:
            self.live.put_slot(index, occupant.handle, occupant.number)
            is_in = True
        finally:
            if not is_in and isinstance(thing, TailCallee):
                thing.leave_table()
        self._leave(index)
        self._occupants[index] = occupant

    def __delitem__(self, index: int) -> None:
        if index not in self._occupants:
            raise KeyError(index)
        self.live.put_slot(index, 0, 0)
        self._leave(index)
        del self._occupants[index]

    def _leave(self, index: int) -> None:
        occupant = self._occupants.get(index)
        if occupant is not None and isinstance(occupant.thing, TailCallee):
            occupant.thing.leave_table()

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._occupants))

    def __len__(self) -> int:
        return len(self._occupants)

    def _occupant(self, thing: object) -> Occupant:
        declared = self.live.declared
        if declared.type is MapType.PROG_ARRAY:
            if isinstance(thing, TailCallee):
                return Occupant(thing, thing.entry_address, 1)
            raise map_error(declared, EINVAL, f"holds running programs, not {thing!r}")
        if declared.type is MapType.ARRAY_OF_MAPS:
            return inner_occupant(self.live, thing)
        if isinstance(thing, bytes) and len(thing) == declared.value_size:
            return Occupant(thing, 1, int.from_bytes(thing, self.live.host.order))
        if isinstance(thing, int) and 0 <= thing < 1 << 8 * declared.value_size:
            return Occupant(thing, 1, thing)
        raise map_error(declared, EINVAL, f"holds numbers of {declared.value_size} bytes, not {thing!r}")


def inner_occupant(outer: LiveMap, thing: object) -> Occupant:
    """A map as the content of a map of maps. RejectedError when it is unlike the template."""
    if not isinstance(thing, View):
        raise map_error(outer.declared, EINVAL, f"holds maps, not {thing!r}")
    template, found = outer.declared.inner, thing.live.declared
    assert template is not None, "a map of maps has a template"
    fields = ("type", "key_size", "value_size", "flags", "max_entries")
    for name in fields:
        wanted, got = getattr(template, name), getattr(found, name)
        if wanted != got and not (name == "max_entries" and is_template(template)):
            raise map_error(outer.declared, EINVAL, f"holds maps of {name} {wanted}, {found.name} has {got}")
    return Occupant(thing, thing.live.address, 1)


@final
class MapOfMapsView(View, MutableMapping[bytes, object]):
    """A hash from keys to maps."""

    def __init__(self, live: LiveMap, btf: Btf | None = None) -> None:
        super().__init__(live, btf)
        self._occupants: dict[bytes, Occupant] = {}

    def __getitem__(self, key: bytes) -> object:
        return self._occupants[key].thing

    def __setitem__(self, key: bytes, thing: object) -> None:
        occupant = inner_occupant(self.live, thing)
        self.live.update(
            key, occupant.handle.to_bytes(map_layout.value_bytes(self.live.declared), self.live.host.order)
        )
        self._occupants[key] = occupant

    def __delitem__(self, key: bytes) -> None:
        if key not in self._occupants:
            raise KeyError(key)
        self.live.delete(key)
        del self._occupants[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(sorted(self._occupants))

    def __len__(self) -> int:
        return len(self._occupants)
