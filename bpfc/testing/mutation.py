"""Malformed objects: well-formed ones with a few wrong bytes where they matter.

A mutation knows where an ELF file keeps its headers and sections, so that most of what comes out is nearly
right: a size of a section, a symbol's value, a word of BTF. The same seed gives the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

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

_HEADER_SIZE = 64
_SECTION_HEADER = 64
_SECTION_FIELDS = ((0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 4), (44, 4), (48, 8), (56, 8))
_HEADER_FIELDS = ((16, 2), (18, 2), (20, 4), (32, 8), (40, 8), (48, 4), (52, 2), (58, 2), (60, 2), (62, 2))


def mutate(data: bytes, seed: int) -> bytes:
    """A malformed version of the ELF file `data`, decided by `seed`."""
    random = Random(seed)
    mutated = bytearray(data)
    for _ in range(random.randint(1, MOST_MUTATIONS)):
        random.choice(MUTATIONS)(mutated, random)
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
    order = _order(data)
    start, size = struct.unpack_from(order + "QQ", data, random.choice(headers) + 24)
    if not 8 <= size <= len(data):
        return
    place = start + random.randrange(0, size, 4)
    width = random.choice((1, 2, 4, 4, 8))
    if random.random() < 0.5 and place + 4 <= len(data):
        (value,) = struct.unpack_from(order + "I", data, place)
        struct.pack_into(order + "I", data, place, value + random.randint(-3, 3) & 0xFFFF_FFFF)
    else:
        _write(data, place, width, random)


MUTATIONS: tuple[Mutation, ...] = (
    flip_bit,
    truncate,
    move_bytes,
    resize,
    change_header,
    change_section_header,
    change_section_header,
    change_section,
    change_section,
    change_section,
    change_section,
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


def _write(data: bytearray, place: int, size: int, random: Random) -> None:
    if place + size <= len(data):
        value = random.choice((*WIDE_EDGES, len(data), random.getrandbits(64))) & (1 << 8 * size) - 1
        data[place : place + size] = value.to_bytes(size, "big" if _order(data) == ">" else "little")
