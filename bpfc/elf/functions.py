"""The functions of an object: where each begins, its instructions, and what is recorded about them.

section   | main           | helper    | ...            one Code per function symbol
lines       ^  ^^    ^       ^   ^                      offsets become instruction numbers of the Code
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

from bpfc.elf.file import ElfSymbol, Section
from bpfc.elf.image import Image
from ir.btf_ext import CoreRelocation, LineRecord
from ir.diagnostics import DiagnosticError, Location
from ir.encoding import decode
from ir.isa import Callee, Insn, Wide, slot_numbers
from ir.object import Reference

CALL_OPCODE = 0x85
CALLX_OPCODE = 0x8D
WIDE_OPCODE = 0x18


@final
@dataclass(slots=True, eq=False)
class Code:
    """A function as the object holds it, before linking; `offset` is its first byte in `section`.

    `targets` and `references` are keyed by instruction number, `lines` and `core` by slot. A target is
    the (section number, byte offset) of the function that the instruction calls or takes the address
    of.
    """

    name: str
    section: Section
    offset: int
    insns: list[Insn]
    starts: list[int]
    is_entry: bool
    is_global: bool
    btf_id: int = 0
    targets: dict[int, tuple[int, int]] = field(default_factory=dict)
    references: dict[int, Reference] = field(default_factory=dict)
    lines: dict[int, LineRecord] = field(default_factory=dict)
    core: dict[int, CoreRelocation] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The byte after its last one, in `section`."""
        return self.offset + 8 * self.starts[-1]

    def insn_at(self, offset: int) -> int | None:
        """The number of the instruction that begins at byte `offset` of the section."""
        slot, rest = divmod(offset - self.offset, 8)
        number = bisect_left(self.starts, slot)
        return number if not rest and self.starts[number] == slot and number < len(self.insns) else None

    def location(self, image: Image, number: int) -> Location:
        """Where instruction `number` is."""
        return Location(image.file.name, self.section.name, self.name, self.starts[number])


def collect_code(image: Image) -> list[Code]:
    """Every function of every code section, by section and offset; what is not code is noted in `image`."""
    found: list[Code] = []
    sections = [section for section in image.file.sections if section.is_code]
    only_text = all(section.name == ".text" for section in sections)
    for section in sections:
        spans = _spans(image, section)
        for name, begin, end, owner in spans:
            code = _decode(image, section, name, begin, end)
            if code is not None:
                is_local = owner is not None and owner.is_local
                code.is_entry = not is_local and (only_text or section.name != ".text")
                code.is_global = not is_local and not (owner is not None and owner.is_hidden)
                found.append(code)
    for code in [code for code in found if not _has_symbols(image.symbols(code.section))]:
        found += _split_unnamed(code)
    _attach_records(image, found)
    return found


def _is_start(symbol: ElfSymbol) -> bool:
    return symbol.is_function


def _is_old_start(symbol: ElfSymbol) -> bool:
    """Before LLVM 8 functions were not marked; labels inside of them were local."""
    return symbol.type == "STT_NOTYPE" and not symbol.is_local and bool(symbol.name)


def _has_symbols(symbols: Sequence[ElfSymbol]) -> bool:
    return any(map(_is_start, symbols)) or any(map(_is_old_start, symbols))


def _spans(image: Image, section: Section) -> Iterator[tuple[str, int, int, ElfSymbol | None]]:
    """Name, first byte, byte after the last and symbol of each function of `section`."""
    symbols = image.symbols(section)
    chosen = list(filter(_is_start, symbols)) or list(filter(_is_old_start, symbols))
    if not chosen:
        yield re.sub(r"\W+", "_", section.name).strip("_") or "main", 0, section.size, None
        return
    chosen.sort(key=lambda symbol: symbol.offset)
    begins = sorted({symbol.offset for symbol in chosen})
    following = dict(zip(begins, [*begins[1:], section.size], strict=True))
    for symbol in chosen:
        begin, limit = symbol.offset, following[symbol.offset]
        end = begin + symbol.size if symbol.size else limit
        if begin % 8 or not begin < end <= limit or end > section.size:
            said = f"function '{symbol.name}', bytes {begin:#x} to {end:#x}, does not fit before {limit:#x}"
            image.problem("bad-function", said, image.file.at(section, begin))
        else:
            yield symbol.name, begin, end, symbol


def _decode(image: Image, section: Section, name: str, begin: int, end: int) -> Code | None:
    at = Location(image.file.name, section.name, name)
    try:
        insns = decode(section.data[begin:end], image.file.big_endian, at)
    except DiagnosticError as error:
        image.problems += error.diagnostics
        return None
    return Code(name, section, begin, list(insns), slot_numbers(insns), is_entry=False, is_global=False)


def calls_within(code: Code) -> Iterator[tuple[int, int]]:
    """Each pc-relative call: its number, and the slot of `code` it goes to as the bytes stand."""
    for number, insn in enumerate(code.insns):
        if insn.opcode == CALL_OPCODE and insn.src == Callee.SUBPROGRAM.value:
            yield number, code.starts[number] + 1 + insn.imm
        elif insn.opcode == WIDE_OPCODE and insn.src == Wide.FUNC.value:
            low = insn.imm & 0xFFFF_FFFF
            yield number, code.starts[number] + 1 + (low - (1 << 32) if low >> 31 else low)


def _split_unnamed(code: Code) -> list[Code]:
    """Cut the only Code of a section without symbols where its own calls go; the first part stays `code`."""
    number_of = {slot: number for number, slot in enumerate(code.starts[:-1])}
    cuts = sorted({number_of[slot] for _, slot in calls_within(code) if number_of.get(slot, 0)})
    parts: list[Code] = []
    if not cuts:
        return parts
    for order, (first, last) in enumerate(zip(cuts, [*cuts[1:], len(code.insns)], strict=True), 1):
        insns = code.insns[first:last]
        offset = code.offset + 8 * code.starts[first]
        name = f"{code.name}_{order}"
        parts.append(
            Code(name, code.section, offset, insns, slot_numbers(insns), is_entry=False, is_global=False)
        )
    del code.insns[cuts[0] :]
    del code.starts[cuts[0] + 1 :]
    return parts


def _attach_records(image: Image, codes: Sequence[Code]) -> None:
    """Give each Code the function, line and CO-RE records that are about its bytes."""
    functions = {name: dict(records) for name, records in image.ext.functions.items()}
    lines = {name: sorted(records) for name, records in image.ext.lines.items()}
    core = {name: sorted(records, key=_first) for name, records in image.ext.core.items()}
    for code in codes:
        section, begin = code.section.name, code.offset
        code.btf_id = functions.get(section, {}).get(begin, 0)
        part = lines.get(section, [])
        first, last = (bisect_left(part, place, key=_first) for place in (begin, code.end))
        code.lines = {(record.offset - begin) >> 3: record for record in part[first:last]}
        asked = core.get(section, [])
        first, last = (bisect_left(asked, place, key=_first) for place in (begin, code.end))
        code.core = {(offset - begin) >> 3: relocation for offset, relocation in asked[first:last]}


def _first(record: LineRecord | tuple[int, CoreRelocation]) -> int:
    return record[0]
