"""Numbers of variable length, seven bits a byte, least first (DWARF 4, 7.6): read and written."""

from __future__ import annotations


def read_unsigned(data: bytes, at: int) -> tuple[int, int]:
    """The value at `at` and the offset behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def read_signed(data: bytes, at: int) -> tuple[int, int]:
    """The value at `at`, whose highest bit is its sign, and the offset behind it."""
    start = at
    value, at = read_unsigned(data, at)
    return (value - (1 << 7 * (at - start)) if data[at - 1] & 0x40 else value), at


def unsigned(value: int) -> bytes:
    """A number that is not negative."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def signed(value: int) -> bytes:
    """Any number."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value & 0x7F))
