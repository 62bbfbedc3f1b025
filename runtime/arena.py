"""Where an arena of addresses is put: near the code that it works with, or low, where another process has room too."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

from ir.diagnostics import Diagnostic, UnsupportedError
from runtime.region import (
    ANONYMOUS,
    FIXED_NO_REPLACE,
    NO_RESERVE,
    NONE,
    PRIVATE,
    map_memory,
    mappings,
    unmap_memory,
)

ARENA_SIZE: Final = 1 << 30
CODE_SIZE: Final = 256 << 20


@final
@dataclass(frozen=True, slots=True)
class Extent:
    """How large an arena is, and the code at its start; machines with 32-bit addresses have room for small ones."""

    size: int = ARENA_SIZE
    code: int = CODE_SIZE


WIDE: Final = Extent()
NARROW: Final = Extent(512 << 20, 32 << 20)
_NARROW_HIGHEST: Final = 0xC000_0000  # and from there down: processes have their programs low
_NARROW_LOWEST: Final = 0x2000_0000
_LOW: Final = 1 << 36
_LOW_COUNT: Final = 1024
_ARENA_STEP: Final = 2 << 20
# Above libraries, where entries of their functions may need veneers (runtime/patchable).
_VENEER_ROOM: Final = 1280 << 20
_STACK_ROOM: Final = 1 << 30  # what follows may be a stack, which grows down


def arena_near(address: int) -> int:
    """An arena whose code is in the same 4 GiB as an address, if there is room above what is mapped there.

    Processors keep jumps across a multiple of 4 GiB in slower tables. The system puts an arena below the libraries.
    """
    base = _arena()
    if not address or base >> 32 == address >> 32 == base + CODE_SIZE - 1 >> 32:
        return base
    try:
        taken = [found for found in mappings() if found[1] > address]
    except OSError:
        return base
    for (_, end), (following, _) in pairwise(taken):
        place = -(-(end + _VENEER_ROOM) // _ARENA_STEP) * _ARENA_STEP
        if place + CODE_SIZE - 1 >> 32 != address >> 32:
            break
        if place + ARENA_SIZE + _STACK_ROOM <= following:
            with suppress(UnsupportedError):
                found = _arena(place)
                unmap_memory(base, ARENA_SIZE)
                return found
    return base


def low_arena(extent: Extent = WIDE) -> int:
    """An arena at an address that another process has free too: far below where systems put things themselves.

    A narrow one is in the low 4 GiB.
    """
    if extent is NARROW:
        places = range(_NARROW_HIGHEST, _NARROW_LOWEST - 1, -extent.size)
    else:
        places = range(_LOW, _LOW + _LOW_COUNT * extent.size, extent.size)
    for place in places:
        with suppress(UnsupportedError):
            return _arena(place, extent.size)
    raise out_of_memory("too many emulated machines at once")


def _arena(at: int = 0, size: int = ARENA_SIZE) -> int:
    placement = FIXED_NO_REPLACE if at else 0
    return map_memory(at, size, NONE, PRIVATE | ANONYMOUS | NO_RESERVE | placement)


def out_of_memory(message: str) -> UnsupportedError:
    """No room for code or data."""
    return UnsupportedError([Diagnostic("out-of-code-memory", message, errno=12)])
