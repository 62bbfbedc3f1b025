"""Writing a relocatable BPF file: sections and symbols to bytes.

ELF header | sections in order | .symtab | .strtab | .shstrtab | section headers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack
from typing import Final, final

from bpfc.elf.file import ElfSymbol

TYPES: Final = {"SHT_PROGBITS": 1, "SHT_RELA": 4, "SHT_NOTE": 7, "SHT_NOBITS": 8, "SHT_REL": 9}
_SYMTAB, _STRTAB = 2, 3
SYMBOL_TYPES: Final = (
    "STT_NOTYPE",
    "STT_OBJECT",
    "STT_FUNC",
    "STT_SECTION",
    "STT_FILE",
    "STT_COMMON",
    "STT_TLS",
)
BINDINGS: Final = ("STB_LOCAL", "STB_GLOBAL", "STB_WEAK")
VISIBILITIES: Final = ("STV_DEFAULT", "STV_INTERNAL", "STV_HIDDEN", "STV_PROTECTED")
_ABSOLUTE: Final = 0xFFF1
_ALIGNMENT: Final = 8
_HEADER_SIZE: Final = 64


def can_write(symbol: ElfSymbol) -> bool:
    """Whether a symbol is of a sort that there is a number for."""
    known = symbol.type in SYMBOL_TYPES and symbol.binding in BINDINGS
    return known and symbol.visibility in VISIBILITIES


@final
@dataclass(frozen=True, slots=True)
class OutputSection:
    """A section as it is written: `type` by its ELF name, `size` for one without content."""

    name: str
    type: str
    flags: int
    entry_size: int
    data: bytes
    size: int
    link: int = 0
    info: int = 0


def write_sections(
    sections: Sequence[OutputSection], symbols: Sequence[ElfSymbol], head: bytes, big_endian: bool
) -> bytes:
    """The bytes of the file. `symbols` (the first gets number 1) name sections by number; `head` is the ELF header
    that the rest of this one's (machine, flags) is taken from.
    """
    writer = _Writer(">" if big_endian else "<")
    for section in sections:
        has_content = section.type != "SHT_NOBITS"
        writer.add(section, TYPES[section.type], section.data if has_content else b"")
    table, strings, first_global = _symbols(symbols, writer.order)
    writer.add(OutputSection(".symtab", "", 0, 24, table, 0, len(sections) + 2, first_global), _SYMTAB, table)
    writer.add(OutputSection(".strtab", "", 0, 0, strings, 0), _STRTAB, strings)
    return writer.finish(head)


@final
class _Writer:
    """The file while it grows."""

    def __init__(self, order: str) -> None:
        self.order = order
        self._body = bytearray(_HEADER_SIZE)
        self._names = bytearray(b"\0")
        self._headers = [bytes(64)]

    def add(self, section: OutputSection, type_: int, data: bytes) -> None:
        """Append a section."""
        self._body.extend(bytes(-len(self._body) % _ALIGNMENT))
        size = len(data) if data or type_ != TYPES["SHT_NOBITS"] else section.size
        fields = (section.flags, 0, len(self._body), size, section.link, section.info, _ALIGNMENT)
        self._headers.append(
            pack(f"{self.order}IIQQQQIIQQ", len(self._names), type_, *fields, section.entry_size)
        )
        self._names += section.name.encode() + b"\0"
        self._body += data

    def finish(self, head: bytes) -> bytes:
        """The whole file."""
        names = bytes(self._names) + b".shstrtab\0"
        self.add(OutputSection(".shstrtab", "", 0, 0, names, 0), _STRTAB, names)
        self._body.extend(bytes(-len(self._body) % _ALIGNMENT))
        count = len(self._headers)
        places = pack(f"{self.order}QQ", 0, len(self._body))
        counts = pack(f"{self.order}HHHHHH", 64, 0, 0, 64, count, count - 1)
        self._body[:_HEADER_SIZE] = head[:32] + places + head[48:52] + counts
        return bytes(self._body) + b"".join(self._headers)


def _symbols(symbols: Sequence[ElfSymbol], order: str) -> tuple[bytes, bytes, int]:
    """The symbol table, its strings, and the number of the first symbol that is not local."""
    table, strings = bytearray(24), bytearray(b"\0")
    first_global = len(symbols) + 1
    for number, symbol in enumerate(symbols, 1):
        name = 0
        if symbol.name and not symbol.is_section:
            name = len(strings)
            strings += symbol.name.encode() + b"\0"
        if not symbol.is_local:
            first_global = min(first_global, number)
        info = BINDINGS.index(symbol.binding) << 4 | SYMBOL_TYPES.index(symbol.type)
        section = symbol.section if symbol.section >= 0 else _ABSOLUTE
        visibility = VISIBILITIES.index(symbol.visibility)
        table += pack(f"{order}IBBHQQ", name, info, visibility, section, symbol.offset, symbol.size)
    return bytes(table), bytes(strings), first_global
