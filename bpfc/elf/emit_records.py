"""The records of .BTF.ext moved along with the instructions that they are about, byte for byte but for their offsets.

A C line whose instruction is gone moves on to the next one, unless that begins a line of its own (the first of a
function always has one: Linux insists). A CO-RE record goes with its instruction, and so does a function's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import pack, unpack_from
from typing import Final, final

from bpfc.elf.rewritten import Rewriting
from ir.btf import Btf

_KINDS: Final = ("function", "line", "core")
_FIRST: Final = 8  # byte of the header where offsets and lengths begin
Moved = Mapping[str, Sequence[tuple[Rewriting, int]]]


@final
@dataclass(frozen=True, slots=True)
class _Records:
    """Records of one kind about one section: `name` is a string offset, each record starts with its offset."""

    name: int
    records: list[bytes]


def move_records(data: bytes, btf: Btf, moved: Moved) -> bytes:
    """.BTF.ext for functions that were rewritten; `moved` are they by section, with their new offsets.

    `data` was read before, so its header and its lengths are sound.
    """
    order = ">" if btf.big_endian else "<"
    (length,) = unpack_from(f"{order}I", data, 4)
    count = min(len(_KINDS), (length - _FIRST) // 8)
    fields = unpack_from(f"{order}{2 * count}I", data, _FIRST)
    header = bytearray(data[:length])
    body = bytearray()
    for number, kind in enumerate(_KINDS[:count]):
        begin, extent = fields[2 * number : 2 * number + 2]
        part = data[length + begin : length + begin + extent]
        new = _move_part(part, kind, btf, moved, order)
        header[_FIRST + 8 * number : _FIRST + 8 * number + 8] = pack(f"{order}2I", len(body), len(new))
        body += new
    return bytes(header + body)


def _move_part(part: bytes, kind: str, btf: Btf, moved: Moved, order: str) -> bytes:
    if len(part) < 4:
        return part
    (step,) = unpack_from(f"{order}I", part)
    out = bytearray(part[:4])
    position = 4
    while position < len(part):
        name, count = unpack_from(f"{order}2I", part, position)
        position += 8
        records = [part[position + step * n : position + step * (n + 1)] for n in range(count)]
        position += step * count
        new = _move_section(records, kind, moved.get(btf.string(name), ()), order)
        if new:
            out += pack(f"{order}2I", name, len(new)) + b"".join(new)
    return bytes(out) if len(out) > 4 or len(part) == 4 else b""


def _move_section(
    records: Sequence[bytes], kind: str, functions: Sequence[tuple[Rewriting, int]], order: str
) -> list[bytes]:
    by_offset: dict[int, list[bytes]] = {}
    for record in records:
        (offset,) = unpack_from(f"{order}I", record)
        by_offset.setdefault(offset, []).append(record)
    out: list[bytes] = []
    for function, base in functions:
        begin = function.place.offset
        waiting: list[bytes] = []
        for slot, new in enumerate(function.moved):
            found = by_offset.get(begin + 8 * slot, [])
            if kind == "line":
                waiting = found or waiting
            elif kind == "core":
                new, waiting = function.kept.get(slot), found
            else:
                waiting, new = found, 0
            if new is not None and waiting:
                out += [pack(f"{order}I", base + 8 * new) + record[4:] for record in waiting[-1:]]
                waiting = []
    return out
