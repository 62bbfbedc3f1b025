"""Maps that BTF declares, and the names of maps of global data."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bpfc.elf.data import internal_name, object_name
from bpfc.elf.reader import read_object
from bpfc.testing.elf_writer import OBJECT, Part, Reloc, Sym, code, write_elf
from ir.asm import assemble
from ir.btf_encode import encode_btf
from ir.btf_types import (
    Array,
    DataSection,
    Enum,
    Enumerator,
    Int,
    Linkage,
    Member,
    Pointer,
    Prototype,
    SectionEntry,
    Struct,
    Type,
    Variable,
)
from ir.diagnostics import RejectedError
from ir.encoding import encode
from ir.kinds import MapType
from ir.object import Map, Object

INT, FIRST = 1, 2
R_ABS64 = 2


def number(value: int, id: int) -> tuple[Type, Type]:
    """What __uint(name, value) declares a member as: types with the ids `id` and `id` + 1."""
    return Array(INT, INT, value), Pointer(id)


def read_map(
    members: Sequence[tuple[str, int | Sequence[Type]]],
    linkage: Linkage = Linkage.GLOBAL,
    relocations: Sequence[Reloc] = (),
    size: int = 128,
) -> Object:
    """An object with a map `m` of these members: numbers, or types of which the last is the member's own."""
    of: list[Type] = [Int("int", 4, 32, is_signed=True)]
    fields: list[Member] = []
    for name, what in members:
        of += number(what, len(of) + 1) if isinstance(what, int) else what
        fields.append(Member(name, len(of), 64 * len(fields)))
    struct = len(of) + 1
    of += [
        Struct("", False, 8 * len(fields), tuple(fields)),
        Variable("m", struct, linkage),
        DataSection(".maps", 128, (SectionEntry(struct + 1, 0, 128),)),
    ]
    program = encode(assemble("r0 = 0\nexit"))
    parts = [
        Part(".maps", bytes(size), relocations=relocations),
        Part(".BTF", encode_btf(of)),
        code("xdp", program),
    ]
    symbols = [Sym("m", ".maps", 0, 128, OBJECT), Sym("main", "xdp", 0, 16)]
    return read_object(write_elf(parts, symbols), "made.o")


def the_map(*members: tuple[str, int | Sequence[Type]]) -> Map:
    """The map with these members."""
    return read_map(members).maps["m"]


BASE = [("type", 1), ("max_entries", 8)]


def test_numbers_are_the_lengths_of_arrays() -> None:
    found = the_map(
        *BASE, ("key_size", 4), ("value_size", 16), ("map_flags", 1), ("pinning", 1), ("numa_node", 3)
    )
    assert (found.type, found.max_entries, found.key_size, found.value_size, found.flags) == (
        MapType.HASH,
        8,
        4,
        16,
        1,
    )
    assert (found.is_pinned, found.numa_node, found.extra) == (True, 3, 0)


def test_types_give_sizes() -> None:
    found = the_map(*BASE, ("key", [Pointer(INT)]), ("value", [Array(INT, INT, 5), Pointer(7)]))
    assert (found.key_size, found.value_size, found.key_btf_id, found.value_btf_id) == (4, 20, INT, 7)


def test_numbers_of_64_bits_are_enumerators() -> None:
    enum = Enum("", 8, False, (Enumerator("__unique", 1 << 40),), True)
    assert the_map(*BASE, ("map_extra", [enum])).extra == 1 << 40


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("max_entries", 8)], "type 0"),
        ([("type", 99)], "type 99"),
        ([*BASE, ("type", 2)], "type is both 1 and 2"),
        ([*BASE, ("key_size", 8), ("key", [Pointer(INT)])], "key_size is both 8 and 4"),
        ([*BASE, ("colour", 3)], "unknown member 'colour'"),
        ([*BASE, ("key", [Array(INT, INT, 1)])], "'key' is not a pointer"),
        ([*BASE, ("key", [Pointer(0)])], "has no size"),
        ([*BASE, ("key", [Pointer(99)])], "no type 99"),
        ([*BASE, ("map_flags", [Pointer(INT)])], "does not encode a number"),
        ([*BASE, ("pinning", 7)], "pinning 7"),
        ([*BASE, ("values", [Prototype(0, ()), Pointer(6), Array(7, INT, 0)])], "neither an open array"),
        (
            [("type", 3), ("values", [Prototype(0, ()), Pointer(4), Array(5, INT, 4)])],
            "neither an open array",
        ),
        (
            [("type", 12), ("values", [Prototype(0, ()), Pointer(4), Array(5, INT, 0)])],
            "neither an open array",
        ),
        ([("type", 12), ("values", [Array(6, INT, 0)]), ("max_entries", 1)], "unknown member 'values'"),
    ],
)
def test_definitions_that_make_no_sense_are_refused(
    members: Sequence[tuple[str, int | Sequence[Type]]], said: str
) -> None:
    with pytest.raises(RejectedError) as caught:
        read_map(members)
    assert any(said in str(problem) for problem in caught.value.diagnostics)


@pytest.mark.parametrize("linkage", [Linkage.STATIC, Linkage.EXTERN])
def test_maps_must_be_global(linkage: Linkage) -> None:
    with pytest.raises(RejectedError, match="static-map"):
        read_map(BASE, linkage)


def test_a_map_must_fit_into_its_section() -> None:
    with pytest.raises(RejectedError, match="inside of section"):
        read_map(BASE, size=8)


JUMPS = [("type", 3), ("max_entries", 4), ("values", [Prototype(0, ()), Pointer(6), Array(7, INT, 0)])]


def test_values_are_named_by_their_relocations() -> None:
    found = read_map(JUMPS, relocations=[Reloc(32, R_ABS64, "main")])
    assert found.maps["m"].slots == ((2, "main"),)


@pytest.mark.parametrize(
    "relocation",
    [
        Reloc(20, R_ABS64, "main"),
        Reloc(16, R_ABS64, "m"),
        Reloc(8, R_ABS64, "main"),
        Reloc(4096, R_ABS64, "main"),
    ],
)
def test_values_that_are_no_programs_of_a_slot_are_refused(relocation: Reloc) -> None:
    with pytest.raises(RejectedError, match="bad-map-value"):
        read_map(JUMPS, relocations=[relocation])


@pytest.mark.parametrize(
    ("name", "section", "map_name"),
    [
        ("my_object_name", ".rodata", "my_objec.rodata"),
        ("my_object_name", ".bss", "my_objec.bss"),
        ("my_object_name", ".kconfig", "my_obje.kconfig"),
        ("x", ".data", "x.data"),
        ("my_object", ".data.own", ".data.own"),
        ("my_object", ".rodata.abracadabra", ".rodata.abracad"),
        ("my-object", ".bss", "my_objec.bss"),
    ],
)
def test_global_data_is_named_as_libbpf_does(name: str, section: str, map_name: str) -> None:
    assert internal_name(name, section) == map_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b/xdp.bpf.o", "xdp"),
        ("xdp", "xdp"),
        ("a.d/x", "x"),
        ("", ""),
        ("a_very_long_object_name.o", "a_very_long_obj"),
    ],
)
def test_objects_are_named_after_their_file(path: str, name: str) -> None:
    assert object_name(path) == name
