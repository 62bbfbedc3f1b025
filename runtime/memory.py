"""Memory for images and maps: code and the data beside it in one arena, all within reach of each other.

    arena, 1 GiB of addresses, so that everything in it is within +-2 GiB of everything else
    | code: a region, mapped twice ...       | data: private pages for maps and globals ...     |

Freed code is poisoned (int3), so that a late execution traps. A closed pool's blocks are closed too.
"""

from __future__ import annotations

import ctypes
import gc
import os
import struct
import weakref
from collections import deque
from collections.abc import Callable
from functools import cache, partial
from types import TracebackType
from typing import Final, Literal, Protocol, Self, final

from ir.diagnostics import UnsupportedError
from runtime.arena import WIDE, Extent, arena_near, low_arena, out_of_memory
from runtime.free_list import FreeList
from runtime.region import (
    ANONYMOUS,
    CODE_LOCK,
    FIXED,
    FIXED_NO_REPLACE,
    NO_RESERVE,
    NONE,
    PAGE,
    PRIVATE,
    READ,
    SHARED,
    WRITE,
    Protection,
    Region,
    fill,
    map_memory,
    unmap_memory,
)

GRANULE: Final = 64  # blocks of code start at cache lines
GROWTH: Final = 64 << 10
CODE_ALIGNMENT: Final = 16


class Watcher(Protocol):
    """An emulator, which keeps translations of code, and maps what lies outside of the arena."""

    def written(self, address: int, size: int) -> None:
        """Code was written there."""

    def mapped(self, address: int, size: int, alias: int, file: int, *, is_code: bool) -> None:
        """Pages of a file are at `address` now, and at `alias`; the descriptor is good during the call."""

    def unmapped(self, address: int, size: int) -> None:
        """They are about to go."""


@final
class CodeBlock:
    """Memory for one image: executed at `address`, written through `alias`."""

    def __init__(
        self, region: Region, start: int, size: int, pool: Pool | None, watcher: Watcher | None = None
    ) -> None:
        self.region = region
        self.start = start
        self.address = region.address + start
        self.alias = region.alias + start
        self.size = size
        self._pool = pool
        self._watcher = watcher

    @property
    def is_open(self) -> bool:
        """Whether the memory is still there: neither the block nor its pool was closed."""
        return bool(self.size and self.region.size)

    def write(self, offset: int, data: bytes) -> None:
        """Copy bytes into the block; not for code that may be running (that is `runtime/patch`)."""
        assert 0 <= offset <= self.size - len(data), "a write stays inside its block"
        # Safe because the range was checked, and the alias stays mapped until close().
        ctypes.memmove(self.alias + offset, data, len(data))
        if self._watcher is not None:
            self._watcher.written(self.address + offset, len(data))

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """A copy of what stands in the block now."""
        length = self.size - offset if size is None else size
        assert 0 <= offset <= offset + length <= self.size, "a read stays inside its block"
        # Safe because the range was checked, and the alias stays mapped until close().
        return ctypes.string_at(self.alias + offset, length)

    def words(self, format: Literal["B", "I", "Q"]) -> memoryview:
        """The block as writable words of one width in the machine's byte order; assigning one is one store.

        Safe because the alias stays mapped until close(), and after it nobody may use what this gave. One
        store, because CPython packs an item by a memcpy of a constant 1, 4 or 8 bytes, which compilers turn
        into one move, and words are aligned: blocks start at 16-byte boundaries or further apart.
        """
        size = self.size - self.size % struct.calcsize(format)
        return memoryview((ctypes.c_uint8 * size).from_address(self.alias)).cast("B").cast(format)

    def close(self) -> None:
        """Poison the code and free its memory. Nobody may be in it: see `runtime/epoch`."""
        with CODE_LOCK:
            if not self.is_open:
                return
            fill(self.alias, self.size, self.region.poison)
            if self._watcher is not None:
                self._watcher.written(self.address, self.size)
            if self._pool is None:
                if self._watcher is not None:
                    self._watcher.unmapped(self.region.address, self.region.size)
                self.region.close()
            else:
                self._pool.code.give(self.start, self.size)
            self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@final
