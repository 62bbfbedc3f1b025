"""What the steps of reading an object share: the file, its types and the diagnostics so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from errno import EINVAL
from typing import Literal, final

from bpfc.elf.file import ElfFile, ElfRelocation, ElfSymbol, Section, read_relocations
from ir.btf import Btf, read_btf
from ir.btf_ext import BtfExt, read_btf_ext
from ir.btf_types import BtfKind, DataSection, Function, Linkage, Prototype, Variable
from ir.diagnostics import Diagnostic, Location, Severity, UnreadableError

R_BPF_64_64 = 1
R_BPF_64_ABS64 = 2
R_BPF_64_ABS32 = 3
R_BPF_64_NODYLD32 = 4
R_BPF_64_32 = 10

RELOCATION_NAMES = {
    0: "R_BPF_NONE",
    R_BPF_64_64: "R_BPF_64_64",
    R_BPF_64_ABS64: "R_BPF_64_ABS64",
    R_BPF_64_ABS32: "R_BPF_64_ABS32",
    R_BPF_64_NODYLD32: "R_BPF_64_NODYLD32",
    R_BPF_64_32: "R_BPF_64_32",
}
_DATASEC_SIZE = 8  # byte offset of a BTF record's third word
_DATASEC_ENTRIES = 12  # of what follows it: type, offset and size of each variable


@final
@dataclass(slots=True)
class Image:
    """An object while it is being read, owned by `read_object`; `problems` refuse it at the end."""

    file: ElfFile
    object_name: str
    btf: Btf | None = None
    ext: BtfExt = field(default_factory=lambda: BtfExt({}, {}, {}))
    problems: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    _tables: dict[int, list[Section]] = field(default_factory=dict)
    _relocations: dict[int, list[ElfRelocation]] = field(default_factory=dict)
    _symbols: dict[int, list[ElfSymbol]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find what belongs to which section."""
        for table in self.file.sections:
            if table.type in ("SHT_REL", "SHT_RELA"):
                self._tables.setdefault(table.info, []).append(table)
        for symbol in self.file.symbols:
            if symbol.section > 0:
                self._symbols.setdefault(symbol.section, []).append(symbol)

    @property
    def order(self) -> str:
        """The byte order as `struct` writes it."""
        return ">" if self.file.big_endian else "<"

    def problem(self, code: str, message: str, at: Location, errno: int = EINVAL) -> None:
        """Note why the object is refused."""
        self.problems.append(Diagnostic(code, message, at, errno=errno))

    def warn(self, code: str, message: str, at: Location) -> None:
        """Note something odd."""
        self.warnings.append(Diagnostic(code, message, at, Severity.WARNING))

    def relocations(self, section: Section) -> Sequence[ElfRelocation]:
        """The relocations of `section`. Raises UnreadableError."""
        found = self._relocations.get(section.number)
        if found is None:
            tables = self._tables.get(section.number, ())
            found = [relocation for table in tables for relocation in read_relocations(self.file, table)]
            self._relocations[section.number] = found
        return found

    def symbols(self, section: Section) -> Sequence[ElfSymbol]:
        """The symbols that are defined in `section`."""
        return self._symbols.get(section.number, ())

    def section_of(self, symbol: ElfSymbol) -> Section | None:
        """The section that `symbol` is defined in, None when it is undefined or absolute."""
        return self.file.sections[symbol.section] if symbol.section > 0 else None

    def count_parameters(self, btf_id: int) -> int | None:
        """How many parameters a function has by its type, None when it has none."""
        if self.btf is None or not btf_id:
            return None
        function = self.btf.type(btf_id)
        prototype = self.btf.type(function.type_id) if isinstance(function, Function) else None
        return len(prototype.parameters) if isinstance(prototype, Prototype) else None


def load_types(image: Image) -> None:
    """Read .BTF and .BTF.ext into `image`.

    Types that cannot be read are fatal where maps or externs are declared by them, elsewhere only a warning.
    """
    section = image.file.find(".BTF")
    if section is None:
        return
    try:
        image.btf = _read_fixed(image, section)
    except UnreadableError as error:
        if _needs_types(image.file):
            raise
        image.warnings += [_softened(problem) for problem in error.diagnostics]
        return
    ext = image.file.find(".BTF.ext")
    if ext is None:
        return
    try:
        image.ext = read_btf_ext(ext.data, image.btf, image.file.at(ext))
    except UnreadableError as error:
        image.warnings += [_softened(problem) for problem in error.diagnostics]


def _needs_types(file: ElfFile) -> bool:
    if file.find(".maps") is not None:
        return True
    return any(symbol.section == 0 and symbol.name for symbol in file.symbols)


def _softened(problem: Diagnostic) -> Diagnostic:
    return Diagnostic(problem.code, problem.message, problem.at, Severity.WARNING)


def _read_fixed(image: Image, section: Section) -> Btf:
    """The types with what clang leaves to the loader: offsets of variables, sizes of their sections."""
    at = image.file.at(section)
    data = bytearray(section.data)
    order: Literal["big", "little"] = "big" if image.file.big_endian else "little"
    for relocation in image.relocations(section):
        if relocation.type not in (R_BPF_64_ABS32, R_BPF_64_NODYLD32) or relocation.offset + 4 > len(data):
            continue
        place = slice(relocation.offset, relocation.offset + 4)
        addend = int.from_bytes(data[place], order) if relocation.addend is None else relocation.addend
        data[place] = (relocation.symbol.offset + addend & 0xFFFF_FFFF).to_bytes(4, order)
    btf = read_btf(bytes(data), at=at)
    if btf.big_endian != image.file.big_endian:
        raise UnreadableError(
            [Diagnostic("bad-btf", "BTF and ELF file differ in byte order", at, errno=EINVAL)]
        )
    sizes = {part.name: part.size for part in reversed(image.file.sections)}
    symbols = {symbol.name: symbol for symbol in image.file.symbols if symbol.section > 0}
    for id in btf.of_kind(BtfKind.DATASEC):
        _fill_section(btf, id, sizes, symbols, data, order)
    return btf if data == btf.data else read_btf(bytes(data), at=at)


def _fill_section(
    btf: Btf,
    id: int,
    sizes: Mapping[str, int],
    symbols: Mapping[str, ElfSymbol],
    data: bytearray,
    order: Literal["big", "little"],
) -> None:
    """Write the size of a section that has none yet, and the offsets of the symbols in it."""

    def write(place: int, value: int) -> None:
        data[place : place + 4] = (value & 0xFFFF_FFFF).to_bytes(4, order)

    section = btf.type(id)
    assert isinstance(section, DataSection)
    if section.size:
        return
    start = btf.byte_offset(id)
    write(start + _DATASEC_SIZE, sizes.get(section.name, 0))
    for number, entry in enumerate(section.entries):
        variable = btf.type(entry.type_id)
        if isinstance(variable, Variable) and variable.linkage is Linkage.GLOBAL and variable.name in symbols:
            write(start + _DATASEC_ENTRIES + 12 * number + 4, symbols[variable.name].offset)
