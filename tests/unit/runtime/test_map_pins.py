"""Pinned maps outlive their process, are shared by those who open them, and damage is noticed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from errno import EEXIST, EINVAL, ENOENT
from pathlib import Path

import pytest

from backends.registry import host
from ir.diagnostics import RejectedError, UnreadableError
from ir.kinds import MapFlag, MapType
from ir.map_layout import BUCKET_LOCKED, DATA, LOCK
from ir.maps import PAGE
from ir.object import Map
from runtime.maps.host import HostOperations
from runtime.maps.live import LiveMap, create
from runtime.maps.pin import open_pin, pin, read_pin
from runtime.maps.views import view_of
from runtime.memory import Pool

HASH = Map("counters", MapType.HASH, 4, 8, 100)
KEYED = [
    HASH,
    Map("mapped", MapType.ARRAY, 4, 8, 5, MapFlag.MMAPABLE),
    Map("per_cpu", MapType.PERCPU_HASH, 4, 8, 10),
    Map("lru", MapType.LRU_HASH, 4, 8, 10),
]
ONE, TWO = (number.to_bytes(4, sys.byteorder) for number in (1, 2))


@dataclass
class Bench:
    """Makes maps with two cpus."""

    pool: Pool
    operations: HostOperations

    def make(self, declared: Map) -> LiveMap:
        return create(declared, self.pool, self.operations, cpus=2, seed=5)

    def open(self, path: Path, wanted: Map | None = None) -> LiveMap:
        return open_pin(path, self.operations, wanted)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Pool(poison=host().poison) as pool:
        operations = HostOperations(pool)
        yield Bench(pool, operations)
        operations.close()


def value(live: LiveMap, number: int) -> bytes:
    return number.to_bytes(8, sys.byteorder) * (2 if live.is_per_cpu else 1)


@pytest.mark.parametrize("declared", KEYED, ids=lambda declared: declared.name)
def test_a_pinned_map_is_shared_and_outlives_its_owner(declared: Map, bench: Bench, tmp_path: Path) -> None:
    first = bench.make(declared)
    first.update(ONE, value(first, 11))
    pin(first, tmp_path / "pin")
    second = bench.open(tmp_path / "pin", declared)
    second.update(TWO, value(second, 22))
    assert first.lookup(TWO) == value(first, 22)
    first.update(ONE, value(first, 33))
    assert second.lookup(ONE) == value(second, 33)
    first.close()
    second.close()
    again = bench.open(tmp_path / "pin")
    assert again.declared.name == declared.name
    assert again.lookup(ONE) == value(again, 33)
    assert again.lookup(TWO) == value(again, 22)
    again.close()


def test_a_pinned_ring_buffer_keeps_its_records(bench: Bench, tmp_path: Path) -> None:
    ring = bench.make(Map("ring", MapType.RINGBUF, 0, 0, PAGE))
    output = bench.operations.of(MapType.RINGBUF, "output")
    for _ in range(3):
        assert output(bench.operations.run, ring.address, ring.address, 1000, 0) == 0
    pin(ring, tmp_path / "pin")
    ring.close()
    again = bench.open(tmp_path / "pin")
    records = list(view_of(again))  # type: ignore[call-overload]  # a ring buffer's view iterates
    assert [len(record) for record in records] == [1000, 1000, 1000]
    again.close()


def test_locks_of_a_dead_process_are_given_back(bench: Bench, tmp_path: Path) -> None:
    first = bench.make(HASH)
    first.update(ONE, value(first, 1))
    pin(first, tmp_path / "pin")
    buckets = first.block.view[DATA : DATA + 4 * 128].cast("I")
    buckets[:] = memoryview(
        bytearray(b"".join((word | BUCKET_LOCKED).to_bytes(4, sys.byteorder) for word in buckets))
    ).cast("I")
    buckets.release()
    first.block.view[LOCK] = 1
    first.close()
    again = bench.open(tmp_path / "pin")
    again.update(ONE, value(again, 2))
    assert again.lookup(ONE) == value(again, 2)
    again.close()


def test_a_file_that_exists_is_not_pinned_over(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "pin").write_bytes(b"precious")
    live = bench.make(HASH)
    with pytest.raises(RejectedError) as caught:
        pin(live, tmp_path / "pin")
    assert caught.value.errno == EEXIST
    assert (tmp_path / "pin").read_bytes() == b"precious"
    live.close()


def test_another_map_than_the_wanted_one_is_refused(bench: Bench, tmp_path: Path) -> None:
    live = bench.make(HASH)
    pin(live, tmp_path / "pin")
    live.close()
    with pytest.raises(RejectedError, match="value_size 16, there 8") as caught:
        bench.open(tmp_path / "pin", Map("counters", MapType.HASH, 4, 16, 100))
    assert caught.value.errno == EINVAL
    assert read_pin(tmp_path / "pin").declared.max_entries == 100


def cut(data: bytes) -> bytes:
    return data[:50]


def shorten(data: bytes) -> bytes:
    return data[:-1]


def replace(data: bytes) -> bytes:
    return b"#!/bin/sh\n" * 100


def empty(data: bytes) -> bytes:
    return b""


def change_header(data: bytes) -> bytes:
    return data[:30] + b"\xff" + data[31:]


def change_block(data: bytes) -> bytes:
    return data[: PAGE + 40] + b"\xff" + data[PAGE + 41 :]


@pytest.mark.parametrize("damage", [cut, shorten, replace, empty, change_header, change_block])
def test_a_file_that_is_no_whole_pin_is_refused_and_left_alone(
    damage: object, bench: Bench, tmp_path: Path
) -> None:
    live = bench.make(HASH)
    pin(live, tmp_path / "pin")
    live.close()
    assert callable(damage)
    damaged = damage((tmp_path / "pin").read_bytes())
    (tmp_path / "pin").write_bytes(damaged)
    with pytest.raises(UnreadableError) as caught:
        bench.open(tmp_path / "pin")
    assert str(tmp_path / "pin") in str(caught.value)
    assert (tmp_path / "pin").read_bytes() == damaged


def test_a_missing_file_is_named(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UnreadableError) as caught:
        bench.open(tmp_path / "nothing")
    assert caught.value.errno == ENOENT
