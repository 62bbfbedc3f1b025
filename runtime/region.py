"""Code memory mapped twice: one file in memory, writable at one address and executable at another.

    address  | read + execute |  same pages  | read + write |  alias

Nothing is writable and executable at one address, except where `Protection.WRITE_EXECUTE` was asked for. What
was never written is poison (int3), so that a stray execution traps at once. A child of fork(2) gets a copy of
its own: shared pages would let parent and child overwrite each other's code.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import weakref
from enum import Enum
from pathlib import Path
from typing import Final, final

from ir.diagnostics import Diagnostic, UnsupportedError

PAGE: Final = mmap.PAGESIZE

NONE, READ, WRITE, EXECUTE = 0, 1, 2, 4
SHARED, PRIVATE, FIXED, ANONYMOUS, NO_RESERVE, FIXED_NO_REPLACE = 1, 2, 0x10, 0x20, 0x4000, 0x100000
_MFD_EXEC: Final = 0x10
_FAILED: Final = ctypes.c_void_p(-1).value

# The one lock of all code memory, as the kernel's text_mutex: who allocates, patches or frees holds it, and
# forks wait for it. Taken last, after the locks of attachments and images.
CODE_LOCK: Final = threading.RLock()

# Safe because these are the signatures of mmap(2) and munmap(2) on every 64-bit Linux.
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Protection(Enum):
    """How code memory is protected."""

    WRITE_XOR_EXECUTE = "two mappings"
    WRITE_EXECUTE = "one mapping that is both"


@final
class Region:
    """`size` bytes of code memory, executable at `address`, writable at `alias`. Owned by a pool or a block.

    `address` 0 lets the system choose; any other is used if it is free, or if `replace`, the caller's own. With
    `adopt` it takes over code that stands there, in one step, under threads that run it.
    """

    def __init__(
        self,
        address: int,
        size: int,
        protection: Protection,
        poison: bytes,
        *,
        replace: bool,
        adopt: bool = False,
    ) -> None:
        self.size = size
        self.protection = protection
        self.poison = poison
        self._file = -1
        self._copy = -1
        self._mapped = 0
        placement = FIXED if replace else (FIXED_NO_REPLACE if address else 0)
        if protection is Protection.WRITE_EXECUTE:
            flags = PRIVATE | ANONYMOUS | NO_RESERVE | placement
            self.address = self.alias = map_memory(address, size, READ | WRITE | EXECUTE, flags)
            return
        self._file = _executable_file(size)
        self.alias = map_memory(0, size, READ | WRITE, SHARED, self._file)
        if adopt:
            self.address, self._mapped = address, size
            # Safe because the caller says that `size` bytes of code are there, and the alias is as large.
            ctypes.memmove(self.alias, address, size)
            self._map_executable(0, size)
            _REGIONS.add(self)
            return
        flags = PRIVATE | ANONYMOUS | NO_RESERVE | placement
        try:
            self.address = map_memory(address, size, NONE, flags)
        except UnsupportedError:
            unmap_memory(self.alias, size)
            os.close(self._file)
            raise
        _REGIONS.add(self)

    @property
    def file(self) -> int:
        """The descriptor of the file that both mappings show; -1 where there is only one."""
        return self._file

    def commit(self, end: int) -> None:
        """Make the first `end` bytes executable; new ones hold poison."""
        end = min(-(-end // PAGE) * PAGE, self.size)
        if end <= self._mapped:
            return
        start, self._mapped = self._mapped, end
        fill(self.alias + start, end - start, self.poison)
        self._map_executable(start, end)

    def remap(self, start: int, end: int) -> None:
        """Map the pages of [start, end) anew where they run: emulators then drop what they translated."""
        self._map_executable(start // PAGE * PAGE, min(-(-end // PAGE) * PAGE, self._mapped))

    def before_fork(self) -> None:
        """Copy the code for the child while nobody changes it."""
        if self.size:
            self._copy = _executable_file(self.size)
            # Safe because the alias maps all of the region until close().
            contents = (ctypes.c_char * self._mapped).from_address(self.alias)
            with open(self._copy, "wb", closefd=False) as file:
                file.write(contents)

    def after_fork(self, *, is_child: bool) -> None:
        """In the child, go over to the copy; in the parent, drop it."""
        if self._copy < 0:
            return
        copy, self._copy = self._copy, -1
        if not is_child:
            os.close(copy)
            return
        os.close(self._file)
        self._file = copy
        map_memory(self.alias, self.size, READ | WRITE, SHARED | FIXED, copy)
        self._map_executable(0, self._mapped)

    def close(self) -> None:
        """Unmap both views."""
        if not self.size:
            return
        unmap_memory(self.address, self.size)
        if self._file >= 0:
            unmap_memory(self.alias, self.size)
            os.close(self._file)
            _REGIONS.discard(self)
        self.size = self._mapped = 0

    def _map_executable(self, start: int, end: int) -> None:
        if self.protection is Protection.WRITE_XOR_EXECUTE and start < end:
            place = self.address + start
            map_memory(place, end - start, READ | EXECUTE, SHARED | FIXED, self._file, start)


def map_memory(address: int, size: int, protection: int, flags: int, file: int = -1, offset: int = 0) -> int:
    """mmap(2); UnsupportedError with the system's errno when it refuses."""
    # Safe because FIXED is only passed for ranges inside mappings that the caller made itself.
    found = _LIBC.mmap(address, size, protection, flags, file, offset)
    if found == _FAILED:
        number = ctypes.get_errno()
        raise _refused(
            f"the system refuses to map {size} bytes at {address:#x}: {os.strerror(number)}", number
        )
    assert isinstance(found, int)
    if flags & FIXED_NO_REPLACE and found != address:
        unmap_memory(found, size)  # a kernel before 4.17 takes the address as a hint
        raise _refused(f"the system maps {size} bytes at {found:#x}, wanted {address:#x}", 17)
    return found


