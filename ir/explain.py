"""Why code went away: branches that read-only data decided, and the data that decided them.

kern.c:41:6: branch at insn 12 is never taken
    .rodata[0x8], 4 bytes = 0x3, read at kern.c:41:10
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ir.diagnostics import Location


@final
@dataclass(frozen=True, slots=True)
class ReadOnlyLoad:
    """A load of `size` bytes at byte `offset` of read-only map `map`; `value` is what it gave, in 64 bits."""

    map: str
    offset: int
    size: int
    value: int
    at: Location


@final
@dataclass(frozen=True, slots=True)
class Decision:
    """The branch at `at` always goes one way, because of what `loads` read (none: by constants alone)."""

    at: Location
    is_taken: bool
    loads: tuple[ReadOnlyLoad, ...]


Notes = list[Decision]
