"""The C lines of a program, made into SourceLine values when they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

from ir.btf import Btf
from ir.btf_ext import LineRecord, source_line
from ir.diagnostics import SourceLine


@final
class LineTable(Mapping[int, SourceLine]):
    """Instruction slot to C line, from the `records` of .BTF.ext and the strings of `btf`."""

    def __init__(self, records: Mapping[int, LineRecord], btf: Btf) -> None:
        self._records = records
        self._btf = btf

    def __getitem__(self, slot: int) -> SourceLine:
        return source_line(self._records[slot], self._btf)

    def __iter__(self) -> Iterator[int]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"LineTable({dict(self)!r})"
