"""Small records that images read: words that switch something, in data memory of the process's own pool."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from errno import ENOMEM
from functools import cache
from typing import Final, final

from backends.trampoline import LINK_COOKIE, LINK_IS_ON
from ir.diagnostics import Diagnostic, UnsupportedError
from runtime.memory import FreeList, near_pool

LINE: Final = 64  # a record has a cache line of its own
_ROOM: Final = 1 << 22


@final
class _Records:
    """The memory of all records; lives as long as the process."""

    def __init__(self) -> None:
        self._block = near_pool().allocate_data(_ROOM)
        self._free = FreeList(_ROOM, LINE)

    def take(self) -> int:
        start = self._free.take(LINE)
        if start is None:
            raise UnsupportedError([Diagnostic("too-many-hooks", "there are too many links", errno=ENOMEM)])
        self._block.view[start : start + LINE] = bytes(LINE)
        return self._block.address + start

    def give(self, address: int) -> None:
        self._free.give(address - self._block.address, LINE)


@cache
def _records() -> _Records:
    return _Records()


@final
class Word:
    """A record of 64-bit words; setting one is one aligned store."""

    def __init__(self, words: Sequence[int] = ()) -> None:
        self.address = _records().take()
        # Safe because the records' memory lives as long as the process, and a record is a line of it.
        self._words = (
            memoryview((ctypes.c_uint64 * (LINE // 8)).from_address(self.address)).cast("B").cast("Q")
        )
        for index, value in enumerate(words):
            self._words[index] = value

    def set(self, value: int, index: int = 0) -> None:
        """Store a word."""
        self._words[index] = value

    def get(self, index: int = 0) -> int:
        """Load a word."""
        return int(self._words[index])

    def close(self) -> None:
        """Give the memory back; closing twice is fine."""
        if self.address:
            _records().give(self.address)
            self.address = 0


@final
class LinkRecord:
    """Whether a link is on, and its cookie. Freed when nobody holds it."""

    def __init__(self, cookie: int) -> None:
        words = [0] * 2
        words[LINK_IS_ON // 8], words[LINK_COOKIE // 8] = 1, cookie & (1 << 64) - 1
        self._word = Word(words)
        self._holds = 0

    @property
    def address(self) -> int:
        """Where images read it."""
        return self._word.address

    def switch_off(self) -> None:
        """From now on the program is skipped."""
        self._word.set(0, LINK_IS_ON // 8)

    def hold(self) -> None:
        """Keep it."""
        self._holds += 1

    def release(self) -> None:
        """Undo a `hold`."""
        self._holds -= 1
        if not self._holds:
            self._word.close()
