"""A native helper's row: how it is emitted and what callers must know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from backends.writer import Writer
from ir.object import Map


@final
@dataclass(frozen=True, slots=True)
class HelperRow:
    """`emit` writes the body. `needs_map`: there is one form for each map; `may_trap`: callers must look at the trap code."""

    emit: Callable[[Writer, Map | None], None]
    is_small: bool = True
    needs_map: bool = False
    may_trap: bool = False
    returns_pointer: bool = False
    parts: tuple[str, ...] = ()
