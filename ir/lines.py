"""The C lines of a program, made into SourceLine values when they are looked at."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import final

from ir.btf import Btf
from ir.btf_ext import LineRecord, source_line
from ir.diagnostics import SourceLine


@final
class LineTable(Mapping[int, SourceLine]):
    """Instruction slot to C line, from the records of .BTF.ext and the strings of `btf`.

    `parts` are the functions of the program in order: where each starts, and its records by slot from there.
    """

    def __init__(self, parts: Sequence[tuple[int, Mapping[int, LineRecord]]], btf: Btf) -> None:
        self._parts = parts
        self._starts = [start for start, _ in parts]
        self._btf = btf

    def __getitem__(self, slot: int) -> SourceLine:
        number = bisect_right(self._starts, slot) - 1
        if number < 0:
            raise KeyError(slot)
        start, records = self._parts[number]
        return source_line(records[slot - start], self._btf)

    def __iter__(self) -> Iterator[int]:
        return (start + slot for start, records in self._parts for slot in records)

    def __len__(self) -> int:
        return sum(len(records) for _, records in self._parts)

    def __repr__(self) -> str:
        return f"LineTable({dict(self)!r})"
