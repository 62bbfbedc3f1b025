"""Global data: each .data, .bss and .rodata section becomes an array map of one value.

    .data  .data.*              as they are
    .bss   .bss.*               zeroed
    .rodata  .rodata.*  .data.rel.ro    read-only to programs, frozen before they are compiled

A word of read-only data that points at a function gets a token of that function (`ir/object`, FunctionWord).

Names and flags are libbpf's (internal_map_name, map_is_mmapable).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from bpfc.elf.file import ElfRelocation, ElfSymbol, Section
from bpfc.elf.image import RELOCATION_NAMES, Image
from bpfc.elf.legacy import is_legacy
from ir.btf import Btf
from ir.btf_types import BtfKind, DataSection, Linkage, Variable
from ir.kinds import MapFlag, MapType
from ir.object import FUNCTION_TOKENS, FunctionTable, FunctionWord, Map, Relocation

MAX_NAME = 15
"""Characters of a kernel object's name (BPF_OBJ_NAME_LEN without the final zero)."""

_MIN_SUFFIX = 7
_ALLOCATED = 0x2
_POINTER = 8
_DATA = re.compile(r"\.(data|rodata|bss)(\..*)?")
_READ_ONLY = re.compile(r"\.rodata(\..*)?|\.data\.rel\.ro(\..*)?|\.kconfig")
_NO_DATA = re.compile(r"\.BTF(\.ext)?|\.z?debug_.*|\.eh_frame|\.llvm.*")


def object_name(file: str) -> str:
    """The name of the object in a file, as libbpf derives it: the path's last part, up to the first dot."""
    return file.replace("\\", "/").rsplit("/", 1)[-1].split(".", 1)[0][:MAX_NAME]


def internal_name(object_name: str, section: str) -> str:
    """The name of a section's map: "my_object", ".rodata" make "my_objec.rodata"; ".data.own" stays."""
    suffix = max(_MIN_SUFFIX, len(section))
    prefix = "" if "." in section[1:] or suffix >= MAX_NAME else object_name[: MAX_NAME - suffix]
    return re.sub(r"[^A-Za-z0-9_.]", "_", prefix + section[:MAX_NAME])


def read_data(image: Image) -> list[Map]:
    """The maps of the global data, in the order of the sections."""
    sections = [section for section in image.file.sections if _is_data(section)]
    words = {section.number: _function_words(image, section) for section in sections}
    tokens = _number_functions(words)
    order: Literal["little", "big"] = "big" if image.file.big_endian else "little"
    maps: list[Map] = []
    for section in sections:
        content = bytearray(section.data)
        functions: list[FunctionWord] = []
        for offset, place in words[section.number]:
            functions.append(FunctionWord(offset, tokens[place], *place))
            content[offset : offset + _POINTER] = tokens[place].to_bytes(_POINTER, order)
        found = data_map(image, section.name, bytes(content), _relocated_words(image, section))
        maps.append(replace(found, tables=_by_variable(image, section, functions)) if functions else found)
    return maps


def data_map(image: Image, name: str, content: bytes, relocated: tuple[tuple[int, int], ...] = ()) -> Map:
    """The array map that holds `content` as section `name`; `relocated` are its words that hold addresses."""
    is_read_only = _READ_ONLY.fullmatch(name) is not None
    flags = MapFlag.RDONLY_PROG if is_read_only else MapFlag(0)
    id = 0
    if image.btf is not None:
        id = next(image.btf.find(name, BtfKind.DATASEC), 0)
        if id and _is_exposed(image.btf, id, {s.name: s for s in image.file.symbols if s.is_hidden}):
            flags |= MapFlag.MMAPABLE
    return Map(
        name=internal_name(image.object_name, name),
        type=MapType.ARRAY,
        key_size=4,
        value_size=len(content),
        max_entries=1,
        flags=int(flags),
        value_btf_id=id,
        initial=content,
        is_read_only=is_read_only,
        section=name,
        relocated=relocated,
    )


def other_data(image: Image) -> dict[str, bytes]:
    """The content of sections that are neither code nor a map, by name."""
    return {
        section.name: section.data
        for section in image.file.sections
        if _is_kept(image, section)
        and not _is_data(section)
        and not is_legacy(section.name)
        and section.name not in (".maps", "license", "version")
    }


