"""Dynamic pointers, iterators and string kfuncs answer as Linux documents them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import bpfc
from bpfc.running import Runtime

OBJECT = Path(__file__).parents[2] / "objects" / "kfuncs.o"
ENOENT = 2


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with bpfc.load(OBJECT).start() as started:
        yield started


def request(number: int, a: bytes = b"", b: bytes = b"") -> bytes:
    return bytes(14) + struct.pack("<i16s16s", number, a, b) + bytes(14)


def signed(runtime: Runtime, program: str, packet: bytes) -> int:
    verdict = runtime[program].run(packet).verdict
    return verdict - (1 << 32) if verdict >> 31 else verdict


def test_a_dynamic_pointer_to_a_map_value_is_bounded(runtime: Runtime) -> None:
    assert signed(runtime, "local", bytes(64)) == 0
    assert runtime.maps["memory"][0][60] == 9


def test_a_dynamic_pointer_to_a_packet_reads_and_writes_it(runtime: Runtime) -> None:
    result = runtime["packet"].run(bytes(63) + b"\x2a")
    assert result.verdict == 0x2A
    assert result.data == b"\xff\xff\xff\xff\xee" + bytes(58) + b"\x2a"


def test_a_record_is_reserved_through_a_dynamic_pointer_until_the_ring_is_full(runtime: Runtime) -> None:
    verdicts = [signed(runtime, "reserve", bytes(64)) for _ in range(300)]
    assert verdicts == [0] * 255 + [-1] * 45
    assert list(runtime.maps["ring"]) == [struct.pack("<II", 0, 77)] * 255


@pytest.mark.parametrize(("end", "wanted"), [(3, 0), (4, 3), (13, 75), (2, -100), (3 + (1 << 23) + 1, -100)])
def test_a_numeric_iterator_counts_up_to_its_end(runtime: Runtime, end: int, wanted: int) -> None:
    assert signed(runtime, "iterate", request(end)) == wanted


@pytest.mark.parametrize(
    ("number", "a", "b", "wanted"),
    [
        (0, b"same", b"same", 0),
        (0, b"abc", b"abd", -1),
        (0, b"abcd", b"abc", 1),
        (1, b"", b"", 0),
        (1, b"sixteen bytes...", b"", 16),
        (2, b"hello", b"l", 2),
        (2, b"hello", b"z", -ENOENT),
        (3, b"hello", b"l", 3),
        (3, b"hello", b"", 5),
        (4, b"aabbc", b"ab", 4),
        (4, b"aab", b"ab", 3),
        (5, b"aabbc", b"cx", 4),
        (5, b"aab", b"z", 3),
        (6, b"haystack", b"stack", 3),
        (6, b"haystack", b"", 0),
        (6, b"haystack", b"needle", -ENOENT),
        (6, b"aaab", b"aab", 1),
    ],
)
def test_a_string_function_answers_like_its_c_twin(
    runtime: Runtime, number: int, a: bytes, b: bytes, wanted: int
) -> None:
    assert signed(runtime, "strings", request(number, a, b)) == wanted
