"""The memory of one map: near the code, or a file in memory of which the last part is mapped twice.

plain      zeroed pages of the pool
mirrored   | header ... data | the same data again |     (ring buffers: a record never has to wrap)
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from typing import Final, final

from ir.diagnostics import Diagnostic, UnsupportedError
from runtime.memory import DataBlock, Pool

_READ_WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE
_FIXED: Final = 0x10
_FAILED: Final = ctypes.c_void_p(-1).value

# Safe because the signatures are those of mmap(2) and munmap(2) on every 64-bit Linux.
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


@final
class MapBlock:
    """`size` bytes at `address`; `view` shows them. Owns the memory: closing frees it."""

    def __init__(self, address: int, size: int, plain: DataBlock | None, descriptor: int) -> None:
        self.address, self.size = address, size
        self._plain, self._descriptor = plain, descriptor
        # Safe because the pages stay mapped until close(), which releases the view first.
        own = (ctypes.c_uint8 * size).from_address(address)
        self.view = plain.view if plain is not None else memoryview(own).cast("B")
        self.is_closed = False

    def move_to_file(self, descriptor: int, start: int, mirrored: int) -> None:
        """From now on the block is part of a file, at byte `start`; its address stays. Owns the descriptor then.

        Nobody may be changing the map: what is stored while the bytes are copied may be lost.
        """
        os.pwrite(descriptor, self.view[: self.size - mirrored], start)
        map_file(descriptor, start, self.size, mirrored, self.address)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """Free the memory; BufferError when somebody still holds a view of it. Closing twice is fine."""
        if self.is_closed:
            return
        if self._plain is not None:
            self._plain.close()
        else:
            self.view.release()
            _LIBC.munmap(self.address, self.size)
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # the mapping may last, the lock must not
            os.close(self._descriptor)
        self.is_closed = True


def allocate(pool: Pool, size: int, mirrored: int) -> MapBlock:
    """Zeroed memory for a map's block, the last `mirrored` bytes showing the ones before them."""
    if not mirrored or pool.shared is not None:
        plain = pool.allocate_data(size)
        if mirrored and pool.shared is not None:
            pool.shared.mirror(plain.address + size - mirrored, mirrored)
        return MapBlock(plain.address, size, plain, -1)
    descriptor = os.memfd_create("bpfc-map", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size - mirrored)
    return MapBlock(map_file(descriptor, 0, size, mirrored), size, None, descriptor)


def map_file(descriptor: int, start: int, size: int, mirrored: int, at: int = 0) -> int:
    """Map a block that begins at byte `start` of a file, shared and writable; its address. `at`: in place of what is there."""
    address = at or _map(0, size, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    shared = mmap.MAP_SHARED | _FIXED
    _map(address, size - mirrored, _READ_WRITE, shared, descriptor, start)
    if mirrored:
        again = start + size - 2 * mirrored
        _map(address + size - mirrored, mirrored, _READ_WRITE, shared, descriptor, again)
    return address


def _map(address: int, size: int, protection: int, flags: int, descriptor: int, offset: int) -> int:
    # Safe because MAP_FIXED is only passed for ranges of mappings that belong to the block being made or moved.
    found = _LIBC.mmap(address, size, protection, flags, descriptor, offset)
    if found == _FAILED:
        number = ctypes.get_errno()
        said = f"the system refuses to map {size} bytes: {os.strerror(number)}"
        raise UnsupportedError([Diagnostic("mapping-refused", said, errno=number)])
    assert isinstance(found, int)
    return found
