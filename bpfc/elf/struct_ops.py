"""Structs of functions for the kernel (section .struct_ops): each variable becomes a map of one value.

    struct tcp_congestion_ops mine SEC(".struct_ops") = { .init = (void *)init, .name = "mine" };

The value is the struct as the object has it; pointers to functions are slots, by their byte offset in it.
"""

from __future__ import annotations

from bpfc.elf.file import Section
from bpfc.elf.image import Image
from ir.btf import Btf
from ir.btf_types import BtfKind, DataSection, SectionEntry, Struct, Variable
from ir.kinds import MapType
from ir.object import Map

SECTIONS = (".struct_ops", ".struct_ops.link", "?.struct_ops", "?.struct_ops.link")


def read_struct_ops(image: Image) -> list[Map]:
    """The maps of every struct_ops section, in the order of the file; what is wrong is noted in `image`."""
    maps: list[Map] = []
    for section in image.file.sections:
        if section.type != "SHT_PROGBITS" or section.name not in SECTIONS or not section.size:
            continue
        found = next(image.btf.find(section.name, BtfKind.DATASEC), None) if image.btf is not None else None
        if image.btf is None or found is None:
            said = f"section {section.name} is not described by BTF"
            image.problem("map-without-type", said, image.file.at(section))
            continue
        places = image.btf.type(found)
        assert isinstance(places, DataSection)
        for entry in sorted(places.entries, key=lambda entry: entry.offset):
            maps += _read_variable(image, image.btf, section, entry)
    return maps


def _read_variable(image: Image, btf: Btf, section: Section, entry: SectionEntry) -> list[Map]:
    at = image.file.at(section, entry.offset)
    variable = btf.type(entry.type_id)
    id = btf.strip(variable.type_id) if isinstance(variable, Variable) else 0
    struct = btf.type(id)
    end = entry.offset + struct.size if isinstance(struct, Struct) else 0
    if not isinstance(variable, Variable) or not isinstance(struct, Struct) or end > section.size:
        image.problem("bad-map", f"BTF type {entry.type_id} is not a struct inside of {section.name}", at)
        return []
    slots: list[tuple[int, str]] = []
    for relocation in image.relocations(section):
        target = image.section_of(relocation.symbol)
        if entry.offset <= relocation.offset < end and target is not None and target.is_code:
            slots.append((relocation.offset - entry.offset, relocation.symbol.name))
    return [
        Map(
            name=variable.name,
            type=MapType.STRUCT_OPS,
            key_size=4,
            value_size=struct.size,
            max_entries=1,
            value_btf_id=id,
            initial=section.data[entry.offset : end],
            section=section.name,
            offset=entry.offset,
            slots=tuple(sorted(slots)),
        )
    ]
