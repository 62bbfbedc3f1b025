"""Segments: each access lies inside one of them."""

from __future__ import annotations

import ctypes

import pytest

from ir.segments import AccessError, Memory, make_segment


def test_numbers_are_read_and_written_in_the_programs_order() -> None:
    data = bytearray(b"\x01\x02\x03\x04")
    assert Memory([make_segment(0x1000, data, "data")]).read(0x1001, 2) == 0x0302
    memory = Memory([make_segment(0x1000, data, "data")], big_endian=True)
    assert memory.read(0x1001, 2) == 0x0203
    memory.write(0x1002, 2, 0xABCDEF)
    assert data == b"\x01\x02\xcd\xef"


@pytest.mark.parametrize(
    ("address", "size", "found"),
    [(0x0FFF, 1, -1), (0x0FFF, 2, -1), (0x1000, 4, 0), (0x1003, 2, 3), (0x1004, 1, 4), (0x1F_FFFF, 1, None)],
)
def test_an_access_is_inside_one_segment_or_told_where_it_is(
    address: int, size: int, found: int | None
) -> None:
    memory = Memory([make_segment(0x1000, bytearray(4), "data")])
    if found == 0:
        assert memory.find(address, size).name == "data"
        return
    with pytest.raises(AccessError, match=f"access of {size} bytes at {address:#x}") as caught:
        memory.read(address, size)
    assert caught.value.code == "out-of-bounds"
    near = "" if found is None else f"; nearest is data, 4 bytes, at offset {found} of it"
    assert caught.value.message.partition(" is outside every segment")[2] == near


def test_an_access_across_two_adjacent_segments_is_refused() -> None:
    memory = Memory([make_segment(0x1004, bytearray(4), "high"), make_segment(0x1000, bytearray(4), "low")])
    assert [segment.name for segment in memory] == ["low", "high"]
    with pytest.raises(AccessError):
        memory.read(0x1002, 4)


def test_read_only_memory_is_read_and_not_written() -> None:
    memory = Memory(
        [make_segment(0, b"\x07", "constants"), make_segment(16, bytearray(1), "frozen", writable=False)]
    )
    assert memory.read(0, 1) == 7
    for address, name in ((0, "constants"), (16, "frozen")):
        with pytest.raises(AccessError, match=f"write of 1 bytes to {name}, which is read-only") as caught:
            memory.write(address, 1, 0)
        assert caught.value.code == "read-only-memory"


def test_host_memory_is_shared_and_not_copied() -> None:
    value = ctypes.c_uint32(5)
    memory = Memory([make_segment(ctypes.addressof(value), value, "a map's value")])
    memory.write(ctypes.addressof(value), 4, 6)
    assert value.value == 6
    value.value = 7
    assert memory.read(ctypes.addressof(value), 1) == value.value & 0xFF or memory.order == "big"


def test_a_removed_segment_is_gone() -> None:
    memory, segment = Memory(), make_segment(8, bytearray(8), "frame")
    memory.add(segment)
    memory.remove(segment)
    with pytest.raises(AccessError):
        memory.find(8, 1)
