"""An ELF file as checked values: the one place where pyelftools meets bytes of unknown origin.

pyelftools knows the structures. Sizes, counts, offsets and links are bounded here before anything is read
through them, and whatever it still trips over becomes a Diagnostic.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import EINVAL
from typing import Any, final

from elftools.common.exceptions import DWARFError, ELFError
from elftools.common.utils import struct_parse
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from ir.diagnostics import Diagnostic, Location, UnreadableError

MAX_SYMBOLS = 1 << 16
MAX_NAME = 4096
MAX_ZEROED = 1 << 28
"""Bytes that all sections without content (.bss) may ask for together."""

EXECUTABLE = 0x4
_WITHOUT_CONTENT = ("SHT_NOBITS", "SHT_NULL")
_UNDEFINED = 0
_FIRST_RESERVED = 0xFF00
_MISREAD = (
    ELFError,
    ConstructError,
    struct.error,
    ValueError,
    OverflowError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)
"""What pyelftools raises on a malformed file: its own errors, and Python's where it does not check."""


@final
@dataclass(frozen=True, slots=True)
class Section:
    """A section; `type` is the ELF name (SHT_PROGBITS) or a number, `data` zeroes if it has no content."""

    number: int
    name: str
    type: str
    flags: int
    size: int
    link: int
    info: int
    entry_size: int
    data: bytes = field(repr=False)

    @property
    def is_code(self) -> bool:
        """Whether it holds instructions."""
        return self.type == "SHT_PROGBITS" and bool(self.flags & EXECUTABLE) and self.size > 0


@final
@dataclass(frozen=True, slots=True)
class ElfSymbol:
    """A symbol; `section` is a section number, 0 when undefined, -1 when special (absolute, common)."""

    name: str
    section: int
    offset: int
    size: int
    type: str
    binding: str
    visibility: str

    @property
    def is_local(self) -> bool:
        """Whether only this object sees it."""
        return self.binding == "STB_LOCAL"

    @property
    def is_weak(self) -> bool:
        """Whether it may stay unresolved, or give way to another definition."""
        return self.binding == "STB_WEAK"

    @property
    def is_hidden(self) -> bool:
        """Whether it is not visible outside of the linked object."""
        return self.visibility in ("STV_HIDDEN", "STV_INTERNAL")

    @property
    def is_function(self) -> bool:
        """Whether it is marked as a function."""
        return self.type == "STT_FUNC"

    @property
    def is_section(self) -> bool:
        """Whether it stands for a whole section."""
        return self.type == "STT_SECTION"


@final
@dataclass(frozen=True, slots=True)
class ElfRelocation:
    """A relocation of the word at byte `offset`; `addend` None when it is in the word itself (SHT_REL)."""

    offset: int
    type: int
    symbol: ElfSymbol
    addend: int | None


@final
@dataclass(frozen=True, slots=True)
class RelocationRow:
    """A relocation as it stands in its table: `symbol` is the number of one."""

    offset: int
    type: int
    symbol: int
    addend: int | None


@final
@dataclass(frozen=True, slots=True)
class ElfFile:
    """A relocatable BPF file. `sections[number]` is the section with that number; section 0 is empty."""

    name: str
    big_endian: bool
    sections: Sequence[Section]
    symbols: Sequence[ElfSymbol]
    parser: ELFFile = field(repr=False)

    def find(self, name: str) -> Section | None:
        """The first section called `name`."""
        return next((section for section in self.sections if section.name == name), None)

    def at(self, section: int | Section, offset: int | None = None) -> Location:
        """The location of a byte in a section."""
        name = section.name if isinstance(section, Section) else self.sections[section].name
        return Location(file=self.name, section=name, offset=offset)


@contextmanager
def reading_debug(name: str) -> Iterator[None]:
    """Where DWARF is looked at, which is read as one goes: makes UnreadableError of what does not make sense."""
    try:
        yield
    except (*_MISREAD, DWARFError) as error:
        message = f"broken debug information: {error!s}"
        raise UnreadableError([Diagnostic("bad-dwarf", message, Location(file=name))]) from error