class DataBlock:
    """Zeroed memory that programs read and write; `view` is the same bytes.

    Closing gives it up. It is unmapped when its last view is gone too: a slice or an array that somebody made
    of `view` stays good. Programs that use the address must have ended by then.
    """

    def __init__(self, address: int, size: int, unmap: Callable[[], None]) -> None:
        self.address = address
        self.size = size
        # Safe because `unmap` is called after this array and all views of it are gone, and not before.
        pages = (ctypes.c_uint8 * size).from_address(address)
        weakref.finalize(pages, unmap).atexit = False
        self.view = memoryview(pages).cast("B")

    def close(self) -> None:
        """Give the memory up; BufferError when it is exported, as to numpy by the view itself."""
        self.view.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@final
class SharedData:
    """A file in memory under the data of an arena, so that another process can map the same. Owned by its pool."""

    def __init__(self) -> None:
        self.file = -1
        # Address, size, offset in the file of what was mapped since the start, in order: mirrors, and what they were before.
        self.mirrors: list[tuple[int, int, int]] = []
        self._mirrored: dict[int, int] = {}
        self._start = self._fresh = 0

    def map(self, start: int, size: int) -> None:
        """Make the file the memory at [start, start + size)."""
        self.file = os.memfd_create("bpfc-data", os.MFD_CLOEXEC)
        os.ftruncate(self.file, size)
        map_memory(start, size, READ | WRITE, SHARED | FIXED, self.file)
        self._start = self._fresh = start

    def clear(self, address: int, size: int) -> None:
        """Zero what was used before, and let it be memory of its own, for other processes too, where it was a mirror."""
        for place, length in list(self._mirrored.items()):
            if place < address + size and address < place + length:
                del self._mirrored[place]
                self._map_again(place, length, place - self._start)
        used = min(self._fresh, address + size) - address
        if used > 0:
            # Safe because the whole arena stays mapped until its pool is closed.
            map_memory(address, size, READ | WRITE, SHARED | FIXED, self.file, address - self._start)
            ctypes.memset(address, 0, used)
        self._fresh = max(self._fresh, address + size)

    def mirror(self, address: int, size: int) -> None:
        """Show the `size` bytes before `address` there once more."""
        self._mirrored[address] = size
        self._map_again(address, size, address - size - self._start)

    def _map_again(self, address: int, size: int, offset: int) -> None:
        map_memory(address, size, READ | WRITE, SHARED | FIXED, self.file, offset)
        self.mirrors.append((address, size, offset))

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


