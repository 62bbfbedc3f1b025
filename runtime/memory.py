"""Memory for code and the data beside it: a file in memory mapped twice, writable here, executable there.

    arena, 1 GiB of addresses, so that everything in it is within +-2 GiB of everything else
    | code, mapped read + execute ...        | data, mapped read + write ...                          |
      |                                        private pages: maps, globals
      same pages of one memfd
      |
    | code, mapped read + write |            the alias, anywhere: all writes to code go here

Nothing is ever writable and executable at one address, except in a pool made with `Protection.WRITE_EXECUTE`.
Fresh and freed code memory is filled with the target's poison (int3), so a late execution traps at once.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from bisect import insort
from enum import Enum
from functools import cache
from types import TracebackType
from typing import Final, Self, final

from ir.diagnostics import Diagnostic, UnsupportedError

PAGE: Final = mmap.PAGESIZE
GRANULE: Final = 64  # blocks of code start at cache lines
ARENA_SIZE: Final = 1 << 30
CODE_SIZE: Final = 256 << 20
GROWTH: Final = 64 << 10

_NONE, _READ, _WRITE, _EXECUTE = 0, 1, 2, 4
_SHARED, _PRIVATE, _FIXED, _ANONYMOUS, _NO_RESERVE, _FIXED_NO_REPLACE = 1, 2, 0x10, 0x20, 0x4000, 0x100000
_MFD_EXEC: Final = 0x10
_FAILED: Final = ctypes.c_void_p(-1).value

# Safe because the signatures are those of mmap(2) and munmap(2) on every 64-bit Linux, and use_errno keeps
# errno ours.
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Protection(Enum):
    """How code memory is protected."""

    WRITE_XOR_EXECUTE = "two mappings"
    WRITE_EXECUTE = "one mapping that is both"


@final
class Region:
    """A range of code memory: `size` bytes executable at `address`, writable at `alias`. Owned by a pool or
    by one block.
    """

    def __init__(
        self, address: int, size: int, protection: Protection, poison: bytes, *, replace: bool
    ) -> None:
        self.size = size
        self.protection = protection
        self.poison = poison
        self._descriptor = -1
        self._mapped = 0
        fixed = _FIXED if replace else (_FIXED_NO_REPLACE if address else 0)
        if protection is Protection.WRITE_EXECUTE:
            flags = _PRIVATE | _ANONYMOUS | _NO_RESERVE | fixed
            self.address = self.alias = _map(address, size, _READ | _WRITE | _EXECUTE, flags, -1, 0)
            return
        self._descriptor = _executable_file()
        os.ftruncate(self._descriptor, size)
        self.alias = _map(0, size, _READ | _WRITE, _SHARED, self._descriptor, 0)
        self.address = (
            address if replace else _map(address, size, _NONE, _PRIVATE | _ANONYMOUS | fixed, -1, 0)
        )

    def commit(self, end: int) -> None:
        """Make the first `end` bytes executable; new ones hold poison."""
        end = min(-(-end // PAGE) * PAGE, self.size)
        if end <= self._mapped:
            return
        start, self._mapped = self._mapped, end
        fill(self.alias + start, end - start, self.poison)
        if self.protection is Protection.WRITE_XOR_EXECUTE:
            self._map_executable(start, end)

    def remap(self, start: int, end: int) -> None:
        """Map the pages of [start, end) again where they are executed, which makes emulators drop what they
        translated.
        """
        if self.protection is Protection.WRITE_XOR_EXECUTE:
            self._map_executable(start // PAGE * PAGE, min(-(-end // PAGE) * PAGE, self._mapped))

    def detach(self) -> None:
        """Give this process its own copy of the code; called in the child after a fork, which shares the
        file.
        """
        if self.protection is Protection.WRITE_EXECUTE:
            return
        copy = _executable_file()
        os.ftruncate(copy, self.size)
        contents = ctypes.string_at(self.alias, self._mapped)
        os.close(self._descriptor)
        self._descriptor = copy
        _map(self.alias, self.size, _READ | _WRITE, _SHARED | _FIXED, copy, 0)
        ctypes.memmove(self.alias, contents, len(contents))
        if self._mapped:
            self._map_executable(0, self._mapped)

    def close(self) -> None:
        """Unmap both views."""
        if not self.size:
            return
        _LIBC.munmap(self.address, self.size)
        if self.alias != self.address:
            _LIBC.munmap(self.alias, self.size)
            os.close(self._descriptor)
        self.size = self._mapped = 0

    def _map_executable(self, start: int, end: int) -> None:
        flags = _SHARED | _FIXED
        _map(self.address + start, end - start, _READ | _EXECUTE, flags, self._descriptor, start)


@final
class FreeList:
    """Free ranges of [0, size), in units of `granule`; first fit, neighbours merge."""

    def __init__(self, size: int, granule: int) -> None:
        self.granule = granule
        self._free: list[tuple[int, int]] = [(0, size)]

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


@final
class CodeBlock:
    """Memory for one image: executed at `address`, written through `write`. Closing poisons it and gives it
    back.
    """

    def __init__(self, region: Region, start: int, size: int, pool: Pool | None) -> None:
        self.region = region
        self.address = region.address + start
        self.alias = region.alias + start
        self.size = size
        self._start = start
        self._pool = pool

    def write(self, offset: int, data: bytes) -> None:
        """Copy bytes into the block; not for code that may be running (that is `runtime/patch`)."""
        assert 0 <= offset <= self.size - len(data), "a write stays inside its block"
        # Safe because the range was checked, and the alias stays mapped until close().
        ctypes.memmove(self.alias + offset, data, len(data))

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """A copy of what stands in the block now."""
        length = self.size - offset if size is None else size
        assert 0 <= offset <= offset + length <= self.size, "a read stays inside its block"
        # Safe because the range was checked, and the alias stays mapped until close().
        return ctypes.string_at(self.alias + offset, length)

    def close(self) -> None:
        """Poison the code and free its memory. Nobody may be in it: see `runtime/epoch`."""
        if not self.size:
            return
        fill(self.alias, self.size, self.region.poison)
        size, self.size = self.size, 0
        if self._pool is None:
            self.region.close()
        else:
            self._pool._code.give(self._start, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@final
class DataBlock:
    """Zeroed memory that programs read and write: `view` is the same bytes. Closing gives it back to the
    system.
    """

    def __init__(self, address: int, size: int, mapped: int, pool: Pool | None, start: int) -> None:
        self.address = address
        self.size = size
        # Safe because the pages stay mapped until close(), which releases the view first.
        self.view = memoryview((ctypes.c_uint8 * size).from_address(address)).cast("B")
        self._mapped = mapped
        self._pool = pool
        self._start = start

    def close(self) -> None:
        """Unmap the memory; BufferError when somebody still holds a view of it."""
        if not self._mapped:
            return
        self.view.release()
        mapped, self._mapped = self._mapped, 0
        if self._pool is None:
            _LIBC.munmap(self.address, mapped)
            return
        _map(self.address, mapped, _NONE, _PRIVATE | _ANONYMOUS | _NO_RESERVE | _FIXED, -1, 0)
        self._pool._data.give(self._start, mapped)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@final
class Pool:
    """Owns an arena and hands out code and data blocks near each other; `at` places a block at any free
    address.
    """

    def __init__(
        self, poison: bytes = b"\xcc", protection: Protection = Protection.WRITE_XOR_EXECUTE
    ) -> None:
        self.poison = poison
        self.protection = protection
        self._base = _map(0, ARENA_SIZE, _NONE, _PRIVATE | _ANONYMOUS | _NO_RESERVE, -1, 0)
        self._region = Region(self._base, CODE_SIZE, protection, poison, replace=True)
        self._code = FreeList(CODE_SIZE, GRANULE)
        self._data = FreeList(ARENA_SIZE - CODE_SIZE, PAGE)

    def allocate_code(self, size: int, at: int | None = None) -> CodeBlock:
        """Executable memory for `size` bytes, aligned to 64; with `at`, exactly there (a block of its own
        mapping).
        """
        if at is not None:
            return self._place_code(size, at)
        start = self._code.take(size)
        if start is None:
            raise _out_of_memory(f"the near pool has no {size} bytes left for code")
        self._region.commit(-(-(start + size) // GROWTH) * GROWTH)
        return CodeBlock(self._region, start, -(-size // GRANULE) * GRANULE, self)

    def allocate_data(self, size: int, at: int | None = None) -> DataBlock:
        """Zeroed memory for `size` bytes at a page boundary: near the code while there is room, else
        anywhere.
        """
        mapped = -(-max(size, 1) // PAGE) * PAGE
        start = self._data.take(mapped) if at is None else None
        if start is not None:
            address = self._base + CODE_SIZE + start
            _map(address, mapped, _READ | _WRITE, _PRIVATE | _ANONYMOUS | _FIXED, -1, 0)
            return DataBlock(address, size, mapped, self, start)
        flags = _PRIVATE | _ANONYMOUS | (_FIXED_NO_REPLACE if at is not None else 0)
        return DataBlock(_map(at or 0, mapped, _READ | _WRITE, flags, -1, 0), size, mapped, None, 0)

    def close(self) -> None:
        """Unmap the whole arena; every near block is gone with it."""
        if self._base:
            self._region.close()
            _LIBC.munmap(self._base, ARENA_SIZE)
            self._base = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _place_code(self, size: int, at: int) -> CodeBlock:
        first, end = at // PAGE * PAGE, -(-(at + size) // PAGE) * PAGE
        region = Region(first, end - first, self.protection, self.poison, replace=False)
        region.commit(region.size)
        return CodeBlock(region, at - first, size, None)


@cache
def near_pool() -> Pool:
    """The pool of this process, for all that says no other. It lives as long as the process."""
    return Pool()


def fill(address: int, size: int, pattern: bytes) -> None:
    """Fill memory with a repeated pattern."""
    # Safe because callers pass ranges of mappings that they own and that are writable at this address.
    ctypes.memmove(address, pattern * (size // len(pattern)), size // len(pattern) * len(pattern))


def _executable_file() -> int:
    """A file in memory that may be mapped executable (MFD_EXEC exists since Linux 6.3; before, all may)."""
    try:
        return os.memfd_create("bpfc", os.MFD_CLOEXEC | _MFD_EXEC)
    except OSError:
        return os.memfd_create("bpfc", os.MFD_CLOEXEC)


def _map(address: int, size: int, protection: int, flags: int, descriptor: int, offset: int) -> int:
    """mmap(2); UnsupportedError with the system's errno when it refuses."""
    # Safe because MAP_FIXED is only passed for ranges inside mappings that the caller made itself.
    found = _LIBC.mmap(address, size, protection, flags, descriptor, offset)
    if found == _FAILED:
        number = ctypes.get_errno()
        message = f"the system refuses to map {size} bytes at {address:#x}: {os.strerror(number)}"
        raise UnsupportedError([Diagnostic("mapping-refused", message, errno=number)])
    assert isinstance(found, int)
    if flags & _FIXED_NO_REPLACE and found != address:
        _LIBC.munmap(found, size)
        message = f"the system placed {size} bytes at {found:#x}, wanted {address:#x}"
        raise UnsupportedError([Diagnostic("mapping-refused", message, errno=17)])
    return found


def _out_of_memory(message: str) -> UnsupportedError:
    return UnsupportedError([Diagnostic("out-of-code-memory", message, errno=12)])
