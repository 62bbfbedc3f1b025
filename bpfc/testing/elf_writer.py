"""Small relocatable BPF files for tests, made of sections, symbols and relocations.

    ELF header | sections in order | their relocations | .symtab | .strtab | .shstrtab | section headers

Nothing is checked, so that a test can also ask for what makes no sense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack
from typing import final

EM_BPF = 247
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOBITS, SHT_REL = 1, 2, 3, 4, 8, 9
WRITE, ALLOCATED, EXECUTABLE = 1, 2, 4
LOCAL, GLOBAL, WEAK = 0, 1, 2
NO_TYPE, OBJECT, FUNCTION, SECTION = 0, 1, 2, 3
HIDDEN = 2


@final
@dataclass(frozen=True, slots=True)
class Reloc:
    """A relocation at byte `offset` against symbol `symbol`; `addend` None for one without."""

    offset: int
    type: int
    symbol: str
    addend: int | None = None


@final
@dataclass(frozen=True, slots=True)
class Part:
    """A section; `size` is only for one without content."""

    name: str
    data: bytes = b""
    flags: int = ALLOCATED
    type: int = SHT_PROGBITS
    relocations: Sequence[Reloc] = ()
    size: int = 0


@final
@dataclass(frozen=True, slots=True)
class Sym:
    """A symbol in section `section`, '' when undefined."""

    name: str
    section: str = ""
    offset: int = 0
    size: int = 0
    type: int = FUNCTION
    binding: int = GLOBAL
    visibility: int = 0


def code(name: str, data: bytes, *relocations: Reloc) -> Part:
    """A section of instructions."""
    return Part(name, data, ALLOCATED | EXECUTABLE, relocations=relocations)


def write_elf(parts: Sequence[Part], symbols: Sequence[Sym] = (), big_endian: bool = False) -> bytes:
    """The bytes of a relocatable BPF file. Section numbers start at 1, in the order of `parts`."""
    order = ">" if big_endian else "<"
    symbols = sorted(symbols, key=lambda symbol: symbol.binding != LOCAL)
    numbers = {part.name: number for number, part in reversed([*enumerate(parts, 1)])}
    symbol_numbers = {symbol.name: number for number, symbol in enumerate(symbols, 1)}
    tables = [part for part in parts if part.relocations]
    symtab = len(parts) + len(tables) + 1
    strings, names = bytearray(b"\0"), bytearray(b"\0")
    body = bytearray(64)
    headers = [bytes(64)]

    def add(
        name: str,
        data: bytes,
        kind: int,
        flags: int = 0,
        link: int = 0,
        info: int = 0,
        entry: int = 0,
        size: int = 0,
    ) -> None:
        body.extend(bytes(-len(body) % 8))
        fields = (flags, 0, len(body), size or len(data), link, info, 8, entry)
        headers.append(pack(order + "IIQQQQIIQQ", len(names), kind, *fields))
        names.extend(name.encode() + b"\0")
        body.extend(data)

    for part in parts:
        add(part.name, part.data, part.type, part.flags, size=part.size)
    for part in tables:
        with_addend = part.relocations[0].addend is not None
        content = b""
        for relocation in part.relocations:
            info = symbol_numbers[relocation.symbol] << 32 | relocation.type
            content += pack(order + "QQ", relocation.offset, info)
            content += pack(order + "q", relocation.addend or 0) if with_addend else b""
        kind, entry = (SHT_RELA, 24) if with_addend else (SHT_REL, 16)
        add(
            f".rel{'a' * with_addend}{part.name}",
            content,
            kind,
            link=symtab,
            info=numbers[part.name],
            entry=entry,
        )
    table = bytes(24)
    for symbol in symbols:
        info = symbol.binding << 4 | symbol.type
        number = numbers[symbol.section] if symbol.section else 0
        fields = (info, symbol.visibility, number, symbol.offset, symbol.size)
        table += pack(order + "IBBHQQ", len(strings), *fields)
        strings += symbol.name.encode() + b"\0"
    add(".symtab", table, SHT_SYMTAB, link=symtab + 1, info=1, entry=24)
    add(".strtab", bytes(strings), SHT_STRTAB)
    add(".shstrtab", bytes(names) + b".shstrtab\0", SHT_STRTAB)
    body.extend(bytes(-len(body) % 8))
    ident = b"\x7fELF" + bytes((2, 2 if big_endian else 1, 1)) + bytes(9)
    places = (1, EM_BPF, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(headers), symtab + 2)
    body[:64] = ident + pack(order + "HHIQQQIHHHHHH", *places)
    return bytes(body) + b"".join(headers)