@final
class Pool:
    """Owns an arena; hands out code and data blocks near each other, or with `at` at any free address.

    `watcher` is told what an emulator has to know. `shared` is the file of data, where another process maps it.
    """

    def __init__(
        self,
        poison: bytes = b"\xcc",
        protection: Protection = Protection.WRITE_XOR_EXECUTE,
        shared: SharedData | None = None,
        near: int = 0,
        extent: Extent = WIDE,
    ) -> None:
        self.extent = extent
        self.poison = poison
        self.protection = protection
        self.shared = shared
        self.watcher: Watcher | None = None
        self.is_open = True
        self.code = FreeList(extent.code, GRANULE)
        self.data = FreeList(extent.size - extent.code, PAGE)
        self._given_up: deque[tuple[int, int]] = deque()  # data blocks to unmap; finalizers only append
        self._in_use = 0  # data blocks
        self._base = _low_arena(extent) if shared is not None else arena_near(near)
        self._region = Region(self._base, extent.code, protection, poison, replace=True)
        if shared is not None:
            shared.map(self._base + extent.code, extent.size - extent.code)

    @property
    def region(self) -> Region:
        """The code of the arena."""
        return self._region

    @property
    def address(self) -> int:
        """The start of the arena: code, then from `extent.code` on data."""
        return self._base

    def allocate_code(self, size: int, at: int | None = None) -> CodeBlock:
        """Executable memory for `size` bytes, aligned to 64; with `at`, just there, in pages of its own."""
        if at is not None:
            return self._place_code(size, at)
        with CODE_LOCK:
            start = self.code.take(size)
            if start is None:
                raise out_of_memory(f"the near pool has no {size} bytes left for code")
            self._region.commit(-(-(start + size) // GROWTH) * GROWTH)
        return CodeBlock(self._region, start, -(-size // GRANULE) * GRANULE, self, self.watcher)

    def allocate_data(self, size: int, at: int | None = None) -> DataBlock:
        """Zeroed memory for `size` bytes from a page boundary: near the code while there is room."""
        mapped = -(-max(size, 1) // PAGE) * PAGE
        with CODE_LOCK:
            self._unmap_given_up()
            start = self.data.take(mapped) if at is None else None
            if start is not None:
                self._in_use += 1
                address = self._base + self.extent.code + start
                if self.shared is not None:
                    self.shared.clear(address, mapped)
                else:
                    map_memory(address, mapped, READ | WRITE, PRIVATE | ANONYMOUS | FIXED)
                return DataBlock(address, size, partial(self._given_up.append, (start, mapped)))
        if self.shared is not None:
            if at is None:
                raise out_of_memory(f"emulated memory has no {size} bytes left")
            return self._place_shared_data(size, at, mapped)
        flags = PRIVATE | ANONYMOUS | (FIXED_NO_REPLACE if at is not None else 0)
        address = map_memory(at or 0, mapped, READ | WRITE, flags)
        return DataBlock(address, size, partial(unmap_memory, address, mapped))

    def close(self) -> None:
        """Unmap the arena with the code in it; data goes with its last view."""
        with CODE_LOCK:
            self._region.close()
            self.is_open, self.watcher = False, None
            _closing().add(self)
            self._unmap_given_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unmap_given_up(self) -> None:
        while self._given_up:
            start, mapped = self._given_up.popleft()
            if self.shared is None:
                hole = PRIVATE | ANONYMOUS | NO_RESERVE | FIXED
                map_memory(self._base + self.extent.code + start, mapped, NONE, hole)
            self.data.give(start, mapped)
            self._in_use -= 1
        if not self.is_open and not self._in_use and self._base:
            unmap_memory(self._base, self.extent.size)
            self._base = 0
            _closing().discard(self)
            if self.shared is not None:
                self.shared.close()

    def _place_code(self, size: int, at: int) -> CodeBlock:
        assert at % CODE_ALIGNMENT == 0, "code is placed at a multiple of 16"
        first, end = at // PAGE * PAGE, -(-(at + size) // PAGE) * PAGE
        with CODE_LOCK:
            region = Region(first, end - first, self.protection, self.poison, replace=False)
            region.commit(region.size)
        if self.watcher is not None:
            self.watcher.mapped(first, region.size, region.alias, region.file, is_code=True)
        return CodeBlock(region, at - first, size, None, self.watcher)

    def _place_shared_data(self, size: int, at: int, mapped: int) -> DataBlock:
        """Data outside of the arena that an emulator sees."""
        assert self.watcher is not None, "who shares data watches"
        watcher, file = self.watcher, os.memfd_create("bpfc-data", os.MFD_CLOEXEC)
        os.ftruncate(file, mapped)
        address = map_memory(at, mapped, READ | WRITE, SHARED | FIXED_NO_REPLACE, file)
        watcher.mapped(address, mapped, address, file, is_code=False)
        os.close(file)

        def unmap() -> None:
            watcher.unmapped(address, mapped)
            unmap_memory(address, mapped)

        return DataBlock(address, size, unmap)


@cache
def _closing() -> set[Pool]:
    """Closed pools whose data somebody may still have views of. Under `CODE_LOCK`."""
    return set()


def _low_arena(extent: Extent) -> int:
    """A low arena, after those are unmapped that nobody has views of any more."""
    _unmap_closing()
    try:
        return low_arena(extent)
    except UnsupportedError:
        gc.collect()
        _unmap_closing()
    return low_arena(extent)


def _unmap_closing() -> None:
    with CODE_LOCK:
        for pool in tuple(_closing()):
            pool._unmap_given_up()


@cache
def near_pool() -> Pool:
    """The pool of this process, for all that says no other; it lives as long as the process."""
    # Safe because only the address of a function of the C library is asked for: libraries are about there.
    libraries = ctypes.cast(ctypes.CDLL(None).malloc, ctypes.c_void_p).value or 0
    return Pool(protection=wanted_protection(), near=libraries)


def wanted_protection() -> Protection:
    """How the code of this process is protected: BPFC_PUBLISH=rwx asks for one mapping."""
    is_both = os.environ.get("BPFC_PUBLISH") == "rwx"
    return Protection.WRITE_EXECUTE if is_both else Protection.WRITE_XOR_EXECUTE
