"""Small records that images read: words that switch something, in memory that lies near the images."""

from __future__ import annotations

from collections.abc import Sequence
from errno import ENOMEM
from typing import Final, Literal, final

from backends.image_parts import LINK_COOKIE, LINK_MODE, MODE_OFF, MODE_TIMED
from ir.diagnostics import Diagnostic, UnsupportedError
from runtime.free_list import FreeList
from runtime.memory import Pool
from runtime.words import word_type

LINE: Final = 64  # a record has a cache line of its own
_ROOM: Final = 1 << 22


@final
class Records:
    """The memory of all records of a hook space; lives as long as its pool."""

    def __init__(self, pool: Pool, order: Literal["little", "big"]) -> None:
        self.order = order
        self._block = pool.allocate_data(_ROOM)
        self._free = FreeList(_ROOM, LINE)
        self.in_use = 0

    def take(self) -> int:
        """The address of a record of zeros. UnsupportedError (ENOMEM) when there is none."""
        start = self._free.take(LINE)
        if start is None:
            raise UnsupportedError([Diagnostic("too-many-hooks", "there are too many links", errno=ENOMEM)])
        self._block.view[start : start + LINE] = bytes(LINE)
        self.in_use += 1
        return self._block.address + start

    def give(self, address: int) -> None:
        """Take a record back."""
        self.in_use -= 1
        self._free.give(address - self._block.address, LINE)


@final
class Word:
    """A record of 64-bit words in the byte order of its machine; setting one is one aligned store."""

    def __init__(self, records: Records, words: Sequence[int] = ()) -> None:
        self._records = records
        self.address = records.take()
        # Safe because the records' memory lives as long as their pool, and a record is a line of it.
        self._words = (word_type(records.order) * (LINE // 8)).from_address(self.address)
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
            self._records.give(self.address)
            self.address = 0


@final
class LinkRecord:
    """How images run the program of a link: at once, timed, or not at all; and its cookie. Freed when nobody holds it."""

    def __init__(self, records: Records, cookie: int) -> None:
        words = [0] * 2
        words[LINK_COOKIE // 8] = cookie & (1 << 64) - 1
        self._word = Word(records, words)
        self._is_on = True
        self._holds = 0

    @property
    def address(self) -> int:
        """Where images read it."""
        return self._word.address

    def time(self, is_timed: bool) -> None:
        """Count and time the runs from now on, or do not."""
        if self._is_on:
            self._word.set(MODE_TIMED if is_timed else 0, LINK_MODE // 8)

    def switch_off(self) -> None:
        """From now on the program is skipped."""
        self._is_on = False
        self._word.set(MODE_OFF, LINK_MODE // 8)

    def hold(self) -> None:
        """Keep it."""
        self._holds += 1

    def release(self) -> None:
        """Undo a `hold`."""
        self._holds -= 1
        if not self._holds:
            self._word.close()
