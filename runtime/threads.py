"""The thread blocks of this process (backends/thread_blocks.py): their memory, guards and counts to give out."""

from __future__ import annotations

import ctypes
import heapq
import struct
from errno import ENOMEM
from functools import cache
from typing import Final, final

from backends import abi
from backends.thread_blocks import (
    BLOCK_SIZE,
    BLOCKS,
    COUNTS,
    GUARDS,
    LEVELS,
    MOST_COUNTS,
    MOST_GUARDS,
    OWNER,
    RUNS,
    STACK_TOP,
)
from ir.diagnostics import Diagnostic, UnsupportedError
from runtime.execution import Segment
from runtime.limits import Limits
from runtime.memory import near_pool

_WORD: Final = 8


@final
class Threads:
    """Owns the blocks, for as long as the process lives. Callers hold `attach_lock`, or own what they ask about."""

    def __init__(self) -> None:
        pool = near_pool()
        self._table = pool.allocate_data(BLOCKS * BLOCK_SIZE)
        self._stacks = pool.allocate_data(BLOCKS * LEVELS * abi.STACK_SIZE)
        self._stats = pool.allocate_data(_WORD)
        self._guards = list(range(MOST_GUARDS))
        self._counts = list(range(MOST_COUNTS))
        self._words = self._table.view.cast("I")
        self._holders = 0
        for block in range(BLOCKS):
            for level in range(LEVELS):
                self._prepare(block, level)

    @property
    def address(self) -> int:
        """Where the first block is."""
        return self._table.address

    @property
    def stats_address(self) -> int:
        """Where the word is that says whether runs are timed."""
        return self._stats.address

    @property
    def stacks(self) -> Segment:
        """The BPF stacks of all blocks."""
        return Segment(self._stacks.address, self._stacks.address + self._stacks.size)

    def take_guard(self) -> int:
        """The offset of a free guard in every block. UnsupportedError (ENOMEM) when there is none."""
        return GUARDS + _take(self._guards, "programs attached")

    def give_guard(self, offset: int) -> None:
        """Give a guard back."""
        heapq.heappush(self._guards, offset - GUARDS)

    def take_count(self) -> int:
        """The offset, behind a block's first count, of a free count. UnsupportedError (ENOMEM) when there is none."""
        return 4 * _take(self._counts, "images in memory")

    def give_count(self, offset: int) -> None:
        """Give a count back."""
        heapq.heappush(self._counts, offset // 4)

    def inside(self, offset: int) -> int:
        """How many stays are counted at `offset`, over all threads."""
        return sum(self._words[(COUNTS + offset) // 4 :: BLOCK_SIZE // 4])

    def time_runs(self, step: int) -> None:
        """One more (1) or one less (-1) who wants runs counted and timed."""
        self._holders += step
        self._stats.view[:_WORD] = struct.pack("=Q", self._holders > 0)

    def _prepare(self, block: int, level: int) -> None:
        start = block * BLOCK_SIZE + RUNS + level * abi.RUN_STATE_SIZE
        top = self._stacks.address + (block * LEVELS + level + 1) * abi.STACK_SIZE
        self._table.view[start + STACK_TOP : start + STACK_TOP + _WORD] = struct.pack("=Q", top)
        self._table.view[start + abi.RNG : start + abi.RNG + _WORD] = struct.pack("=Q", Limits().seed)

    def owners(self) -> int:
        """How many threads have a block."""
        view = self._table.view
        return sum(any(view[at + OWNER : at + OWNER + 8]) for at in range(0, BLOCKS * BLOCK_SIZE, BLOCK_SIZE))


@cache
def threads() -> Threads:
    """The blocks of this process."""
    return Threads()


@cache
def clock_address() -> int:
    """The address of clock_gettime."""
    # Safe because the C library stays loaded as long as the process lives.
    return ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value or 0


def _take(free: list[int], what: str) -> int:
    if not free:
        raise UnsupportedError([Diagnostic("too-many-hooks", f"there are too many {what}", errno=ENOMEM)])
    return heapq.heappop(free)
