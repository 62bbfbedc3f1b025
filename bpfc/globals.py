"""Global variables by name, typed by BTF: `obj.rodata["debug"] = 1`, `rt.data.limit`.

Before the start they are the initial content of the object's data maps, afterwards the maps' live memory.
Without BTF their sizes are those of their ELF symbols, and they are numbers or bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from errno import EINVAL, ENOENT
from typing import Any, Final, Literal, final

from ir.btf_types import DataSection, Variable
from ir.btf_values import decode_value, encode_value
from ir.diagnostics import Diagnostic, Location, RejectedError, known_names
from ir.object import Map, Object

SECTIONS: Final = ("rodata", "data", "bss", "kconfig")
Read = Callable[[str], bytes]
Write = Callable[[str, int, bytes], None]


@final
@dataclass(frozen=True, slots=True)
class GlobalVariable:
    """A variable: `size` bytes at byte `offset` of the one value of map `map`; `type_id` 0 without BTF."""

    name: str
    section: str
    map: str
    offset: int
    size: int
    type_id: int = 0


@final
class Globals(MutableMapping[str, object]):
    """Variables by name, and as attributes. Setting one raises RejectedError when the value does not fit."""

    def __init__(
        self, variables: Mapping[str, GlobalVariable], object: Object, read: Read, write: Write
    ) -> None:
        self._variables, self._btf, self._big_endian = variables, object.btf, object.big_endian
        self._object_name = object.name
        self._read, self._write = read, write

    @property
    def variables(self) -> Mapping[str, GlobalVariable]:
        """Where each variable lies."""
        return self._variables

    def __getitem__(self, name: str) -> object:
        variable = self._variables[name]
        raw = self._read(variable.map)[variable.offset : variable.offset + variable.size]
        if self._btf is not None and variable.type_id:
            return decode_value(self._btf, variable.type_id, raw)
        return int.from_bytes(raw, self._order) if variable.size in (1, 2, 4, 8) else raw

    def __setitem__(self, name: str, value: object) -> None:
        variable = self._variables.get(name)
        if variable is None:
            known = known_names(self._variables)
            said = f"no global variable '{name}' (there are: {known})"
            raise RejectedError(
                [Diagnostic("no-such-variable", said, Location(file=self._object_name), errno=ENOENT)]
            )
        self._write(variable.map, variable.offset, self._encode(variable, value))

    def __delitem__(self, name: str) -> None:
        raise TypeError("variables of an object cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no global variable '{name}'") from None

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            self[name] = value

    def __dir__(self) -> list[str]:
        return [*self._variables, "variables"]

    def __repr__(self) -> str:
        return f"Globals({dict(self)!r})"

    @property
    def _order(self) -> Literal["big", "little"]:
        return "big" if self._big_endian else "little"

    def _encode(self, variable: GlobalVariable, value: object) -> bytes:
        if self._btf is not None and variable.type_id:
            try:
                return encode_value(self._btf, variable.type_id, value)
            except RejectedError as error:
                first = error.diagnostics[0]
                said = f"variable '{variable.name}': {first.message}"
                at = Location(file=self._object_name)
                raise RejectedError([replace(first, message=said, at=at)]) from None
        if isinstance(value, bytes | bytearray | memoryview) and len(value) == variable.size:
            return bytes(value)
        if isinstance(value, int) and -(1 << 8 * variable.size - 1) <= value < 1 << 8 * variable.size:
            return (value & (1 << 8 * variable.size) - 1).to_bytes(variable.size, self._order)
        said = f"{value!r:.80} is no value of '{variable.name}', wanted {variable.size} bytes"
        raise RejectedError([Diagnostic("bad-value", said, Location(file=self._object_name), errno=EINVAL)])


def find_variables(object: Object, kinds: tuple[str, ...] = SECTIONS) -> dict[str, GlobalVariable]:
    """The variables in sections of these kinds ("data": .data and .data.*), by name."""
    found: dict[str, GlobalVariable] = {}
    for map_ in object.maps.values():
        if map_.initial is not None and map_.section.split(".")[1:2] and map_.section.split(".")[1] in kinds:
            for variable in _variables_of(object, map_):
                found.setdefault(variable.name, variable)
    return found


def with_content(object: Object, map: str, offset: int, data: bytes) -> Object:
    """The object with other bytes in a data map. Refuses words that hold an address: these are not values."""
    declared = object.maps[map]
    assert declared.initial is not None
    for start, size in declared.relocated:
        if start < offset + len(data) and offset < start + size:
            said = f"byte {start} of {map} holds an address, which is known at the start only"
            raise RejectedError(
                [Diagnostic("relocated-variable", said, Location(file=object.name), errno=EINVAL)]
            )
    initial = declared.initial[:offset] + data + declared.initial[offset + len(data) :]
    return replace(object, maps={**object.maps, map: replace(declared, initial=initial)})


def _variables_of(object: Object, map: Map) -> Iterator[GlobalVariable]:
    assert map.initial is not None
    if map.section == ".kconfig":
        yield from _kconfig_variables(object, map)
        return
    seen: set[str] = set()
    btf = object.btf
    section = btf.type(map.value_btf_id) if btf is not None and map.value_btf_id else None
    places = {symbol.name: symbol for symbol in object.symbols if symbol.section == map.section}
    if btf is not None and isinstance(section, DataSection):
        for entry in section.entries:
            variable = btf.type(entry.type_id)
            if not isinstance(variable, Variable):
                continue
            symbol = places.get(variable.name)
            offset = symbol.offset if symbol is not None else entry.offset
            size = btf.size_of(variable.type_id) or entry.size
            if offset + size <= len(map.initial):
                seen.add(variable.name)
                yield GlobalVariable(variable.name, map.section, map.name, offset, size, variable.type_id)
    for name, symbol in places.items():
        if name not in seen and symbol.size and not symbol.is_function:
            yield GlobalVariable(name, map.section, map.name, symbol.offset, symbol.size)


def _kconfig_variables(object: Object, map: Map) -> Iterator[GlobalVariable]:
    btf = object.btf
    for extern in object.externs:
        if extern.section == ".kconfig" and btf is not None:
            variable = btf.type(extern.btf_id)
            type_id = variable.type_id if isinstance(variable, Variable) else extern.btf_id
            yield GlobalVariable(
                extern.name, map.section, map.name, extern.offset, btf.size_of(type_id), type_id
            )
