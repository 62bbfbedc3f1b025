"""Malformed files: well-formed ones with a few wrong bytes where they matter.

A mutation of objects knows where an ELF file keeps its headers, sections and tables, so that most of what comes out
is nearly right: a size of a section, a symbol's value, the id in a type of BTF. One of text knows words and lines. The
same seed gives the same bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Literal

Mutation = Callable[[bytearray, Random], None]

MOST_MUTATIONS = 6
EDGES = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    24,
    31,
    32,
    63,
    64,
    127,
    128,
    255,
    256,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x1_0000,
)
WIDE_EDGES = (
    *EDGES,
    0xFF_FFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    1 << 32,
    1 << 62,
    1 << 63,
    (1 << 64) - 1,
)

_BYTE_ORDERS: Final[dict[str, Literal["little", "big"]]] = {"<": "little", ">": "big"}
# By section type (SHT_SYMTAB, SHT_REL): bytes of an entry, and where its fields are, (offset, bytes).
_ENTRIES: Final = {
    2: (24, ((0, 4), (4, 1), (5, 1), (6, 2), (8, 8), (16, 8))),
    9: (16, ((0, 8), (8, 4), (12, 4))),
}
_HEADER_SIZE = 64
_SECTION_HEADER = 64
_SECTION_FIELDS = ((0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 4), (44, 4), (48, 8), (56, 8))
_HEADER_FIELDS = ((16, 2), (18, 2), (20, 4), (32, 8), (40, 8), (48, 4), (52, 2), (58, 2), (60, 2), (62, 2))


def mutate(data: bytes, seed: int, mutations: Sequence[Mutation] | None = None) -> bytes:
    """A malformed version of `data`, decided by `seed`; of an ELF file, unless `mutations` are others."""
    random = Random(seed)
    mutated = bytearray(data)
    for _ in range(random.randint(1, MOST_MUTATIONS)):
        random.choice(mutations or ELF)(mutated, random)
    return bytes(mutated)


def flip_bit(data: bytearray, random: Random) -> None:
    """Flip one bit anywhere."""
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def truncate(data: bytearray, random: Random) -> None:
    """Cut the end off; seldom much of it."""
    if random.random() < 0.2:
        del data[random.randrange(len(data) + 1) :]


def move_bytes(data: bytearray, random: Random) -> None:
    """Copy some bytes over others."""
    size = random.choice((1, 4, 8, 16, 24, 64))
    if len(data) > size:
        source, place = random.randrange(len(data) - size), random.randrange(len(data) - size)
        data[place : place + size] = data[source : source + size]


def resize(data: bytearray, random: Random) -> None:
    """Insert or delete a few bytes, so that what follows is somewhere else."""
    place, size = random.randrange(len(data) + 1), random.choice((1, 4, 8, 12))
    if random.random() < 0.5:
        data[place:place] = random.randbytes(size)
    else:
        del data[place : place + size]


def change_header(data: bytearray, random: Random) -> None:
    """Write an edge value into a field of the ELF header."""
    offset, size = random.choice(_HEADER_FIELDS)
    _write(data, offset, size, random)


def change_section_header(data: bytearray, random: Random) -> None:
    """Write an edge value, or that of another section, into a field of a section header."""
    headers = _section_headers(data)
    if not headers:
        return
    header = random.choice(headers)
    offset, size = random.choice(_SECTION_FIELDS)
    if random.random() < 0.5:
        other = random.choice(headers) + offset
        data[header + offset : header + offset + size] = data[other : other + size]
    else:
        _write(data, header + offset, size, random)


def change_section(data: bytearray, random: Random) -> None:
    """Write an edge value, or a small change, at an aligned place of a section."""
    headers = _section_headers(data)
    if not headers:
        return
    start, end = _extent(data, random.choice(headers))
    if end - start >= 8:
        places = range(start, end - 7, 4)
        _change(data, random.choice(places), random.choice((1, 2, 4, 4, 8)), random.choice(places), random)


def change_entry(data: bytearray, random: Random) -> None:
    """Change a field of a symbol or a relocation: to an edge value, to that of another entry, or a little."""
    tables = [header for header in _section_headers(data) if _type_of(data, header) in _ENTRIES]
    if not tables:
        return
    header = random.choice(tables)
    size, fields = _ENTRIES[_type_of(data, header)]
    start, end = _extent(data, header)
    if end - start >= size:
        entries = range(start, end - size + 1, size)
        offset, width = random.choice(fields)
        _change(data, random.choice(entries) + offset, width, random.choice(entries) + offset, random)


def change_types(data: bytearray, random: Random) -> None:
    """Change a word of BTF or its records: to a small number, as ids are, another kind or count, or another word."""
    starts = [_extent(data, header) for header in _section_headers(data)]
    magic = b"\x9f\xeb" if _order(data) == "<" else b"\xeb\x9f"
    found = [(start, end) for start, end in starts if end - start >= 32 and data[start : start + 2] == magic]
    if not found:
        return
    start, end = random.choice(found)
    change_word(data, random, random.choice((start, start + 24)), end)


def change_word(data: bytearray, random: Random, start: int = 0, end: int | None = None) -> None:
    """Change an aligned word of [start, end)."""
    places = range(start, (len(data) if end is None else end) - 3, 4)
    if not places:
        return
    place = random.choice(places)
    match random.randrange(4):
        case 0:
            _put(data, place, 4, random.randrange(1 << random.choice((1, 3, 6, 10))))
        case 1:
            _put(data, place, 4, _get(data, place, 4) ^ 1 << random.choice((0, 1, 16, *range(24, 32))))
        case _:
            _change(data, place, 4, random.choice(places), random)


def change_line(data: bytearray, random: Random) -> None:
    """Delete, repeat or move a line of text."""
    lines = bytes(data).split(b"\n")
    line = lines.pop(random.randrange(len(lines)))
    for _ in range(random.randrange(3)):
        lines.insert(random.randrange(len(lines) + 1), line)
    data[:] = b"\n".join(lines)


def change_token(data: bytearray, random: Random) -> None:
    """Delete, repeat or replace a word, number or sign of text."""
    tokens = _TOKEN.findall(data)
    if not tokens:
        return
    place = random.randrange(len(tokens))
    new = random.choice((b"", random.choice(tokens), random.choice(tokens), random.choice(_ODD_TOKENS)))
    tokens[place : place + 1] = [tokens[place], b" ", new] if random.random() < 0.3 else [new]
    data[:] = b"".join(tokens)


BYTES: Final[tuple[Mutation, ...]] = (flip_bit, truncate, move_bytes, resize, change_word)
WORDS: Final[tuple[Mutation, ...]] = (*BYTES, *(change_word,) * 8)
TEXT: Final[tuple[Mutation, ...]] = (*BYTES[:4], *(change_line,) * 3, *(change_token,) * 8)
ELF: Final[tuple[Mutation, ...]] = (
    *BYTES[:4],
    change_header,
    *(change_section_header,) * 2,
    *(change_section,) * 3,
    *(change_entry,) * 3,
    *(change_types,) * 3,
)
_TOKEN: Final = re.compile(rb"\w+|\s+|[^\w\s]")
_ODD_TOKENS: Final = (
    *(b"-1", b"0x", b"007", b"1e9", b"18446744073709551616", b"9" * 5000, b'"', b"'", b"\\", b"\0", b"\r"),
    *("é".encode(), "\u2028".encode(), b"\xff", b"r10", b"r11", b"[", b"]", b"(", b"%s", b"{}", b"-"),
)


def _order(data: bytearray) -> str:
    return ">" if len(data) > 5 and data[5] == 2 else "<"


def _section_headers(data: bytearray) -> list[int]:
    """Where each section header is, as far as they are in the file."""
    if len(data) < _HEADER_SIZE:
        return []
    (start,) = struct.unpack_from(_order(data) + "Q", data, 40)
    (count,) = struct.unpack_from(_order(data) + "H", data, 60)
    last = min(start + count * _SECTION_HEADER, len(data)) - _SECTION_HEADER
    return [*range(start, last + 1, _SECTION_HEADER)]


def _extent(data: bytearray, header: int) -> tuple[int, int]:
    """First byte and end of the section that a header describes, as far as it is in the file."""
    start, size = struct.unpack_from(_order(data) + "QQ", data, header + 24)
    return min(start, len(data)), min(start + size, len(data))


def _type_of(data: bytearray, header: int) -> int:
    return _get(data, header + 4, 4)


def _change(data: bytearray, place: int, size: int, other: int, random: Random) -> None:
    """A field becomes an edge value, what stands in another place, or a little more or less."""
    match random.randrange(3):
        case 0:
            _write(data, place, size, random)
        case 1:
            _put(data, place, size, _get(data, other, size))
        case 2:
            _put(data, place, size, _get(data, place, size) + random.choice((-8, -4, -2, -1, 1, 2, 4, 8)))


def _write(data: bytearray, place: int, size: int, random: Random) -> None:
    _put(data, place, size, random.choice((*WIDE_EDGES, len(data), random.getrandbits(64))))


def _get(data: bytearray, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], _BYTE_ORDERS[_order(data)])


def _put(data: bytearray, place: int, size: int, value: int) -> None:
    if place + size <= len(data):
        masked = value & (1 << 8 * size) - 1
        data[place : place + size] = masked.to_bytes(size, _BYTE_ORDERS[_order(data)])
