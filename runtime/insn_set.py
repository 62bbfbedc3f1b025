"""Instruction sets: where tracked instructions of a program are, before, after and below all passes.

    entry | orig_off u32 | xlated_off u32 | jitted_off u32 | pad u32 |     as in BPF_MAP_TYPE_INSN_ARRAY

    FREE --load begins--> INIT --load ends--> READY        a failed load: INIT --> FREE;  READY is for ever

A set belongs to one program. Filled and frozen by the loader, it is kept right by whoever inserts or
removes instructions (`insert`, `remove`). It is data: no write to a set changes code.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Container
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from ir.diagnostics import Diagnostic, RejectedError

DELETED: Final = 0xFFFFFFFF
KEY_SIZE: Final = 4
VALUE_SIZE: Final = 16
NO_EXIST: Final = 1  # BPF_NOEXIST


class Stage(Enum):
    """How far the set's program is."""

    FREE = "free"
    INIT = "loading"
    READY = "ready"


@final
@dataclass(slots=True)
class Entry:
    """One instruction: as given, in the transformed program, and as a byte offset in the image."""

    orig_off: int = 0
    xlated_off: int = 0
    jitted_off: int = 0


@final
class InsnSet:
    """A set of instruction addresses; `max_entries` of them."""

    def __init__(
        self, max_entries: int, key_size: int = KEY_SIZE, value_size: int = VALUE_SIZE, flags: int = 0
    ) -> None:
        if not max_entries or key_size != KEY_SIZE or value_size != VALUE_SIZE or flags:
            raise _refused(
                "an instruction set has entries, 4-byte keys, 16-byte values and no flags", errno.EINVAL
            )
        self.entries = [Entry() for _ in range(max_entries)]
        self.is_frozen = False
        self.stage = Stage.FREE

    def update(self, index: int, value: Entry, flags: int = 0) -> None:
        """Say which instruction an entry tracks; only before the set is frozen."""
        if self.is_frozen:
            raise _refused("the set is frozen", errno.EPERM)
        if index >= len(self.entries):
            raise _refused(f"no entry {index} in a set of {len(self.entries)}", errno.E2BIG)
        if flags & NO_EXIST:
            raise _refused(f"entry {index} exists", errno.EEXIST)
        if value.xlated_off or value.jitted_off:
            raise _refused("only orig_off can be set", errno.EINVAL)
        self.entries[index].orig_off = value.orig_off

    def delete(self, index: int) -> None:
        """Refused: entries of an array stay."""
        raise _refused(f"entry {index} can't be deleted", errno.EINVAL)

    def freeze(self) -> None:
        """From now on only the loader writes."""
        self.is_frozen = True

    def begin_load(
        self, length: int, is_start: Callable[[int], bool], static_branches: Container[int] | None = None
    ) -> None:
        """Bind the set to a program of `length` slots; `is_start` is false in the second half of a wide load.

        A key's set only has static branches, which are given then.
        """
        if self.stage is not Stage.FREE:
            raise _refused("the set is used by another program", errno.EBUSY)
        if not self.is_frozen:
            raise _refused("the set is not frozen", errno.EINVAL)
        for index, entry in enumerate(self.entries):
            if entry.orig_off >= length or not is_start(entry.orig_off):
                raise _refused(f"entry {index}: no instruction starts at {entry.orig_off}", errno.EINVAL)
            if static_branches is not None and entry.orig_off not in static_branches:
                raise _refused(f"entry {index}: {entry.orig_off} is no static branch", errno.EINVAL)
        for entry in self.entries:
            entry.xlated_off = entry.orig_off
        self.stage = Stage.INIT

    def insert(self, at: int, count: int) -> None:
        """One instruction became `count`: what tracked it stays on the first, what is behind it moves."""
        self._shift(lambda offset: offset + count - 1 if offset > at else offset)

    def remove(self, start: int, count: int) -> None:
        """Instructions went: what tracked one of them is deleted, what is behind them moves."""
        end = start + count
        self._shift(lambda offset: DELETED if start <= offset < end else offset - count * (offset >= end))

    def end_load(self, native_offset: Callable[[int], int | None]) -> None:
        """Note where the instructions are in the image; EFAULT, and no load, when one has no place."""
        places = [None if e.xlated_off == DELETED else native_offset(e.xlated_off) for e in self.entries]
        for index, (entry, place) in enumerate(zip(self.entries, places, strict=True)):
            if place is None and entry.xlated_off != DELETED:
                self.abort_load()
                raise _refused(f"entry {index} has no native address", errno.EFAULT)
            entry.jitted_off = place or 0
        self.stage = Stage.READY

    def abort_load(self) -> None:
        """The load failed: the set is free for another one."""
        for entry in self.entries:
            entry.xlated_off = entry.jitted_off = 0
        self.stage = Stage.FREE

    def require_ready(self) -> None:
        """Refuse an update of branches by this set: EBUSY while its program loads, EINVAL before."""
        if self.stage is Stage.INIT:
            raise _refused("the set's program is being loaded", errno.EBUSY)
        if self.stage is Stage.FREE:
            raise _refused("the set has no program", errno.EINVAL)

    def _shift(self, moved: Callable[[int], int]) -> None:
        for entry in self.entries:
            if entry.xlated_off != DELETED:
                entry.xlated_off = moved(entry.xlated_off)


def _refused(message: str, number: int) -> RejectedError:
    return RejectedError([Diagnostic("insn-set", message, errno=number)])
