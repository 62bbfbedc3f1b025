"""Reading an eBPF object file: bytes in, an Object or Diagnostics out.

sections, symbols -> types -> maps, globals, externs -> functions -> relocations -> linked programs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bpfc.elf.data import data_map, data_relocations, object_name, other_data, read_data
from bpfc.elf.declared import MAPS_OF_MAPS, read_declared
from bpfc.elf.externs import kconfig_content, read_externs
from bpfc.elf.file import ElfFile, read_elf
from bpfc.elf.functions import collect_code
from bpfc.elf.image import Image, load_types
from bpfc.elf.legacy import read_legacy
from bpfc.elf.link import link_programs
from bpfc.elf.relocate import Targets, relocate_code
from bpfc.elf.struct_ops import read_struct_ops
from ir.btf import Btf
from ir.diagnostics import RejectedError
from ir.kinds import MapType
from ir.object import Extern, Map, Object, Program, Symbol
from ir.verify.fields import find_special_fields

ARENA_SECTION = ".addr_space.1"
_NO_VALUES: Mapping[str, str] = {}


def read_object(data: bytes, name: str, kconfig: Mapping[str, str] = _NO_VALUES) -> Object:
    """The Object in the bytes of an ELF file; `name` is its file name; global data is named after it.

    `kconfig` gives values of __kconfig externs, as they stand in a kernel's .config ("y", "100", '"string"').
    Raises UnreadableError when the bytes are not a well-formed object, RejectedError with everything that is
    wrong in it.
    """
    image = Image(read_elf(data, name), object_name(name))
    load_types(image)
    externs = read_externs(image)
    maps = _read_maps(image, externs, kconfig)
    codes = collect_code(image)
    relocate_code(image, codes, _targets(maps, externs))
    programs = link_programs(image, codes, maps)
    _check_slots(image, maps, programs)
    if image.problems:
        raise RejectedError(image.problems)
    return Object(
        name=image.object_name,
        programs=programs,
        maps={found.name: found for found in maps},
        license=_license(image.file),
        big_endian=image.file.big_endian,
        btf=image.btf,
        kernel_version=_kernel_version(image),
        symbols=_symbols(image.file),
        externs=externs,
        relocations=data_relocations(image),
        data=other_data(image),
        warnings=tuple(image.warnings),
    )


def _read_maps(image: Image, externs: tuple[Extern, ...], kconfig: Mapping[str, str]) -> list[Map]:
    """Declared maps, then global data, then .kconfig, then struct_ops; no two have one name."""
    maps = [*read_declared(image), *read_legacy(image)]
    arena = image.file.find(ARENA_SECTION)
    if arena is not None:
        maps = [replace(m, initial=arena.data) if m.type is MapType.ARENA else m for m in maps]
    maps += read_data(image)
    content = kconfig_content(image, externs, kconfig)
    if content:
        maps.append(data_map(image, ".kconfig", content))
    maps += read_struct_ops(image)
    taken: dict[str, Map] = {}
    for found in maps:
        if found.name in taken and found.initial is not None:
            found = replace(found, name=found.section)
        if found.name in taken:
            at = image.file.at(image.file.find(found.section) or 0, found.offset)
            image.problem("duplicate-map", f"there are two maps called '{found.name}'", at)
        taken[found.name] = _with_special(found, image.btf)
    return list(taken.values())


def _with_special(map: Map, btf: Btf | None) -> Map:
    if btf is None:
        return map
    fields = find_special_fields(btf, map.value_btf_id)
    inner = _with_special(map.inner, btf) if map.inner is not None else None
    return replace(map, special=tuple((one.offset, one.size, one.kind) for one in fields), inner=inner)


def _targets(maps: list[Map], externs: tuple[Extern, ...]) -> Targets:
    declared = {(found.section, found.offset): found for found in maps if found.initial is None}
    data = {m.section: m for m in maps if m.initial is not None and m.type is not MapType.STRUCT_OPS}
    for found in maps:
        if found.type is MapType.ARENA:
            declared[found.section, found.offset] = found
            data.pop(found.section, None)
            data[ARENA_SECTION] = found
    kconfig = data[".kconfig"].name if ".kconfig" in data else ""
    return Targets(declared, data, {extern.name: extern for extern in externs}, kconfig)


def _check_slots(image: Image, maps: list[Map], programs: Mapping[str, Program]) -> None:
    """What fills a prog array or a map of maps must be in the object."""
    if image.problems:
        return
    names = {found.name for found in maps}
    for found in maps:
        for _, name in found.slots:
            if name not in (names if found.type in MAPS_OF_MAPS else programs):
                at = image.file.at(image.file.find(found.section) or 0, found.offset)
                image.problem(
                    "bad-map-value", f"map '{found.name}' is filled with '{name}', which is not there", at
                )


def _license(file: ElfFile) -> str:
    section = file.find("license")
    return section.data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace") if section is not None else ""


def _kernel_version(image: Image) -> int:
    section = image.file.find("version")
    if section is None or len(section.data) < 4:
        return 0
    return int.from_bytes(section.data[:4], "big" if image.file.big_endian else "little")


def _symbols(file: ElfFile) -> tuple[Symbol, ...]:
    """The named symbols; those of sections, files and absolute values are left out."""
    return tuple(
        Symbol(
            symbol.name,
            file.sections[symbol.section].name,
            symbol.offset,
            symbol.size,
            not symbol.is_local,
            symbol.is_function,
            symbol.is_weak,
            symbol.is_hidden,
        )
        for symbol in file.symbols
        if symbol.name and symbol.section >= 0 and not symbol.is_section
    )
