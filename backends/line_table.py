"""Which BPF instruction native code is for: the line table of an object that was lowered with slots for lines.

    .debug_line    set_address f; advance, advance, ...; end        DWARF 4, 6.2
    line           slot + 1, since line 0 means nobody's

Lowering writes the debug information of a made-up file whose line N + 1 is slot N (`line_metadata`), so that LLVM keeps
track of instructions through all its passes; reading the table back gives marks in the order of the code.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from backends.elf_object import ElfObject, ElfSection
from backends.leb128 import read_signed, read_unsigned
from backends.native_code import NO_SLOT, LineMark

LINES: Final = ".debug_line"
_FIRST: Final = 1 << 20  # metadata from here on is ours
_COPY, _ADVANCE_PC, _ADVANCE_LINE, _CONST_ADD, _FIXED_ADVANCE = 1, 2, 3, 8, 9
_END, _SET_ADDRESS = 1, 2


def line_metadata(functions: Sequence[tuple[str, int, int]]) -> list[str]:
    """Debug information as LLVM text for functions of (name, first slot, slots), in order."""
    unit, file, kind, flags = _FIRST, _FIRST + 1, _FIRST + 2, _FIRST + 3
    lines = [
        f"!llvm.dbg.cu = !{{!{unit}}}",
        f"!llvm.module.flags = !{{!{flags}, !{flags + 1}}}",
        f'!{unit} = distinct !DICompileUnit(language: DW_LANG_C99, file: !{file}, producer: "bpfc", '
        "isOptimized: true, runtimeVersion: 0, emissionKind: LineTablesOnly)",
        f'!{file} = !DIFile(filename: "program", directory: "")',
        f"!{kind} = !DISubroutineType(types: !{{}})",
        f'!{flags} = !{{i32 2, !"Debug Info Version", i32 3}}',
        f'!{flags + 1} = !{{i32 2, !"Dwarf Version", i32 4}}',
    ]
    for number, (_, start, slots) in enumerate(functions):
        scope = _scope(number)
        lines.append(
            f'!{scope} = distinct !DISubprogram(name: "f{number}", scope: !{file}, file: !{file}, '
            f"line: {start + 1}, type: !{kind}, unit: !{unit}, spFlags: DISPFlagDefinition)"
        )
        lines += [
            f"!{_location(slot)} = !DILocation(line: {slot + 1}, column: 0, scope: !{scope})"
            for slot in range(start, start + slots)
        ]
    return lines


def mark_lines(text: list[str], slot: int, since: int = 0) -> None:
    """Say of the instructions in `text` from `since` on that they are for a slot, where nobody has said it yet."""
    suffix = f", !dbg !{_location(slot)}"
    for number in range(since, len(text)):
        line = text[number]
        if line.startswith("  ") and ", !dbg !" not in line:
            text[number] = line + suffix


def scope_of(number: int) -> str:
    """What the definition of the function of that number has, to be one with debug information."""
    return f" !dbg !{_scope(number)}"


def read_lines(elf: ElfObject, kept: Mapping[int, int]) -> tuple[LineMark, ...]:
    """The marks of an object; `kept` is the new number of each section. None when it has no table."""
    marks: list[LineMark] = []
    for section in elf.sections:
        if section.name == LINES:
            marks += _read_section(elf, section, kept)
    marks.sort(key=lambda mark: (mark.section, mark.offset))
    distinct: list[LineMark] = []
    for mark in marks:
        if distinct and distinct[-1][:2] == mark[:2]:
            distinct.pop()
        if not distinct or distinct[-1].section != mark.section or distinct[-1].slot != mark.slot:
            distinct.append(mark)
    return tuple(distinct)


def _location(slot: int) -> int:
    return 2 * _FIRST + slot


def _scope(number: int) -> int:
    return _FIRST + 16 + number


def _read_section(elf: ElfObject, section: ElfSection, kept: Mapping[int, int]) -> Iterator[LineMark]:
    at = 0
    while at < len(section.data):
        (length,) = struct.unpack_from(elf.order + "I", section.data, at)
        yield from _Program(elf, section, at, at + 4 + length).run(kept)
        at += 4 + length


class _Program:
    """One line number program: the header at `start`, the instructions behind it up to `end`."""

    def __init__(self, elf: ElfObject, section: ElfSection, start: int, end: int) -> None:
        self.elf, self.data, self.end = elf, section.data, end
        version, header = struct.unpack_from(elf.order + "HI", self.data, start + 4)
        assert version == 4, "the module asks for DWARF 4"
        fields = struct.unpack_from("BBBbBB", self.data, start + 10)
        self.unit, _, _, self.line_base, self.line_range, self.opcode_base = fields
        self.lengths = self.data[start + 16 : start + 15 + self.opcode_base]
        self.at = start + 10 + header
        self.places: dict[int, tuple[int, int]] = {}
        self.differences: dict[int, int] = {}
        for offset, _, symbol, addend in section.relocations:
            value = elf.symbols[symbol].value + addend
            if offset in self.places:  # a pair: one adds its symbol, the other subtracts it
                self.differences[offset] = self.places[offset][1] - value
            else:
                self.places[offset] = (elf.symbols[symbol].section, value)

    def run(self, kept: Mapping[int, int]) -> Iterator[LineMark]:
        section = offset = 0
        line = 1
        while self.at < self.end:
            opcode = self._byte()
            if opcode >= self.opcode_base:
                steps, lines = divmod(opcode - self.opcode_base, self.line_range)
                offset += steps * self.unit
                line += self.line_base + lines
                yield LineMark(kept[section], offset, line - 1)
            elif opcode == 0:
                size = self._unsigned()
                kind, following = self.data[self.at], self.at + size
                if kind == _SET_ADDRESS:
                    section, offset = self.places[self.at + 1]
                elif kind == _END:
                    yield LineMark(kept[section], offset, NO_SLOT)
                    section, offset, line = 0, 0, 1
                self.at = following
            elif opcode == _COPY:
                yield LineMark(kept[section], offset, line - 1)
            elif opcode == _ADVANCE_PC:
                offset += self._unsigned() * self.unit
            elif opcode == _ADVANCE_LINE:
                line += self._signed()
            elif opcode == _CONST_ADD:
                offset += (255 - self.opcode_base) // self.line_range * self.unit
            elif opcode == _FIXED_ADVANCE:
                (step,) = struct.unpack_from(self.elf.order + "H", self.data, self.at)
                offset += self.differences.get(self.at, step)
                self.at += 2
            else:
                for _ in range(self.lengths[opcode - 1]):
                    self._unsigned()

    def _byte(self) -> int:
        value: int = self.data[self.at]
        self.at += 1
        return value

    def _unsigned(self) -> int:
        value, self.at = read_unsigned(self.data, self.at)
        return value

    def _signed(self) -> int:
        value, self.at = read_signed(self.data, self.at)
        return value
