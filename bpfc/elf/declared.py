"""Maps declared by BTF in section .maps: a variable for each, whose struct's members encode the definition.

struct { __uint(type, BPF_MAP_TYPE_ARRAY);     int (*type)[2];           a number is the length of an array
         __type(key, __u32);                   __u32 *key;               a type is what a pointer points at
         __array(values, struct inner);        struct inner *values[];   a template, or programs
} name SEC(".maps");
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

from bpfc.elf.file import ElfRelocation
from bpfc.elf.image import Image
from ir.btf import Btf
from ir.btf_types import (
    Array,
    BtfKind,
    DataSection,
    Enum,
    Linkage,
    Member,
    Pointer,
    Prototype,
    Struct,
    Variable,
)
from ir.diagnostics import DiagnosticError, Location
from ir.kinds import MapType
from ir.object import Map

EOPNOTSUPP = 95
MAPS_OF_MAPS = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)
_POINTER_SIZE = 8
_NUMBERS = ("type", "max_entries", "map_flags", "numa_node", "key_size", "value_size", "pinning", "map_extra")


@final
@dataclass(slots=True)
class _Definition:
    """The members of a map's struct as far as they are read."""

    numbers: dict[str, int]
    key_btf_id: int = 0
    value_btf_id: int = 0
    inner: Map | None = None
    values_at: int | None = None


def read_declared(image: Image) -> list[Map]:
    """The maps of section .maps, in the order of their offsets; what is wrong is noted in `image`."""
    section = image.file.find(".maps")
    if section is None or not section.size:
        return []
    at, btf = image.file.at(section), image.btf
    found = next(btf.find(".maps", BtfKind.DATASEC), None) if btf is not None else None
    if btf is None or found is None:
        image.problem("map-without-type", "section .maps is not described by BTF", at)
        return []
    slots = {}
    for relocation in image.relocations(section):
        slots[relocation.offset] = relocation
    places = btf.type(found)
    assert isinstance(places, DataSection)
    maps: list[Map] = []
    for entry in sorted(places.entries, key=lambda entry: entry.offset):
        where = replace(at, offset=entry.offset)
        try:
            read = _read_variable(image, btf, entry.type_id, section.size - entry.offset, where)
        except DiagnosticError as error:
            image.problems += error.diagnostics
            continue
        if read is None:
            continue
        declared, values_at = read
        declared = replace(declared, section=section.name, offset=entry.offset)
        if values_at is not None:
            begin, end = entry.offset + values_at, entry.offset + max(entry.size, values_at)
            filled = {place: slots.pop(place) for place in sorted(slots) if begin <= place < end}
            declared = replace(declared, slots=tuple(_slots(image, declared, begin, filled)))
        maps.append(declared)
    for offset, relocation in sorted(slots.items()):
        said = f"'{relocation.symbol.name}' does not fill the values of a map"
        image.problem("bad-map-value", said, replace(at, offset=offset))
    return maps


def _read_variable(image: Image, btf: Btf, id: int, room: int, at: Location) -> tuple[Map, int | None] | None:
    """A map and, when it declares `values`, their byte offset in its struct."""
    variable = btf.type(id)
    if not isinstance(variable, Variable) or not variable.name:
        image.problem("bad-map", f"BTF type {id} in section .maps is not a named variable", at)
        return None
    name = variable.name
    if variable.linkage is not Linkage.GLOBAL:
        image.problem(
            "static-map", f"map '{name}' is {variable.linkage.name.lower()}, wanted global", at, EOPNOTSUPP
        )
        return None
    struct = btf.type(btf.strip(variable.type_id))
    if not isinstance(struct, Struct) or struct.is_union or struct.size > room:
        image.problem("bad-map", f"map '{name}' is not defined by a struct inside of section .maps", at)
        return None
    definition = _read_struct(image, btf, name, struct, at, is_inner=False)
    return _as_map(image, name, definition, at), definition.values_at


