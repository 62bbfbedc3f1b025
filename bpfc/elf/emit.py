"""An object with other code: the file that was read, with functions rewritten, and everything about them moved along.

    section xdp   | filter, 40 slots | ...        ->     | filter, 31 slots | ...
    .rel xdp        at slots 3 and 17                      at slots 3 and 12
    .symtab         sizes, places                          .BTF.ext  functions, lines, CO-RE records by new offsets

Maps, types, the license and data stay the bytes that they were (data: as it was set since). Functions that no
program reaches any more go, and so does what debuggers read (DWARF), which would no longer be true.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from errno import EINVAL
from struct import pack
from typing import Final, Literal, NoReturn, final

from bpfc.elf.emit_records import move_records
from bpfc.elf.file import ElfSymbol, RelocationRow, Section, read_elf, relocation_rows
from bpfc.elf.rewritten import Rewriting, collect_functions
from bpfc.elf.writer import TYPES, OutputSection, can_write, write_sections
from ir.btf_ext import read_btf_ext
from ir.bytecode import Rewritten
from ir.diagnostics import Diagnostic, Location, UnreadableError, UnsupportedError
from ir.encoding import encode
from ir.isa import Insn
from ir.object import Object

R_BPF_64_32: Final = 10
_DROPPED: Final = (".debug", ".rel.debug", ".rela.debug", ".llvm_addrsig", ".eh_frame", ".rel.eh_frame")
_TABLES: Final = ("SHT_REL", "SHT_RELA")
_REBUILT: Final = ("SHT_SYMTAB", "SHT_STRTAB", "SHT_NULL")
_RECORDS: Final = (".rel.BTF.ext", ".rela.BTF.ext")  # of .BTF.ext, whose offsets stand in it as they are


def emit_object(data: bytes, source: Object, rewritten: Mapping[str, Rewritten]) -> bytes:
    """The object file `data`, which `source` was read from, with these programs of it as they were rewritten.

    Raises UnsupportedError for what refers to code in ways that can't be followed.
    """
    return _Emitter(data, source, rewritten).run()


@final
@dataclass(slots=True)
class _Code:
    """A code section that is written anew: its functions by their old offsets, and where they are now."""

    section: Section
    functions: list[Rewriting]
    bases: dict[int, int]
    size: int


@final
class _Emitter:
    """Owns what the steps share; `symbols` numbers the symbols that stay."""

    def __init__(self, data: bytes, source: Object, rewritten: Mapping[str, Rewritten]) -> None:
        self.source = source
        self.file = read_elf(data, source.name)
        self.head = data[:64]
        self.order: Literal["little", "big"] = "big" if self.file.big_endian else "little"
        self._check()
        self.functions = collect_functions(source, rewritten)
        self.codes = self._lay_out()
        self.kept = [section for section in self.file.sections if self._is_kept(section)]
        self.numbers = {section.number: number for number, section in enumerate(self.kept, 1)}
        self.symbols = self._keep_symbols()

    def run(self) -> bytes:
        """The new file."""
        parts = [self._part(section) for section in self.kept]
        kept = sorted(self.symbols, key=self.symbols.__getitem__)
        table = [self._moved_symbol(self.file.symbols[number]) for number in kept]
        return write_sections(parts, table, self.head, self.file.big_endian)

    def _check(self) -> None:
        """Refuse what no loader of Linux takes, or what can't be written."""
        for section in self.file.sections[1:]:
            if section.type not in (*TYPES, *_REBUILT) and not section.name.startswith(_DROPPED):
                self._refuse(section, f"it is of type {section.type}", 0)

        for symbol in self.file.symbols:
            if not can_write(symbol):
                section = self.file.sections[max(symbol.section, 0)]
                self._refuse(section, f"symbol '{symbol.name}' is of type {symbol.type}", symbol.offset)

    def _lay_out(self) -> dict[int, _Code]:
        codes: dict[int, _Code] = {}
        for section in self.file.sections:
            if not section.is_code:
                continue
            found = sorted(
                (each for each in self.functions.values() if each.place.section == section.name),
                key=lambda each: each.place.offset,
            )
            if not found:
                continue
            bases: dict[int, int] = {}
            size = 0
            for function in found:
                bases[function.place.offset] = size
                size += 8 * function.slots
            codes[section.number] = _Code(section, found, bases, size)
        return codes

    def _is_kept(self, section: Section) -> bool:
        if section.name == ".BTF.ext":
            return self._has_records(section)
        if section.type in _REBUILT or section.name.startswith(_DROPPED) or section.name in _RECORDS:
            return False
        if section.type in _TABLES:
            owner = self.file.sections[section.info] if section.info < len(self.file.sections) else section
            return owner.type not in _TABLES and self._is_kept(owner)
        return not section.is_code or section.number in self.codes

    def _keep_symbols(self) -> dict[int, int]:
        """The new number of each symbol that stays."""
        kept = [number for number, symbol in enumerate(self.file.symbols) if number and self._stays(symbol)]
        return {number: position for position, number in enumerate(kept, 1)}

    def _stays(self, symbol: ElfSymbol) -> bool:
        if symbol.section <= 0:
            return symbol.section == 0 or symbol.type == "STT_FILE"
        if symbol.section not in self.numbers:
            return False
        code = self.codes.get(symbol.section)
        return code is None or symbol.is_section or symbol.offset in code.bases

    def _moved_symbol(self, symbol: ElfSymbol) -> ElfSymbol:
        code = self.codes.get(symbol.section)
        number = self.numbers.get(symbol.section, symbol.section)
        if code is None or symbol.is_section:
            return replace(symbol, section=number)
        slots = next(each.slots for each in code.functions if each.place.offset == symbol.offset)
        size = 8 * slots if symbol.size else 0
        return replace(symbol, section=number, offset=code.bases[symbol.offset], size=size)

    def _part(self, section: Section) -> OutputSection:
        link = info = 0
        data = section.data
        if section.type in _TABLES:
            data = self._relocations(section)
            link, info = len(self.kept) + 1, self.numbers[section.info]
        elif section.number in self.codes:
            data = self._code(self.codes[section.number])
        elif section.name == ".BTF.ext":
            data = self._records(section)
        elif section.type != "SHT_NOBITS":
            data = self._content(section)
        return OutputSection(
            section.name, section.type, section.flags, section.entry_size, data, section.size, link, info
        )

    def _content(self, section: Section) -> bytes:
        """Data as it was set since, and pointers to functions as far as they are distances in a section."""
        changed = bytearray(section.data)
        for found in self.source.maps.values():
            if (
                found.section == section.name
                and found.initial is not None
                and len(found.initial) == section.size
            ):
                changed[:] = found.initial
                for offset, size in found.relocated:  # what stands there is for the loader to replace
                    changed[offset : offset + size] = section.data[offset : offset + size]
        for table in self._tables(section):
            for row in relocation_rows(self.file, table):
                symbol = self.file.symbols[row.symbol]
                if symbol.section not in self.codes or row.addend is not None or not symbol.is_section:
                    continue
                word = slice(row.offset, row.offset + 8)
                addend = int.from_bytes(changed[word], self.order)
                if addend not in self.codes[symbol.section].bases:
                    self._refuse(
                        section, f"a word points into code of section '{self._name(symbol)}'", row.offset
                    )
                changed[word] = self.codes[symbol.section].bases[addend].to_bytes(8, self.order)
        return bytes(changed)

    def _tables(self, section: Section) -> Iterator[Section]:
        for table in self.file.sections:
            if table.type in _TABLES and table.info == section.number:
                yield table

    def _name(self, symbol: ElfSymbol) -> str:
        return self.file.sections[symbol.section].name

    def _code(self, code: _Code) -> bytes:
        """The instructions, with the words that relocations and calls want in them."""
        fields = self._words(code)
        out: list[Insn] = []
        for function in code.functions:
            base = code.bases[function.place.offset]
            slot = 0
            for insn in function.insns:
                out.append(self._linked(code, function, insn, base + 8 * slot, fields))
                slot += insn.slots
        return encode(out, self.file.big_endian)

    def _linked(
        self, code: _Code, function: Rewriting, insn: Insn, at: int, fields: Mapping[int, Insn]
    ) -> Insn:
        """An instruction of the file: relocated ones as the loader wants them, calls by their distance."""
        if at in fields:
            return fields[at]
        callee = function.callees.get((at - code.bases[function.place.offset]) // 8)
        if callee is None:
            return insn
        if callee.section != code.section.name:
            self._refuse(code.section, f"a call of '{callee.section}' has no relocation", at)
        return insn._replace(imm=(code.bases[callee.offset] - at) // 8 - 1)

    def _words(self, code: _Code) -> dict[int, Insn]:
        """By new offset: each relocated instruction as it stands in the file, with its addend brought up to date."""
        words: dict[int, Insn] = {}
        for table in self._tables(code.section):
            for row in relocation_rows(self.file, table):
                at = self._moved_row(code, row)
                if at is None:
                    continue
                insn = self._as_read(code.section, row.offset)
                if row.addend is None:
                    addend = self._addend(code, row, insn)
                    if addend is not None:
                        insn = insn._replace(imm=addend // 8 - 1 if row.type == R_BPF_64_32 else addend)
                words[at] = insn
        return words

    def _as_read(self, section: Section, offset: int) -> Insn:
        """The instruction at a byte of the file, fields as they are there."""
        data = section.data[offset : offset + 8]
        registers = data[1]
        dst, src = (
            (registers & 15, registers >> 4) if self.order == "little" else (registers >> 4, registers & 15)
        )
        jump = int.from_bytes(data[2:4], self.order, signed=True)
        imm = int.from_bytes(data[4:8], self.order, signed=data[0] != 0x18)
        if data[0] == 0x18:
            imm |= int.from_bytes(section.data[offset + 12 : offset + 16], self.order) << 32
        return Insn(data[0], dst, src, jump, imm)

    def _moved_row(self, code: _Code, row: RelocationRow) -> int | None:
        """Where a relocated instruction is now; None when it is gone or another stands there."""
        for function in code.functions:
            begin = function.place.offset
            if begin <= row.offset < begin + 8 * len(function.moved):
                slot = function.kept.get((row.offset - begin) // 8)
                return None if slot is None else code.bases[begin] + 8 * slot
        return None

    def _addend(self, code: _Code, row: RelocationRow, insn: Insn) -> int | None:
        """The distance from the symbol to the function that a relocation means, now; None for other relocations."""
        symbol = self.file.symbols[row.symbol]
        target = self.codes.get(symbol.section)
        if target is None:
            return None
        is_call = row.type == R_BPF_64_32
        addend = row.addend if row.addend is not None else 8 * (insn.imm + 1) if is_call else insn.imm
        place = symbol.offset + addend
        if place not in target.bases or not self._stays(symbol):
            self._refuse(
                code.section, f"a relocation goes into the middle of '{target.section.name}'", row.offset
            )
        return target.bases[place] - self._moved_symbol(symbol).offset

    def _relocations(self, table: Section) -> bytes:
        """A relocation table by new offsets and symbols."""
        code = self.codes.get(table.info)
        layout = ">" if self.order == "big" else "<"
        out = bytearray()
        for row in relocation_rows(self.file, table):
            offset, addend = row.offset, row.addend
            if code is not None:
                moved = self._moved_row(code, row)
                if moved is None:
                    continue
                if addend is not None:
                    new = self._addend(code, row, self._as_read(code.section, row.offset))
                    addend = addend if new is None else new
                offset = moved
            symbol = self.symbols.get(row.symbol)
            if symbol is None:
                name = self.file.symbols[row.symbol].name
                self._refuse(table, f"'{name}', which a relocation names, is not emitted", row.offset)
            out += pack(f"{layout}QQ", offset, symbol << 32 | row.type)
            if addend is not None:
                out += pack(f"{layout}q", addend)
        return bytes(out)

    def _has_records(self, section: Section) -> bool:
        """Whether it can be read; reading the object was content without."""
        try:
            return self.source.btf is not None and bool(read_btf_ext(section.data, self.source.btf))
        except UnreadableError:
            return False

    def _records(self, section: Section) -> bytes:
        assert self.source.btf is not None, "it is kept where there are types"
        return move_records(section.data, self.source.btf, self._sections())

    def _sections(self) -> dict[str, list[tuple[Rewriting, int]]]:
        """By section name, its functions with their new offsets."""
        return {
            code.section.name: [(each, code.bases[each.place.offset]) for each in code.functions]
            for code in self.codes.values()
        }

    def _refuse(self, section: Section, said: str, offset: int) -> NoReturn:
        at = Location(file=self.file.name, section=section.name, offset=offset)
        raise UnsupportedError(
            [Diagnostic("cannot-emit", f"{said}, and can't be moved with it", at, errno=EINVAL)]
        )
