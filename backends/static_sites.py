"""Where the static branches of an object are, by its stack maps, and where they go, by its exception tables.

Lowering writes a static branch as an `invoke` of a patchpoint, an edge that no pass can decide:

    record in .llvm_stackmaps   (key, offset of the NOPs from the function's start)
    .eh_frame                   function -> its table in .gcc_except_table
    .gcc_except_table           call-site range that contains the NOPs -> landing pad = where the jump goes

Where a target has `flags`, it is a test of the word `bpfc.flag.KEY` in .bpfc.flags, which is its site.

A branch that LLVM copied by inlining or unrolling has several records of one key. Formats:
llvm.org/docs/StackMaps, version 3; DWARF 5 section 6.4.1 and the LSB's exception frames; Itanium C++ ABI,
exception handling tables.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, final

from backends.elf_object import FUNCTION, ElfObject, ElfSection
from backends.leb128 import read_unsigned
from backends.native_code import Form, PatchSite, SiteKind
from backends.target import FarBranch, Patching, Target

_STACK_MAPS: Final = ".llvm_stackmaps"
FRAMES: Final = ".eh_frame"
_TABLES: Final = ".gcc_except_table"
FLAGS: Final = ".bpfc.flags"
FLAG: Final = "bpfc.flag."
_OMITTED: Final = 0xFF
_ULEB128: Final = 0x01
_UDATA4: Final = 0x03


@final
@dataclass(frozen=True, slots=True)
class StaticRegion:
    """A static branch in an object: `code` replaces the NOPs at `region_offset` of `elf_section`."""

    record: PatchSite
    elf_section: int
    region_offset: int
    code: bytes


def static_sites(
    elf: ElfObject,
    target: Target,
    numbers: Mapping[int, int],
    kept: Mapping[int, int],
    jumps_first: Container[int],
    room: int = 0,
) -> list[StaticRegion]:
    """The static branches of an object in the order of their places.

    `numbers` gives the new number of each of the object's symbols, `kept` that of each section. `room` is how many bytes
    LLVM was asked to leave, if not the usual.
    """
    if target.flags is not None:
        return list(_flags(elf, target.flags, numbers, kept, jumps_first))
    found: list[StaticRegion] = []
    tables = _function_tables(elf)
    for symbol, records in _records(elf):
        owner = elf.symbols[symbol]
        start = owner.value
        landing_pad = _landing_pads(elf, tables, (owner.section, start))
        for key, offset in records:
            region = start + offset
            pad = landing_pad(offset)
            form = Form.JUMP if key in jumps_first else Form.NOP
            site, code = _place(target, region, pad, form, room)
            record = PatchSite(
                SiteKind.STATIC,
                kept[owner.section],
                site,
                target.patching.length,
                numbers[symbol],
                key,
                pad,
                form,
            )
            found.append(StaticRegion(record, owner.section, region, code))
    return sorted(found, key=lambda site: (site.elf_section, site.region_offset))


def _flags(
    elf: ElfObject,
    patching: Patching,
    numbers: Mapping[int, int],
    kept: Mapping[int, int],
    jumps_first: Container[int],
) -> Iterator[StaticRegion]:
    for number, symbol in enumerate(elf.symbols):
        if not symbol.name.startswith(FLAG) or symbol.section not in kept:
            continue
        key = int(symbol.name.removeprefix(FLAG))
        form = Form.JUMP if key in jumps_first else Form.NOP
        word = patching.jump(0) if form is Form.JUMP else patching.nop(0)
        place = symbol.value
        record = PatchSite(
            SiteKind.STATIC, kept[symbol.section], place, len(word), numbers[number], key, place, form
        )
        yield StaticRegion(record, symbol.section, place, word)


def _place(target: Target, region: int, pad: int, form: Form, room: int) -> tuple[int, bytes]:
    """Where in the region the patched instruction stands, and the bytes of the whole region."""
    patching = target.patching
    if patching.far is not None and room == patching.far.region:
        return _place_far(patching, patching.far, region, pad, form)
    before = next(before for before in range(patching.region) if patching.fits(region + before))
    after = patching.region - before - patching.length
    assert after >= 0, "the region has room for one site inside an aligned word"
    site = region + before
    distance = pad - site if pad >= 0 else patching.length
    instruction = patching.nop(distance) if form is Form.NOP else patching.jump(distance)
    return site, patching.fill(before) + instruction + patching.fill(after)


def _place_far(patching: Patching, far: FarBranch, region: int, pad: int, form: Form) -> tuple[int, bytes]:
    """As `_place`, with room for a prefix that only a far branch has."""
    length = far.region - patching.length
    site = region + length
    distance = pad - site if pad >= 0 else patching.length
    is_near = patching.is_near(distance)
    prefix = patching.fill(length) if is_near else far.prefix(distance)
    jump = patching.jump(distance) if is_near else far.jump(distance)
    return site, prefix + (patching.nop(distance) if form is Form.NOP else jump)


def _records(elf: ElfObject) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """(symbol of the function, [(key, offset of the NOPs in it)]) from the stack maps.

    The record of a local function is relocated to the section that it is in, with the function's place as addend.
    """
    functions_at = {
        (symbol.section, symbol.value): number
        for number, symbol in enumerate(elf.symbols)
        if symbol.type == FUNCTION
    }
    for section in elf.sections:
        if section.name != _STACK_MAPS:
            continue
        data, order = section.data, elf.order
        assert data[0] == 3, "LLVM writes version 3 stack maps"
        functions, constants, _ = struct.unpack_from(order + "III", data, 4)
        owners = {
            offset: functions_at[elf.symbols[symbol].section, elf.symbols[symbol].value + addend]
            for offset, _, symbol, addend in section.relocations
        }
        at = 16 + 24 * functions + 8 * constants
        for index in range(functions):
            head = 16 + 24 * index
            (count,) = struct.unpack_from(order + "Q", data, head + 16)
            records = []
            for _ in range(count):
                key, offset, _, locations = struct.unpack_from(order + "QIHH", data, at)
                records.append((key, offset))
                at = _align(at + 16 + 12 * locations, 8) + 2
                (live_outs,) = struct.unpack_from(order + "H", data, at)
                at = _align(at + 2 + 4 * live_outs, 8)
            yield owners[head], records


def _align(offset: int, to: int) -> int:
    return -(-offset // to) * to


def _function_tables(elf: ElfObject) -> dict[tuple[int, int], tuple[ElfSection, int]]:
    """(section index, offset) of a function -> its exception table and the offset in it, from the frame
    descriptions.

    A frame description's first field is relocated to the function's start and one of its later ones to the
    table.
    """
    found: dict[tuple[int, int], tuple[ElfSection, int]] = {}
    for section in elf.sections:
        if section.name != FRAMES:
            continue
        by_offset: dict[int, tuple[int, int]] = {}
        for offset, _, symbol, addend in section.relocations:
            by_offset.setdefault(offset, (symbol, addend))
        for start, end in _frame_records(section.data, elf.order):
            inside = [by_offset[offset] for offset in range(start, end) if offset in by_offset]
            places = [
                (elf.symbols[symbol].section, elf.symbols[symbol].value + addend) for symbol, addend in inside
            ]
            for index, offset in places[1:]:
                if elf.sections[index].name.startswith(_TABLES):
                    found[places[0]] = (elf.sections[index], offset)
    return found


def _frame_records(data: bytes, order: str) -> Iterator[tuple[int, int]]:
    """(start, end) of the fields of each frame description; a zero identifier marks the common records
    between them.
    """
    at = 0
    while at + 8 <= len(data):
        length, identifier = struct.unpack_from(order + "II", data, at)
        if identifier and length:
            yield at + 8, at + 4 + length
        at += 4 + length


def _landing_pads(
    elf: ElfObject, tables: Mapping[tuple[int, int], tuple[ElfSection, int]], function: tuple[int, int]
) -> Callable[[int], int]:
    """What gives the offset in the section of where the branch at an offset of the function goes.

    It is -1 for a branch that can never be taken.
    """
    entries = sorted(_call_sites(elf, *tables[function])) if function in tables else []
    starts = [start for start, _, _ in entries]

    def landing_pad(offset: int) -> int:
        number = bisect_right(starts, offset) - 1
        if number < 0:
            return -1
        start, length, pad = entries[number]
        return function[1] + pad if pad and offset < start + length else -1

    return landing_pad


def _call_sites(elf: ElfObject, section: ElfSection, at: int) -> list[tuple[int, int, int]]:
    """(start, length, landing pad) of each entry of an exception table, from the function's start; 0 = no
    pad.
    """
    data = section.data
    assert data[at] == _OMITTED, "landing pads count from the function's start"
    at += 1
    if data[at] != _OMITTED:
        _, at = read_unsigned(data, at + 1)
    else:
        at += 1
    encoding = data[at]
    size, at = read_unsigned(data, at + 1)
    end = at + size
    if encoding == _UDATA4:
        return list(_fixed_call_sites(elf, section, at, end))
    assert encoding == _ULEB128, "LLVM writes call sites as ULEB128 or 4-byte fields"
    entries = []
    while at < end:
        start, at = read_unsigned(data, at)
        length, at = read_unsigned(data, at)
        pad, at = read_unsigned(data, at)
        _, at = read_unsigned(data, at)
        entries.append((start, length, pad))
    return entries


def _fixed_call_sites(
    elf: ElfObject, section: ElfSection, at: int, end: int
) -> Iterator[tuple[int, int, int]]:
    """4-byte entries, as RISC-V has them: pairs of relocations say their values (one adds, one subtracts a
    symbol).
    """
    values: dict[int, int] = {}
    for offset, _, symbol, addend in section.relocations:
        place = elf.symbols[symbol].value + addend
        values[offset] = place if offset not in values else values[offset] - place
    while at < end:
        fields = struct.unpack_from(elf.order + "III", section.data, at)
        start, length, pad = (values.get(at + 4 * i, field) for i, field in enumerate(fields))
        yield start, length, pad
        _, at = read_unsigned(section.data, at + 12)