def _read_struct(
    image: Image, btf: Btf, name: str, struct: Struct, at: Location, is_inner: bool
) -> _Definition:
    definition = _Definition({})
    for member in struct.members:
        if member.name in _NUMBERS:
            value = _number(btf, member)
            if value is None:
                image.problem("bad-map", f"map '{name}': member '{member.name}' does not encode a number", at)
            else:
                _set_number(image, definition, name, member.name, value, at)
        elif member.name in ("key", "value"):
            pointer = btf.type(member.type_id)
            if not isinstance(pointer, Pointer):
                image.problem("bad-map", f"map '{name}': member '{member.name}' is not a pointer", at)
                continue
            _set_number(image, definition, name, f"{member.name}_size", btf.size_of(pointer.type_id), at)
            if member.name == "key":
                definition.key_btf_id = pointer.type_id
            else:
                definition.value_btf_id = pointer.type_id
        elif member.name == "values" and not is_inner and member is struct.members[-1]:
            _read_values(image, btf, name, member, definition, at)
        else:
            image.problem("bad-map", f"map '{name}': unknown member '{member.name}'", at, EOPNOTSUPP)
    return definition


def _set_number(
    image: Image, definition: _Definition, name: str, what: str, value: int, at: Location
) -> None:
    known = definition.numbers.setdefault(what, value)
    if known != value:
        image.problem("bad-map", f"map '{name}': {what} is both {known} and {value}", at)


def _number(btf: Btf, member: Member) -> int | None:
    of = btf.type(member.type_id)
    if isinstance(of, Enum) and len(of.values) == 1:
        return of.values[0].value & 0xFFFF_FFFF_FFFF_FFFF
    array = btf.type(of.type_id) if isinstance(of, Pointer) else None
    return array.count if isinstance(array, Array) else None


def _read_values(
    image: Image, btf: Btf, name: str, member: Member, definition: _Definition, at: Location
) -> None:
    array = btf.type(member.type_id)
    pointer = btf.type(btf.strip(array.element_id)) if isinstance(array, Array) and not array.count else None
    of = btf.type(btf.strip(pointer.type_id)) if isinstance(pointer, Pointer) else None
    type = definition.numbers.get("type")
    _set_number(image, definition, name, "value_size", 4, at)
    definition.values_at = member.bit_offset // 8
    if type == MapType.PROG_ARRAY and isinstance(of, Prototype):
        return
    if type in MAPS_OF_MAPS and isinstance(of, Struct):
        inner = _read_struct(image, btf, f"{name}.inner", of, at, is_inner=True)
        definition.inner = _as_map(image, f"{name}.inner", inner, at)
        return
    said = f"map '{name}': 'values' is neither an open array of maps nor of programs, as its type wants"
    image.problem("bad-map", said, at)


def _as_map(image: Image, name: str, definition: _Definition, at: Location) -> Map:
    numbers = definition.numbers
    type, pinning = numbers.get("type", 0), numbers.get("pinning", 0)
    if not 0 < type < len(MapType):
        image.problem("bad-map", f"map '{name}' has type {type}, which is not known", at)
        type = 0
    if pinning not in (0, 1) or (pinning and name.endswith(".inner")):
        image.problem("bad-map", f"map '{name}' has pinning {pinning}, wanted 0 or 1", at)
    return Map(
        name=name,
        type=MapType(type),
        key_size=numbers.get("key_size", 0),
        value_size=numbers.get("value_size", 0),
        max_entries=numbers.get("max_entries", 0),
        flags=numbers.get("map_flags", 0),
        key_btf_id=definition.key_btf_id,
        value_btf_id=definition.value_btf_id,
        is_pinned=bool(pinning),
        inner=definition.inner,
        extra=numbers.get("map_extra", 0),
        numa_node=numbers.get("numa_node"),
    )


def _slots(
    image: Image, declared: Map, begin: int, filled: dict[int, ElfRelocation]
) -> Iterator[tuple[int, str]]:
    """What fills each slot, by the relocation of its pointer."""
    for offset, relocation in filled.items():
        section = image.section_of(relocation.symbol)
        wants_map = declared.type in MAPS_OF_MAPS
        fits = section is not None and (section.name == ".maps" if wants_map else section.is_code)
        if (offset - begin) % _POINTER_SIZE or not fits or relocation.symbol.is_section:
            wanted = "map" if wants_map else "program"
            said = f"map '{declared.name}': '{relocation.symbol.name}' is not a {wanted}"
            image.problem("bad-map-value", said, Location(image.file.name, ".maps", offset=offset))
        else:
            yield (offset - begin) // _POINTER_SIZE, relocation.symbol.name
