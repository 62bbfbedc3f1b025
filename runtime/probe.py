"""Reads of this process's own memory that fail where nothing is, instead of faulting (process_vm_readv(2)).

Addresses that programs made up come here: what they print with %s, for one.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

PAGE: Final = 4096
LONGEST_STRING: Final = 512  # that Linux's printf takes from memory (MAX_BPRINTF_BIN_ARGS)


class _Span(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def probe(address: int, size: int) -> bytes | None:
    """`size` bytes at `address`, None when not all of them are there."""
    if not 0 < address < 1 << 64:
        return None
    buffer = (ctypes.c_uint8 * size)()
    # Safe because the kernel checks `address`, and writes only into the buffer.
    local, remote = _Span(ctypes.addressof(buffer), size), _Span(address, size)
    read = ctypes.CDLL(None).process_vm_readv
    read.restype = ctypes.c_ssize_t
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    done = read(os.getpid(), ctypes.byref(local), one, ctypes.byref(remote), one, none)
    return bytes(buffer) if done == size else None


def probe_string(address: int, most: int) -> bytes | None:
    """The bytes at `address` up to a NUL, or `most` of them; None when they are not there."""
    found = b""
    while len(found) < most:
        place = address + len(found)
        some = probe(place, min(most - len(found), PAGE - place % PAGE))
        if some is None:
            return None
        head, end, _ = some.partition(b"\0")
        found += head
        if end:
            break
    return found
