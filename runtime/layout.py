"""Where the parts of an image go, before anyone knows its address: offsets that depend on the code alone.

    code block   | executable sections | veneers | offset table | constants |      read + execute
    data block   | writable sections |                                             read + write

Each function that other images define gets one veneer, each patchable function one for its entry to jump
to, and each symbol reached through the global offset table one entry, needed or not: so an image has the
same size and the same offsets wherever it and its callees are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from backends.native_code import UNDEFINED, NativeCode, SiteKind
from backends.target import Base, Target

WORD: Final = 8
TABLE_BIAS: Final = 0x8000  # 16-bit displacements are signed (64-bit ELF V2 ABI, 3.3)
LINE: Final = 64  # constants do not share a cache line with instructions

_THROUGH_TABLE: Final = (Base.GOT, Base.GOT_PAGE, Base.GOT_LOW, Base.GOT_TABLE)


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets in the code block or, where `section_is_data`, in the data block.

    `table_base` is what code reaches its table of contents from. `veneers` (for calls), `entries` (veneers of
    patchable functions), `bodies` (where callers elsewhere enter these behind the entry slot) and `table` are by symbol.
    """

    sections: tuple[int, ...]
    section_is_data: tuple[bool, ...]
    veneers: Mapping[int, int]
    entries: Mapping[int, int]
    bodies: Mapping[int, int]
    table: Mapping[int, int]
    code_size: int
    data_size: int
    table_base: int = 0


def layout_of(code: NativeCode, target: Target) -> Layout:
    """The layout of an image; equal code gives equal layouts."""
    offsets = [0] * len(code.sections)
    end = 0
    for index, section in enumerate(code.sections):
        if section.is_executable:
            offsets[index] = _align(end, section.alignment)
            end = offsets[index] + section.size
    veneer_size = _align(target.veneer.size, WORD)
    veneers, end = _assign(_far_callees(code, target), _align(end, 2 * WORD), veneer_size)
    sites = [site for site in code.sites if site.kind is SiteKind.ENTRY]
    entries, end = _assign([site.function for site in sites], end, _align(target.entry_veneer.size, WORD))
    bodies = {site.function: offsets[site.section] + site.offset + site.length for site in sites}
    if target.hooking is not None:
        bodies, end = _assign(list(bodies), end, _align(target.hooking.size, WORD))
    table, end = _assign(_table_symbols(code, target), _align(end, WORD), WORD)
    end = _align(end, LINE)
    data_end = 0
    for index, section in enumerate(code.sections):
        if section.is_writable:
            offsets[index] = _align(data_end, section.alignment)
            data_end = offsets[index] + section.size
        elif not section.is_executable:
            offsets[index] = _align(end, section.alignment)
            end = offsets[index] + section.size
    are_data = tuple(section.is_writable for section in code.sections)
    contents = [at for at, section in zip(offsets, code.sections, strict=True) if section.name == ".toc"]
    base = (contents[0] if contents else 0) + TABLE_BIAS
    return Layout(tuple(offsets), are_data, veneers, entries, bodies, table, end, data_end, base)


def _far_callees(code: NativeCode, target: Target) -> list[int]:
    """Undefined symbols that something branches to, in order of first use."""
    return list(
        dict.fromkeys(
            relocation.symbol
            for relocation in code.relocations
            if target.relocations[relocation.type].base is Base.BRANCH
            and code.symbols[relocation.symbol].section == UNDEFINED
        )
    )


def _table_symbols(code: NativeCode, target: Target) -> list[int]:
    """Symbols that something reaches through the global offset table, in order of first use."""
    return list(
        dict.fromkeys(
            relocation.symbol
            for relocation in code.relocations
            if target.relocations[relocation.type].base in _THROUGH_TABLE
        )
    )


def _assign(symbols: list[int], start: int, size: int) -> tuple[dict[int, int], int]:
    return {symbol: start + index * size for index, symbol in enumerate(symbols)}, start + len(symbols) * size


def _align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
