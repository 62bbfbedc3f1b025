"""The thread blocks of a hook space (backends/thread_blocks.py): their memory, guards and counts to give out."""

from __future__ import annotations

import ctypes
import heapq
import os
import struct
from errno import ENOMEM
from typing import Final, Literal, final

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
from backends.thread_parts import CPU_LINE
from ir.diagnostics import Diagnostic, UnsupportedError
from runtime.execution import Segment
from runtime.memory import Pool

_WORD: Final = 8


@final
class Threads:
    """Owns the blocks, for as long as its pool lives. Callers hold `attach_lock`, or own what they ask about."""

    def __init__(self, pool: Pool, order: Literal["little", "big"]) -> None:
        self._order = "<" if order == "little" else ">"
        self._table = pool.allocate_data(BLOCKS * BLOCK_SIZE)
        self._stacks = pool.allocate_data(BLOCKS * LEVELS * abi.STACK_SIZE)
        self._words_of_all = pool.allocate_data(2 * _WORD)  # lost, key
        cpus = os.cpu_count() or 1
        self._cpus = pool.allocate_data(CPU_LINE * (cpus + 1))
        struct.pack_into(f"{self._order}I", self._cpus.view, 0, cpus)
        self._guards = list(range(MOST_GUARDS))
        self._counts = list(range(MOST_COUNTS))
        self._owners = self._table.view.cast("Q")[OWNER // _WORD :: BLOCK_SIZE // _WORD]
        self._words = self._table.view.cast("I")
        for level in range(LEVELS):
            self._prepare(0, level)  # where a thread pointer of 0 leads, which looks as if it had claimed it

    @property
    def symbols(self) -> dict[str, int]:
        """What code knows of the blocks, by name."""
        words = self._words_of_all.address
        stacks, cpus = self._stacks.address, self._cpus.address
        return {
            "threads": self._table.address,
            "stacks": stacks,
            "cpus": cpus,
            "lost": words,
            "key": words + _WORD,
        }

    def watch_ends(self, gone: int) -> None:
        """Let native function `gone` run when a thread of this process ends that has a block, with the block."""
        libc = ctypes.CDLL(None)
        key = ctypes.c_uint32()
        libc.pthread_key_create.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        # Safe because the function is of an image that lives as long as the process.
        if libc.pthread_key_create(ctypes.byref(key), gone):
            said = "the C library has no key left that tells when threads end"
            raise UnsupportedError([Diagnostic("too-many-hooks", said, errno=ENOMEM)])
        struct.pack_into("=I", self._words_of_all.view, _WORD, key.value)

    @property
    def lost(self) -> int:
        """How many calls ran no program, because there was no block or no run state for their thread."""
        (count,) = struct.unpack_from(f"{self._order}Q", self._words_of_all.view)
        return int(count)

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

    @property
    def left(self) -> tuple[int, int]:
        """How many guards and counts are free."""
        return len(self._guards), len(self._counts)

    @property
    def has_count(self) -> bool:
        """Whether there is a free count."""
        return bool(self._counts)

    def give_count(self, offset: int) -> None:
        """Give a count back."""
        heapq.heappush(self._counts, offset // 4)

    def is_inside(self, offset: int) -> bool:
        """Whether some thread counts a stay at `offset`. In either byte order, for only 0 is asked for."""
        return any(self._words[(COUNTS + offset) // 4 :: BLOCK_SIZE // 4].tobytes())

    def running(self, guard: int) -> set[int]:
        """The numbers of the blocks whose threads run the program with that guard."""
        guards = self._table.view[guard::BLOCK_SIZE].tobytes()
        return {n for n, value in enumerate(guards) if value} if any(guards) else set()

    def owners(self) -> int:
        """How many threads have a block."""
        return sum(owner != 0 for owner in self._owners)

    def _prepare(self, block: int, level: int) -> None:
        start = block * BLOCK_SIZE + RUNS + level * abi.RUN_STATE_SIZE
        top = self._stacks.address + (block * LEVELS + level + 1) * abi.STACK_SIZE
        word = f"{self._order}Q"
        struct.pack_into(word, self._table.view, start + STACK_TOP, top)
        struct.pack_into(word, self._table.view, start + abi.RNG, abi.SEED)


def _take(free: list[int], what: str) -> int:
    if not free:
        raise UnsupportedError([Diagnostic("too-many-hooks", f"there are too many {what}", errno=ENOMEM)])
    return heapq.heappop(free)