def data_relocations(image: Image) -> tuple[Relocation, ...]:
    """The relocations of everything but code, types and DWARF."""
    found: list[Relocation] = []
    for section in image.file.sections:
        if not _is_kept(image, section):
            continue
        for relocation in image.relocations(section):
            symbol, addend = relocation.symbol, _addend(image, section, relocation)
            target = image.section_of(symbol)
            found.append(
                Relocation(
                    section.name,
                    relocation.offset,
                    RELOCATION_NAMES.get(relocation.type, str(relocation.type)),
                    symbol.name,
                    addend,
                    target.name if target is not None else "",
                    symbol.offset + addend,
                )
            )
    return tuple(found)


def _function_words(image: Image, section: Section) -> list[tuple[int, tuple[str, int]]]:
    """The aligned 8-byte words of read-only data that point into code: offset, and (section, byte) of the function."""
    found: dict[int, tuple[str, int]] = {}
    for relocation in image.relocations(section) if _READ_ONLY.fullmatch(section.name) else ():
        target, start = image.section_of(relocation.symbol), relocation.offset
        if target is None or not target.is_code or _width(relocation) != _POINTER or start % _POINTER:
            continue
        if start + _POINTER > section.size:
            continue
        found[start] = (target.name, relocation.symbol.offset + _addend(image, section, relocation))
    return sorted(found.items())


def _number_functions(
    words: Mapping[int, list[tuple[int, tuple[str, int]]]],
) -> dict[tuple[str, int], int]:
    """A token for each function that some word points at."""
    places = sorted({place for found in words.values() for _, place in found})
    return {place: FUNCTION_TOKENS + _POINTER * number for number, place in enumerate(places)}


def _by_variable(image: Image, section: Section, words: Sequence[FunctionWord]) -> tuple[FunctionTable, ...]:
    """The words of each variable; those of none, as in a file without symbols, are of the whole section."""
    tables: list[FunctionTable] = []
    left = list(words)
    for start, end in sorted({(s.offset, s.offset + s.size) for s in image.symbols(section) if s.size}):
        inside = tuple(word for word in left if start <= word.offset and word.offset + _POINTER <= end)
        if inside:
            tables.append(FunctionTable(start, end, inside))
            left = [word for word in left if word not in inside]
    return (*tables, FunctionTable(0, section.size, tuple(left))) if left else tuple(tables)


def _addend(image: Image, section: Section, relocation: ElfRelocation) -> int:
    """What a relocation adds to its symbol: said by itself, or by the word it fills in."""
    if relocation.addend is not None:
        return relocation.addend
    word = section.data[relocation.offset : relocation.offset + _width(relocation)]
    return int.from_bytes(word, "big" if image.file.big_endian else "little", signed=True)


def _relocated_words(image: Image, section: Section) -> tuple[tuple[int, int], ...]:
    return tuple((relocation.offset, _width(relocation)) for relocation in image.relocations(section))


def _width(relocation: ElfRelocation) -> int:
    """Bytes of the word that a relocation fills in."""
    return 4 if "32" in RELOCATION_NAMES.get(relocation.type, "") else 8


def _is_kept(image: Image, section: Section) -> bool:
    """Whether a section has content that a loader may want, and that is neither code nor for debuggers."""
    if section.type != "SHT_PROGBITS" or section.is_code or not section.size:
        return False
    if _NO_DATA.fullmatch(section.name):
        return False
    return bool(section.flags & _ALLOCATED) or bool(image.relocations(section))


def _is_data(section: Section) -> bool:
    if section.type not in ("SHT_PROGBITS", "SHT_NOBITS") or section.is_code or not section.size:
        return False
    match = _DATA.fullmatch(section.name)
    return match is not None and (section.type == "SHT_NOBITS") == (match[1] == "bss")


def _is_exposed(btf: Btf, id: int, hidden: dict[str, ElfSymbol]) -> bool:
    """Whether a variable of the section is visible from outside, so that user space may map its map."""
    section = btf.type(id)
    assert isinstance(section, DataSection)
    for entry in section.entries:
        match btf.type(entry.type_id):
            case Variable(name=name, linkage=linkage) if linkage is not Linkage.STATIC and name not in hidden:
                return True
    return False
