"""What a thread may ask of the kernel, made less for a while."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def only_capabilities(*numbers: int) -> Iterator[None]:
    """This thread without the capabilities of others (capset(2), version 3: effective, permitted, inheritable, twice)."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    before = ctypes.create_string_buffer(24)
    wanted = sum(1 << number for number in numbers)

    def call(what: str, data: ctypes.Array[ctypes.c_char]) -> None:
        if getattr(libc, what)(head, data):
            raise OSError(ctypes.get_errno(), what)

    call("capget", before)
    low, permitted, kept, high, further, rest = struct.unpack("=6I", before.raw[:24])
    less = struct.pack("=6I", low & wanted, permitted, kept, high & (wanted >> 32), further, rest)
    call("capset", ctypes.create_string_buffer(less, 24))
    try:
        yield
    finally:
        call("capset", before)
