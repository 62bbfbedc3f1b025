"""From LLVM's object bytes to NativeCode: which sections run, and where the patch sites are.

.text .rodata .data ...               sections, with their relocations
.llvm_stackmaps, .gcc_except_table    STATIC sites (backends/static_sites)
.bpfc.flags                           STATIC sites of targets that test words in memory
the entry NOP at a function's start   ENTRY sites
.eh_frame, notes, groups, debug       dropped: nothing unwinds through this code
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Final

from backends.elf_object import (
    ALLOC,
    EXECUTE,
    FILE,
    FUNCTION,
    GLOBAL,
    NOBITS,
    SECTION,
    WEAK,
    WRITE,
    ElfObject,
    ElfSection,
    ElfSymbol,
    read_object,
)
from backends.line_table import LINES, read_lines
from backends.native_code import UNDEFINED, NativeCode, PatchSite, Relocation, Section, SiteKind, Symbol
from backends.static_sites import FLAGS, FRAMES, static_sites
from backends.target import Target

_CODE_ALIGNMENT: Final = 16  # patch sites are placed in words, LLVM asks for less in small code
_DROPPED: Final = (
    ".eh_frame",
    ".gcc_except_table",
    ".llvm_stackmaps",
    ".data.DW.ref.",
    ".data.rel.ro.DW.ref.",
    ".ARM.",
)

_CONSTANT: Final = (".data.rel.ro", ".toc", FLAGS)


def parse_object(data: bytes, target: Target, jumps_first: Container[int] = (), room: int = 0) -> NativeCode:
    """What is in an object that LLVM emitted for `target`.

    Static branches whose key is in `jumps_first` start as jumps, all others as NOPs; the sections' data say
    so too. `room` as for `static_sites`.
    """
    elf = read_object(data)
    assert elf.machine == target.machine, f"an object of machine {elf.machine} is not for {target.name}"
    wanted = [index for index in _all(elf) if _runs(elf.sections[index]) or _unwinds(elf, index, target)]
    kept = {index: position for position, index in enumerate(wanted)}
    contents = {index: bytearray(elf.sections[index].data) for index in kept}
    symbols, numbers = _symbols(elf, kept)
    branches = static_sites(elf, target, numbers, kept, jumps_first, room)
    taken = {(site.record.section, site.region_offset) for site in branches}
    sites = _entry_sites(symbols, [bytes(contents[index]) for index in kept], target, taken)
    for site in branches:
        sites.append(site.record)
        start = site.region_offset
        contents[site.elf_section][start : start + len(site.code)] = site.code
    moved = _entries_behind_setup(symbols, sites, list(contents.values()))
    relocations = tuple(
        Relocation(
            position,
            offset + moved.get((position, offset & -4), 0),
            _name(target, type),
            numbers[symbol],
            addend + _stored_addend(target, type, contents[index], offset),
        )
        for index, position in kept.items()
        for offset, type, symbol, addend in elf.sections[index].relocations
    )
    sections = tuple(_section(elf.sections[index], bytes(contents[index])) for index in kept)
    sites = [_behind_setup(site, symbols) for site in sites]
    lines = read_lines(elf, kept)
    return NativeCode(target.name, sections, tuple(symbols), relocations, tuple(sites), lines=lines)


def _name(target: Target, number: int) -> str:
    """The official name of a relocation; `backends/targets/` says which of them LLVM emits."""
    assert number in target.numbers, (
        f"LLVM emits relocation {number} for {target.name}, which has no row for it"
    )
    return target.numbers[number]


def _stored_addend(target: Target, number: int, content: bytearray, offset: int) -> int:
    """The addend in the word that is to be relocated, where objects keep them there."""
    type = target.relocations[_name(target, number)]
    if type.addend is None:
        return 0
    return type.addend(int.from_bytes(content[offset : offset + type.size], target.byte_order))


def _all(elf: ElfObject) -> range:
    return range(len(elf.sections))


def _runs(section: ElfSection) -> bool:
    return bool(section.flags & ALLOC) and section.size > 0 and not section.name.startswith(_DROPPED)


def _unwinds(elf: ElfObject, index: int, target: Target) -> bool:
    """Whether a section tells debuggers how frames unwind: kept beside lines, where it is about code that is kept."""
    section = elf.sections[index]
    if section.name != FRAMES or not any(one.name == LINES for one in elf.sections):
        return False
    return all(
        type in target.numbers
        and target.numbers[type] in target.relocations
        and elf.symbols[symbol].section
        and _runs(elf.sections[elf.symbols[symbol].section])
        for _, type, symbol, _ in section.relocations
    )


def _section(section: ElfSection, data: bytes) -> Section:
    """Data that is relocated and then constant is marked writable only for the dynamic
    linker's sake.
    """
    is_writable = bool(section.flags & WRITE) and not section.name.startswith(_CONSTANT)
    return Section(
        section.name,
        b"" if section.type == NOBITS else data,
        section.size,
        max(section.alignment, _CODE_ALIGNMENT if section.flags & EXECUTE else 1),
        bool(section.flags & EXECUTE),
        is_writable,
    )


def _symbols(elf: ElfObject, kept: dict[int, int]) -> tuple[list[Symbol], dict[int, int]]:
    """The symbols of kept sections and the undefined ones that these use, and where each of the object's
    went.
    """
    used = {symbol for index in kept for _, _, symbol, _ in elf.sections[index].relocations}
    symbols: list[Symbol] = []
    numbers: dict[int, int] = {}
    for index, symbol in enumerate(elf.symbols):
        is_defined = symbol.section in kept
        if symbol.type == FILE or not (is_defined or index in used) or _is_mark(symbol):
            continue
        numbers[index] = len(symbols)
        name = symbol.name or (elf.sections[symbol.section].name if symbol.type == SECTION else "")
        symbols.append(
            Symbol(
                name,
                kept[symbol.section] if is_defined else UNDEFINED,
                symbol.value,
                symbol.size,
                symbol.binding in (GLOBAL, WEAK),
                symbol.type == FUNCTION,
                symbol.local_entry,
            )
        )
    return symbols, numbers


def _is_mark(symbol: ElfSymbol) -> bool:
    """Whether a symbol only tells code from constants, for disassemblers (AAELF32, 5.5.5)."""
    return symbol.name.startswith(("$a", "$d")) and not symbol.size and not symbol.info


def _entry_sites(
    symbols: list[Symbol], contents: list[bytes], target: Target, taken: Container[tuple[int, int]]
) -> list[PatchSite]:
    """The functions that begin with the entry NOP, but not with a static branch; LLVM starts no other so."""
    length = len(target.patching.entry)
    return [
        PatchSite(SiteKind.ENTRY, symbol.section, symbol.offset, length, number)
        for number, symbol in enumerate(symbols)
        if symbol.is_function
        and symbol.section != UNDEFINED
        and (symbol.section, symbol.offset) not in taken
        and contents[symbol.section][symbol.offset : symbol.offset + length] == target.patching.entry
    ]


def _entries_behind_setup(
    symbols: list[Symbol], sites: list[PatchSite], contents: list[bytearray]
) -> dict[tuple[int, int], int]:
    """Swap entry NOPs with what sets a function up for callers elsewhere: LLVM puts the data before it, where the
    set-up's distances from the function's start and the place of the local entry are wrong by the NOP.

        NOP | set-up | body    ->    set-up | NOP | body

    How far relocations at (section, offset) move.
    """
    moved: dict[tuple[int, int], int] = {}
    for site in sites:
        function = symbols[site.function]
        if site.kind is not SiteKind.ENTRY or not function.local_entry:
            continue
        start, end = site.offset, site.offset + site.length + function.local_entry
        code = contents[site.section]
        code[start:end] = code[start + site.length : end] + code[start : start + site.length]
        moved |= {(site.section, offset): -site.length for offset in range(start + site.length, end, 4)}
    return moved


def _behind_setup(site: PatchSite, symbols: list[Symbol]) -> PatchSite:
    if site.kind is not SiteKind.ENTRY:
        return site
    return replace(site, offset=site.offset + symbols[site.function].local_entry)
