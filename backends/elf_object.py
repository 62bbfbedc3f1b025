"""Reading the relocatable ELF that LLVM emits: only what LLVM writes, and quickly.

The general ELF reader of the front door is for files from anywhere. These bytes come from our own compiler a
moment ago, so what is not as expected is our fault and asserts. ELF-64 layouts: System V gABI, chapters 4 and
5.
"""

from __future__ import annotations

import struct
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


def read_object(data: bytes) -> ElfObject:
    """The sections, symbols and relocations of an ELF-64 relocatable file that LLVM wrote."""
    assert data[:5] == _MAGIC + b"\2", "LLVM emits 64-bit ELF"
    order = "<" if data[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "HH", data, 16)
    assert kind == 1, "LLVM emits relocatable files"
    (table,) = struct.unpack_from(order + "Q", data, 40)
    header_size, count, names_index = struct.unpack_from(order + "HHH", data, 58)
    assert header_size == 64, "section headers of ELF-64 have 64 bytes"
    headers = list(struct.iter_unpack(order + "IIQQQQIIQQ", data[table : table + 64 * count]))
    contents = [b"" if h[1] == NOBITS else data[h[4] : h[4] + h[5]] for h in headers]
    relocations: dict[int, list[tuple[int, int, int, int]]] = {}
    symbols: tuple[ElfSymbol, ...] = ()
    for header, content in zip(headers, contents, strict=True):
        if header[1] == _RELOCATIONS:
            relocations.setdefault(header[7], []).extend(
                (offset, info & 0xFFFFFFFF, info >> 32, addend)
                for offset, info, addend in struct.iter_unpack(order + "QQq", content)
            )
        elif header[1] == _SYMBOL_TABLE:
            names = contents[header[6]]
            symbols = tuple(
                ElfSymbol(_string(names, name), info, section, value, size, other)
                for name, info, other, section, value, size in struct.iter_unpack(order + "IBBHQQ", content)
            )
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


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(0, offset)].decode()
