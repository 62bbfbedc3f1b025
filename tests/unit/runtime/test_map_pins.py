"""Pinned maps outlive their process, are shared by those who open them, and damage is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from dataclasses import replace as replaced
from errno import E2BIG, EBUSY, EEXIST, EINVAL, ENOENT
from pathlib import Path

import pytest

from backends.registry import host
from ir.diagnostics import RejectedError, UnreadableError
from ir.kinds import MapFlag, MapType
from ir.map_layout import BUCKET_LOCKED, DATA, LINE, LOCK, RECORD_BUSY, RING_DATA
from ir.maps import PAGE
from ir.object import Map
from runtime.maps.host import HostOperations
from runtime.maps.live import LiveMap, create
from runtime.maps.pin import open_pin, pin, read_pin
from runtime.maps.views import view_of
from runtime.memory import Pool

ROOT = Path(__file__).parents[3]
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


def test_elements_in_the_hands_of_a_dead_process_are_free_again(bench: Bench, tmp_path: Path) -> None:
    """As if two processes died while they replaced a value, and others with what they had taken from free lists."""
    first = bench.make(HASH)
    for number in range(100):
        first.update(number.to_bytes(4, sys.byteorder), value(first, number))
    for number in range(50):
        first.delete(number.to_bytes(4, sys.byteorder))
    pin(first, tmp_path / "pin")
    spares = first.layout.spares_offset
    first.block.view[spares : spares + 2 * LINE] = bytes(2 * LINE)
    first.close()
    again = bench.open(tmp_path / "pin")
    assert sorted(key for key, _ in again.items()) == sorted(
        number.to_bytes(4, sys.byteorder) for number in range(50, 100)
    )
    for number in range(100, 150):
        again.update(number.to_bytes(4, sys.byteorder), value(again, number))
        again.update(number.to_bytes(4, sys.byteorder), value(again, 1))
    with pytest.raises(RejectedError) as caught:
        again.update(ONE, value(again, 1))
    assert caught.value.errno == E2BIG
    assert len(again) == 100
    again.close()


def test_a_lock_in_a_value_and_a_record_of_a_dead_process_are_given_back(
    bench: Bench, tmp_path: Path
) -> None:
    locked = bench.make(Map("locked", MapType.ARRAY, 4, 16, 3, special=((8, 4, "bpf_spin_lock"),)))
    locked.update(ONE, bytes(range(1, 17)))
    pin(locked, tmp_path / "locked")
    ring = bench.make(Map("ring", MapType.RINGBUF, 0, 0, PAGE))
    output = bench.operations.of(MapType.RINGBUF, "output")
    for size in (100, 200):
        assert output(bench.operations.run, ring.address, ring.address, size, 0) == 0
    pin(ring, tmp_path / "ring")
    place = locked.locate(ONE) - locked.address + 8
    locked.block.view[place] = 1
    ring.block.view[RING_DATA + 3] |= RECORD_BUSY >> 24
    locked.close()
    ring.close()
    again = bench.open(tmp_path / "locked")
    assert again.lookup(ONE) == bytes([*range(1, 9), 0, 0, 0, 0, *range(13, 17)])
    again.close()
    again = bench.open(tmp_path / "ring")
    assert [len(record) for record in view_of(again)] == [200]  # type: ignore[call-overload]  # as above
    again.close()


def test_maps_that_hold_addresses_are_open_in_one_process_at_a_time(bench: Bench, tmp_path: Path) -> None:
    first = bench.make(Map("programs", MapType.PROG_ARRAY, 4, 4, 3))
    first.put_slot(1, 0x1234_5678, 1)
    pin(first, tmp_path / "pin")
    with pytest.raises(RejectedError, match="addresses in another process") as caught:
        bench.open(tmp_path / "pin")
    assert caught.value.errno == EBUSY
    assert first.lookup(ONE) == bytes([1, 0, 0, 0])
    first.close()
    again = bench.open(tmp_path / "pin")
    assert again.lookup(ONE) is None
    with pytest.raises(RejectedError, match="in use"):
        bench.open(tmp_path / "pin")
    again.close()


def test_a_map_for_fewer_cpus_or_with_locks_elsewhere_is_another_one(bench: Bench, tmp_path: Path) -> None:
    live = bench.make(HASH)
    pin(live, tmp_path / "pin")
    with pytest.raises(RejectedError, match="3 cpus, there 2") as caught:
        open_pin(tmp_path / "pin", bench.operations, HASH, cpus=3)
    assert caught.value.errno == EINVAL
    with pytest.raises(RejectedError, match="elsewhere in values") as caught:
        bench.open(tmp_path / "pin", replaced(HASH, special=((0, 4, "bpf_spin_lock"),)))
    assert caught.value.errno == EINVAL
    live.close()


def test_a_damaged_file_is_refused_to_all_who_open_it_at_once(bench: Bench, tmp_path: Path) -> None:
    large = replaced(HASH, max_entries=1 << 18)
    live = bench.make(large)
    live.update(ONE, value(live, 1))
    pin(live, tmp_path / "pin")
    live.block.view[DATA + 4 * live.layout.bucket_mask] ^= 0xFF
    live.close()

    def opens(_: int) -> bool:
        try:
            bench.open(tmp_path / "pin").close()
        except UnreadableError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert not any(threads.map(opens, range(64)))


def test_what_is_no_file_is_refused(bench: Bench, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UnreadableError, match="is no file"):
            bench.open(path)


@pytest.mark.slow
def test_damaged_files_crash_and_hang_nobody() -> None:
    """BPFC_DAMAGED_PINS=1000 tries so many of each type of map."""
    count = os.environ.get("BPFC_DAMAGED_PINS", "40")
    command = [sys.executable, "-m", "tests.damaged_pins", "1", count]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1:]}: {done.returncode} {done.stderr}"
    assert len(done.stdout.splitlines()) == 20 * int(count)


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