def find_debug_entry(data: bytes, address: int) -> Any:  # a DIE, whose library has no types
    """The DWARF entry of the function at `address` of an ELF file of any machine; None when there is none."""
    elf = ELFFile(io.BytesIO(data))
    if not elf.has_dwarf_info():
        return None
    dwarf = elf.get_dwarf_info()
    ranges = dwarf.get_aranges()
    offset = ranges.cu_offset_at_addr(address) if ranges is not None else None
    units = dwarf.iter_CUs() if offset is None else [dwarf.get_CU_at(offset)]
    for unit in units:
        for entry in unit.iter_DIEs():
            start = entry.attributes.get("DW_AT_low_pc")
            if entry.tag == "DW_TAG_subprogram" and start is not None and start.value == address:
                return entry
    return None


def read_elf(data: bytes, name: str) -> ElfFile:
    """The sections and symbols of a relocatable 64-bit BPF file. Raises UnreadableError."""
    at = Location(file=name)
    try:
        parser = ELFFile(io.BytesIO(data))
        machine, kind, width = parser["e_machine"], parser["e_type"], parser.elfclass
    except _MISREAD as error:
        raise _error("not-elf", f"cannot read an ELF header: {error}", at) from error
    if machine not in ("EM_BPF", "EM_NONE") or width != 64:
        raise _error("not-bpf", f"ELF file is for {width}-bit machine {machine}, wanted 64-bit EM_BPF", at)
    if kind != "ET_REL":
        raise _error(
            "not-relocatable", f"ELF file is of type {kind}, wanted a relocatable object (ET_REL)", at
        )
    try:
        sections = _read_sections(parser, data, at)
        symbols = _read_symbols(parser, sections, at)
    except _MISREAD as error:
        raise _error("bad-elf", f"malformed ELF file: {error}", at) from error
    return ElfFile(name, not parser.little_endian, sections, symbols, parser)


def read_relocations(file: ElfFile, table: Section) -> list[ElfRelocation]:
    """The relocations of a SHT_REL or SHT_RELA section, in the order of the file. Raises UnreadableError."""
    return [
        ElfRelocation(row.offset, row.type, file.symbols[row.symbol], row.addend)
        for row in relocation_rows(file, table)
    ]


def relocation_rows(file: ElfFile, table: Section) -> list[RelocationRow]:
    """The same by the numbers of symbols, all of which are there. Raises UnreadableError."""
    structs, at = file.parser.structs, Location(file=file.name, section=table.name)
    row = structs.Elf_Rela if table.type == "SHT_RELA" else structs.Elf_Rel
    count = _count(table, row.sizeof(), at)
    found: list[RelocationRow] = []
    stream = io.BytesIO(table.data)
    try:
        for number in range(count):
            entry = struct_parse(row, stream, number * row.sizeof())
            symbol = entry["r_info_sym"]
            if symbol >= len(file.symbols):
                raise _error(
                    "bad-relocation",
                    f"relocation {number} is against symbol {symbol}, which is not there",
                    at,
                )
            found.append(
                RelocationRow(entry["r_offset"], entry["r_info_type"], symbol, entry.get("r_addend"))
            )
    except _MISREAD as error:
        raise _error("bad-elf", f"malformed relocations: {error}", at) from error
    return found


