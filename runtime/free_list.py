"""Which ranges of a block of memory are free."""

from __future__ import annotations

from bisect import insort
from typing import final


@final
class FreeList:
    """Free ranges of [0, size), in units of `granule`; first fit, neighbours merge."""

    def __init__(self, size: int, granule: int) -> None:
        self.granule = granule
        self._free: list[tuple[int, int]] = [(0, size)]

    @property
    def left(self) -> int:
        """How many bytes are free."""
        return sum(end - start for start, end in self._free)

    def take(self, size: int) -> int | None:
        """The start of a range of `size` bytes that is now taken; None when none is large enough."""
        size = self._round(size)
        for index, (start, end) in enumerate(self._free):
            if end - start < size:
                continue
            if end - start == size:
                del self._free[index]
            else:
                self._free[index] = (start + size, end)
            return start
        return None

    def give(self, start: int, size: int) -> None:
        """Return a range that `take` gave."""
        insort(self._free, (start, start + self._round(size)))
        merged: list[tuple[int, int]] = []
        for begin, end in self._free:
            if merged and merged[-1][1] == begin:
                merged[-1] = (merged[-1][0], end)
            else:
                merged.append((begin, end))
        self._free = merged

    def _round(self, size: int) -> int:
        return -(-max(size, 1) // self.granule) * self.granule
