"""Reading the relocatable ELF that LLVM emits: only what LLVM writes, and quickly.

The general ELF reader of the front door is for files from anywhere. These bytes come from our own compiler a
moment ago, so what is not as expected is our fault and asserts. ELF-64 and ELF-32 layouts: System V gABI, chapters 4
and 5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, final

ALLOC: Final = 2
WRITE: Final = 1
EXECUTE: Final = 4
NOBITS: Final = 8
GLOBAL: Final = 1
WEAK: Final = 2
FUNCTION: Final = 2
FILE: Final = 4
SECTION: Final = 3

_MAGIC: Final = b"\x7fELF"
_SYMBOL_TABLE: Final = 2
_RELOCATIONS: Final = 4
_RELOCATIONS_IN_PLACE: Final = 9


@final
@dataclass(frozen=True, slots=True)
class ElfSection:
    """A section header and its contents; `relocations` are (offset, type number, symbol index, addend)."""

    name: str
    type: int
    flags: int
    size: int
    alignment: int
    data: bytes
    relocations: tuple[tuple[int, int, int, int], ...]


class ElfSymbol(NamedTuple):
    """A row of the symbol table; `section` is 0 when undefined."""

    name: str
    info: int
    section: int
    value: int
    size: int
    other: int = 0

    @property
    def type(self) -> int:
        return self.info & 15

    @property
    def local_entry(self) -> int:
        """Bytes from a function's global entry to its local one (64-bit ELF V2 ABI, 3.4.1); 0 elsewhere."""
        return (1 << (self.other >> 5)) >> 2 << 2

    @property
    def binding(self) -> int:
        return self.info >> 4


@final
@dataclass(frozen=True, slots=True)
class ElfObject:
    """A relocatable object: its machine, sections by index (0 is the null section) and symbols by index."""

    machine: int
    order: str  # "<" or ">", as struct has it
    sections: tuple[ElfSection, ...]
    symbols: tuple[ElfSymbol, ...]


@final
@dataclass(frozen=True, slots=True)
class _Layout:
    """Where ELF of one class has its fields, as struct's letters; `symbol` says which is which in order of the file."""

    header: tuple[str, int, int]  # of the section table's offset, where it is, where its row size is
    section: str
    symbol: str
    fields: tuple[int, int, int, int, int, int]  # name, info, other, section, value, size
    relocation: str
    in_place: str
    type_bits: int


_LAYOUTS: Final = {
    2: _Layout(("Q", 40, 58), "IIQQQQIIQQ", "IBBHQQ", (0, 1, 2, 3, 4, 5), "QQq", "QQ", 32),
    1: _Layout(("I", 32, 46), "IIIIIIIIII", "IIIBBH", (0, 3, 4, 5, 1, 2), "IIi", "II", 8),
}


def read_object(data: bytes) -> ElfObject:
    """The sections, symbols and relocations of a relocatable ELF file that LLVM wrote.

    The addends of relocations are those that the file lists; where it keeps them in the words to relocate, 0.
    """
    assert data[:4] == _MAGIC, "LLVM emits ELF"
    layout = _LAYOUTS[data[4]]
    order = "<" if data[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "HH", data, 16)
    assert kind == 1, "LLVM emits relocatable files"
    letter, table_at, row_at = layout.header
    (table,) = struct.unpack_from(order + letter, data, table_at)
    size, count, names_index = struct.unpack_from(order + "HHH", data, row_at)
    section = struct.Struct(order + layout.section)
    assert size == section.size, "section headers have one size"
    headers = list(section.iter_unpack(data[table : table + size * count]))
    contents = [b"" if h[1] == NOBITS else data[h[4] : h[4] + h[5]] for h in headers]
    relocations: dict[int, list[tuple[int, int, int, int]]] = {}
    symbols: tuple[ElfSymbol, ...] = ()
    for header, content in zip(headers, contents, strict=True):
        if header[1] in (_RELOCATIONS, _RELOCATIONS_IN_PLACE):
            relocations.setdefault(header[7], []).extend(_relocations(layout, order, header[1], content))
        elif header[1] == _SYMBOL_TABLE:
            symbols = tuple(_symbols(layout, order, content, contents[header[6]]))
    sections = tuple(
        ElfSection(
            _string(contents[names_index], header[0]),
            header[1],
            header[2],
            header[5],
            header[8],
            content,
            tuple(relocations.get(index, ())),
        )
        for index, (header, content) in enumerate(zip(headers, contents, strict=True))
    )
    return ElfObject(machine, order, sections, symbols)


def _relocations(
    layout: _Layout, order: str, kind: int, content: bytes
) -> Iterator[tuple[int, int, int, int]]:
    bits = layout.type_bits
    row = layout.relocation if kind == _RELOCATIONS else layout.in_place
    for offset, info, *addend in struct.iter_unpack(order + row, content):
        yield offset, info & (1 << bits) - 1, info >> bits, addend[0] if addend else 0


def _symbols(layout: _Layout, order: str, content: bytes, names: bytes) -> Iterator[ElfSymbol]:
    for row in struct.iter_unpack(order + layout.symbol, content):
        name, info, other, section, value, size = (row[place] for place in layout.fields)
        yield ElfSymbol(_string(names, name), info, section, value, size, other)


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(0, offset)].decode()