def _read_sections(parser: ELFFile, data: bytes, at: Location) -> list[Section]:
    start, step, count = parser["e_shoff"], parser["e_shentsize"], parser["e_shnum"]
    row = parser.structs.Elf_Shdr
    if not start:
        raise _error("bad-elf", "ELF file has no section headers", at)
    if step < row.sizeof() or start + step > len(data):
        raise _error(
            "bad-elf", f"section headers of {step} bytes at byte {start:#x} are outside the file", at
        )
    headers = [struct_parse(row, parser.stream, start)]
    count = count or headers[0]["sh_size"]
    if start + count * step > len(data):
        raise _error("bad-elf", f"{count} section headers at byte {start:#x} are outside the file", at)
    headers += [struct_parse(row, parser.stream, start + number * step) for number in range(1, count)]
    named = parser["e_shstrndx"]
    named = headers[0]["sh_link"] if named == 0xFFFF else named
    if not named < count:
        raise _error("bad-elf", f"section names are in section {named} of {count}", at)
    zeroed = sum(header["sh_size"] for header in headers[1:] if header["sh_type"] == "SHT_NOBITS")
    if zeroed > MAX_ZEROED:
        raise _error(
            "section-too-large", f"sections without content ask for {zeroed} bytes, at most {MAX_ZEROED}", at
        )
    filled = sum(header["sh_size"] for header in headers[1:] if header["sh_type"] not in _WITHOUT_CONTENT)
    if filled > 2 * len(data):
        raise _error("bad-elf", f"sections overlap: {filled} bytes in a file of {len(data)}", at)
    names = _contents(headers[named], data, at)
    sections = [Section(0, "", "SHT_NULL", 0, 0, 0, 0, 0, b"")]
    for number, header in enumerate(headers[1:], 1):
        where = Location(file=at.file, section=f"section {number}")
        name = _string(names, header["sh_name"], where)
        sections.append(
            Section(
                number,
                name,
                str(header["sh_type"]),
                header["sh_flags"],
                header["sh_size"],
                header["sh_link"],
                header["sh_info"],
                header["sh_entsize"],
                _contents(header, data, Location(file=at.file, section=name)),
            )
        )
    return sections


def _contents(header: Any, data: bytes, at: Location) -> bytes:
    start, size = header["sh_offset"], header["sh_size"]
    if header["sh_type"] == "SHT_NOBITS":
        return bytes(size)
    if header["sh_type"] == "SHT_NULL":
        return b""
    if start + size > len(data):
        raise _error("bad-elf", f"section of {size} bytes at byte {start:#x} is outside the file", at)
    return data[start : start + size]


def _read_symbols(parser: ELFFile, sections: Sequence[Section], at: Location) -> list[ElfSymbol]:
    tables = [section for section in sections if section.type == "SHT_SYMTAB"]
    if not tables:
        return []
    if len(tables) > 1:
        raise _error("bad-elf", f"ELF file has {len(tables)} symbol tables", at)
    table, row = tables[0], parser.structs.Elf_Sym
    at = Location(file=at.file, section=table.name)
    count = _count(table, row.sizeof(), at)
    if count > MAX_SYMBOLS:
        raise _error("too-many-symbols", f"ELF file has {count} symbols, at most {MAX_SYMBOLS}", at)
    if not 0 < table.link < len(sections):
        raise _error("bad-elf", f"symbol names are in section {table.link} of {len(sections)}", at)
    names = sections[table.link].data
    stream = io.BytesIO(table.data)
    symbols = []
    for number in range(count):
        entry = struct_parse(row, stream, number * row.sizeof())
        section = _section_number(entry["st_shndx"])
        if section >= len(sections):
            raise _error("bad-elf", f"symbol {number} is in section {section} of {len(sections)}", at)
        name = _string(names, entry["st_name"], at)
        if not name and entry["st_info"]["type"] == "STT_SECTION":
            name = sections[section].name
        symbols.append(
            ElfSymbol(
                name,
                section,
                entry["st_value"],
                entry["st_size"],
                str(entry["st_info"]["type"]),
                str(entry["st_info"]["bind"]),
                str(entry["st_other"]["visibility"]),
            )
        )
    return symbols


def _section_number(index: int | str) -> int:
    if index == "SHN_UNDEF":
        return _UNDEFINED
    if isinstance(index, str) or index >= _FIRST_RESERVED:
        return -1
    return index


def _count(table: Section, entry_size: int, at: Location) -> int:
    if table.entry_size != entry_size or table.size % entry_size:
        said = f"table of {table.size} bytes has entries of {table.entry_size}, wanted {entry_size}"
        raise _error("bad-elf", said, at)
    return len(table.data) // entry_size


def _string(strings: bytes, offset: int, at: Location) -> str:
    end = strings.find(b"\0", offset, offset + MAX_NAME + 1) if offset < len(strings) else -1
    if end < 0:
        if not offset:
            return ""
        raise _error("bad-elf", f"name at byte {offset:#x} of the string table does not end in it", at)
    return strings[offset:end].decode("utf-8", "backslashreplace")


def _error(code: str, message: str, at: Location) -> UnreadableError:
    return UnreadableError([Diagnostic(code, message, at, errno=EINVAL)])
