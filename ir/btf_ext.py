"""The records of a .BTF.ext section: which function, C line and CO-RE relocation each instruction has.

    header | func_info | line_info | core_relo      each: record size; per ELF section: name, count, records

Offsets are bytes from the start of the ELF section that the records are about.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from errno import EINVAL
from struct import Struct as Layout
from struct import unpack_from
from typing import NamedTuple, final

from ir.btf import MAGIC, Btf
from ir.diagnostics import NOWHERE, Diagnostic, Location, SourceLine, UnreadableError

MAX_LINE = 1024
"""Characters of a C line that are kept."""

_HEADER_SIZE = 24


class CoreKind(IntEnum):
    """enum bpf_core_relo_kind: what a CO-RE relocation asks of the target's types."""

    FIELD_BYTE_OFFSET = 0
    FIELD_BYTE_SIZE = 1
    FIELD_EXISTS = 2
    FIELD_SIGNED = 3
    FIELD_LSHIFT_U64 = 4
    FIELD_RSHIFT_U64 = 5
    TYPE_ID_LOCAL = 6
    TYPE_ID_TARGET = 7
    TYPE_EXISTS = 8
    TYPE_SIZE = 9
    ENUMVAL_EXISTS = 10
    ENUMVAL_VALUE = 11
    TYPE_MATCHES = 12


@final
@dataclass(frozen=True, slots=True)
class CoreRelocation:
    """A question about the target's types, asked in terms of local type `type_id`.

    `access` is the path to a field ("0:1:3": index, member, member), or the number of an enumerator.
    """

    kind: CoreKind
    type_id: int
    access: str


class LineRecord(NamedTuple):
    """A C line: byte offset of the instruction, BTF string offsets of file and text, line << 10 | column."""

    offset: int
    file: int
    text: int
    position: int


@final
@dataclass(frozen=True, slots=True)
class BtfExt:
    """The records by ELF section name, in the order of the file; the ints are byte offsets in it."""

    functions: dict[str, list[tuple[int, int]]]
    lines: dict[str, list[LineRecord]]
    core: dict[str, list[tuple[int, CoreRelocation]]]


def read_btf_ext(data: bytes, btf: Btf, at: Location = NOWHERE) -> BtfExt:
    """The records of a .BTF.ext section whose strings and types are in `btf`. Raises UnreadableError."""
    if len(data) < _HEADER_SIZE:
        raise _error(f".BTF.ext of {len(data)} bytes is shorter than its header", at)
    order = ">" if btf.big_endian else "<"
    magic, version, _, length = unpack_from(order + "HBBI", data)
    if magic != MAGIC or version != 1 or not _HEADER_SIZE <= length <= len(data):
        raise _error(f".BTF.ext header has magic {magic:#x}, version {version} and length {length}", at)
    fields = list(unpack_from(order + "4I", data, 8))
    fields += unpack_from(order + "2I", data, 24) if length >= 32 else (0, 0)
    functions: dict[str, list[tuple[int, int]]] = {}
    lines: dict[str, list[LineRecord]] = {}
    core: dict[str, list[tuple[int, CoreRelocation]]] = {}
    wanted = (("function", 8), ("line", 16), ("core", 16))
    for (what, size), begin, extent in zip(wanted, fields[::2], fields[1::2], strict=True):
        if begin + extent > len(data) - length:
            raise _error(f"{what} records at {begin}, {extent} bytes, do not fit into .BTF.ext", at)
        part = data[length + begin : length + begin + extent]
        for section, records in _split(part, what, size, btf, order, at):
            if what == "function":
                functions.setdefault(section, []).extend((offset, id) for offset, id in records)
            elif what == "line":
                _check_lines(records, btf, at)
                lines.setdefault(section, []).extend(map(LineRecord._make, records))
            else:
                core.setdefault(section, []).extend(_core(record, btf, at) for record in records)
    return BtfExt(functions, lines, core)


def source_line(record: LineRecord, btf: Btf) -> SourceLine:
    """The line with its file name and text."""
    file = btf.string(record.file, MAX_LINE, cut=True)
    text = btf.string(record.text, MAX_LINE, cut=True)
    return SourceLine(file, record.position >> 10, record.position & 0x3FF, text)


def _check_lines(records: list[tuple[int, ...]], btf: Btf, at: Location) -> None:
    highest = max(max(file, text) for _, file, text, _ in records)
    if highest and highest >= btf.strings_end:
        raise _error(f"line record has string {highest}, outside the string section", at)


def _core(record: tuple[int, ...], btf: Btf, at: Location) -> tuple[int, CoreRelocation]:
    offset, type_id, access, kind = record
    if kind >= len(CoreKind):
        raise _error(f"CO-RE relocation of byte {offset:#x} is of unknown kind {kind}", at)
    return offset, CoreRelocation(CoreKind(kind), type_id, btf.string(access))


def _split(
    part: bytes, what: str, size: int, btf: Btf, order: str, at: Location
) -> list[tuple[str, list[tuple[int, ...]]]]:
    """The records of one kind, by section."""
    if not part:
        return []
    if len(part) < 4:
        raise _error(f"{what} records have no size", at)
    (step,) = unpack_from(order + "I", part)
    if step < size or step % 4:
        raise _error(f"{what} records of {step} bytes, wanted a multiple of 4, at least {size}", at)
    record = Layout(f"{order}{size // 4}I{step - size}x") if step <= len(part) else None
    found: list[tuple[str, list[tuple[int, ...]]]] = []
    position = 4
    while position < len(part):
        if len(part) - position < 8:
            raise _error(f"{what} records of the last section are cut short", at)
        name, count = unpack_from(order + "2I", part, position)
        position += 8
        end = position + count * step
        if record is None or end > len(part) or not count:
            raise _error(f"{count} {what} records do not fit into the {len(part) - position} bytes left", at)
        found.append((btf.string(name), list(record.iter_unpack(part[position:end]))))
        position = end
    return found


def _error(message: str, at: Location) -> UnreadableError:
    return UnreadableError([Diagnostic("bad-btf-ext", message, at, errno=EINVAL)])
