"""A symbol file for debuggers: ELF with the functions of an image, their lines as DWARF 4, and how frames unwind.

    .text        nothing, at the image's address        .symtab       the functions
    .eh_frame    as it stands in the image              .debug_info   a compilation unit, a subprogram a function
    .debug_line  which line each address is for

What is about addresses says them whole, so that no relocation is left.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from backends.leb128 import signed, unsigned
from backends.target import Target

_PROGBITS, _SYMBOLS, _STRINGS, _NOBITS = 1, 2, 3, 8
_ALLOCATED, _EXECUTABLE = 2, 4
_GLOBAL_FUNCTION: Final = 0x12
_RELOCATABLE: Final = 1
_C99: Final = 0x0C
# Pairs of attribute and form: name, compilation directory, line table, first address, size, language; DWARF 4, 7.5.
_UNIT: Final = ((0x03, 0x08), (0x1B, 0x08), (0x10, 0x17), (0x11, 0x01), (0x12, 0x07), (0x13, 0x0B))
_SUBPROGRAM: Final = ((0x03, 0x08), (0x11, 0x01), (0x12, 0x07), (0x3F, 0x19))
_TAG_UNIT, _TAG_SUBPROGRAM = 0x11, 0x2E
_OPERANDS: Final = bytes((0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1))  # of the standard opcodes of a line table


@final
@dataclass(frozen=True, slots=True)
class DebugFunction:
    """A function: `size` bytes at `address`."""

    name: str
    address: int
    size: int


@final
@dataclass(frozen=True, slots=True)
class DebugLine:
    """Code from `address` on is for line `line` of `file`, up to the next one's; line 0 is nobody's."""

    address: int
    file: str
    line: int


@final
@dataclass(frozen=True, slots=True)
class DebugImage:
    """An image: [start, end), its functions, its lines in the order of addresses, its unwind table and where that is."""

    start: int
    end: int
    functions: Sequence[DebugFunction]
    lines: Sequence[DebugLine]
    frames: bytes = b""
    frames_at: int = 0


def symbol_file(image: DebugImage, target: Target) -> bytes:
    """The file for an image of code for `target`."""
    order = "<" if target.byte_order == "little" else ">"
    symbols, strings = _symbols(image, order)
    sections = [
        _Section(".text", _NOBITS, b"", _ALLOCATED | _EXECUTABLE, image.start, image.end - image.start),
        _Section(".eh_frame", _PROGBITS, image.frames, _ALLOCATED, image.frames_at, len(image.frames)),
        _Section(".symtab", _SYMBOLS, symbols, link=4, info=1, entry=24),
        _Section(".strtab", _STRINGS, strings),
        _Section(".debug_abbrev", _PROGBITS, _abbreviations()),
        _Section(".debug_info", _PROGBITS, _units(image, order)),
        _Section(".debug_line", _PROGBITS, _line_table(image, order)),
    ]
    return _elf(sections, target, order)


@final
@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    type: int
    data: bytes
    flags: int = 0
    address: int = 0
    size: int = 0
    link: int = 0
    info: int = 0
    entry: int = 0


def _elf(sections: Sequence[_Section], target: Target, order: str) -> bytes:
    names = b"\0" + b"".join(one.name.encode() + b"\0" for one in sections) + b".shstrtab\0"
    body = bytearray(64)
    headers = [bytes(64)]
    for one in (*sections, _Section(".shstrtab", _STRINGS, names)):
        body += bytes(-len(body) % 8)
        name = names.index(b"\0" + one.name.encode() + b"\0") + 1
        fields = (
            one.flags,
            one.address,
            len(body),
            one.size or len(one.data),
            one.link,
            one.info,
            8,
            one.entry,
        )
        headers.append(struct.pack(order + "IIQQQQIIQQ", name, one.type, *fields))
        body += one.data
    body += bytes(-len(body) % 8)
    identity = b"\x7fELF\2" + (b"\1" if order == "<" else b"\2") + b"\1" + bytes(9)
    places = (
        _RELOCATABLE,
        target.machine,
        1,
        0,
        0,
        len(body),
        0,
        64,
        0,
        0,
        64,
        len(headers),
        len(headers) - 1,
    )
    body[:64] = identity + struct.pack(order + "HHIQQQIHHHHHH", *places)
    return bytes(body) + b"".join(headers)


def _symbols(image: DebugImage, order: str) -> tuple[bytes, bytes]:
    """The symbol table and its strings; values count from the start of .text, section 1."""
    table, strings = bytes(24), b"\0"
    for one in image.functions:
        place = one.address - image.start
        table += struct.pack(order + "IBBHQQ", len(strings), _GLOBAL_FUNCTION, 0, 1, place, one.size)
        strings += one.name.encode() + b"\0"
    return table, strings


def _abbreviations() -> bytes:
    def entry(number: int, tag: int, has_children: bool, pairs: Sequence[tuple[int, int]]) -> bytes:
        return bytes((number, tag, has_children, *(byte for pair in pairs for byte in pair), 0, 0))

    return entry(1, _TAG_UNIT, True, _UNIT) + entry(2, _TAG_SUBPROGRAM, False, _SUBPROGRAM) + b"\0"


def _units(image: DebugImage, order: str) -> bytes:
    files = _files(image)
    body = struct.pack(order + "HIB", 4, 0, 8)  # version, abbreviations, size of an address
    body += b"\1" + (files[0].encode() if files else b"bpf") + b"\0\0"
    body += struct.pack(order + "IQQB", 0, image.start, image.end - image.start, _C99)
    for one in image.functions:
        body += b"\2" + one.name.encode() + b"\0" + struct.pack(order + "QQ", one.address, one.size)
    body += b"\0"
    return struct.pack(order + "I", len(body)) + body


def _line_table(image: DebugImage, order: str) -> bytes:
    files = _files(image)
    header = bytes((1, 1, 1, 1, 1, len(_OPERANDS) + 1)) + _OPERANDS + b"\0"
    header += b"".join(name.encode() + b"\0\0\0\0" for name in files) + b"\0"
    program, line = b"", 1
    for row in image.lines:
        program += b"\0\x09\2" + struct.pack(order + "Q", row.address)
        if row.line:
            program += b"\4" + unsigned(files.index(row.file) + 1) + b"\3" + signed(row.line - line)
            line = row.line
        else:
            program += b"\3" + signed(-line)
            line = 0
        program += b"\1"
    program += b"\0\x09\2" + struct.pack(order + "Q", image.end) + b"\0\1\1"
    body = struct.pack(order + "HI", 4, len(header)) + header + program
    return struct.pack(order + "I", len(body)) + body


def _files(image: DebugImage) -> list[str]:
    return sorted({row.file for row in image.lines if row.line})