def unmap_memory(address: int, size: int) -> None:
    """munmap(2) of a mapping that the caller made."""
    # Safe because callers pass ranges that they mapped and that nobody uses any more.
    _LIBC.munmap(address, size)


def mappings() -> list[tuple[int, int]]:
    """What is mapped in this process, in order: (start, end)."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = (line.split(" ", 1)[0].split("-") for line in lines)
    return [(int(start, 16), int(end, 16)) for start, end in ranges]


def fill(address: int, size: int, pattern: bytes) -> None:
    """Fill memory with a repeated pattern; `size` is a multiple of its length."""
    # Safe because callers pass ranges of mappings that they own and that are writable at this address.
    ctypes.memmove(address, pattern * (size // len(pattern)), size)


def _executable_file(size: int) -> int:
    """A file in memory that may be mapped executable (MFD_EXEC exists since Linux 6.3; before, all may)."""
    try:
        file = os.memfd_create("bpfc", os.MFD_CLOEXEC | _MFD_EXEC)
    except OSError:
        file = os.memfd_create("bpfc", os.MFD_CLOEXEC)
    os.ftruncate(file, size)
    return file


def _refused(message: str, number: int) -> UnsupportedError:
    return UnsupportedError([Diagnostic("mapping-refused", message, errno=number)])


_REGIONS: Final[weakref.WeakSet[Region]] = weakref.WeakSet()  # what a fork has to copy


def _before_fork() -> None:
    CODE_LOCK.acquire()
    for region in list(_REGIONS):
        region.before_fork()


def _after_fork_in_parent() -> None:
    for region in list(_REGIONS):
        region.after_fork(is_child=False)
    CODE_LOCK.release()


def _after_fork_in_child() -> None:
    for region in list(_REGIONS):
        region.after_fork(is_child=True)
    CODE_LOCK.release()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
