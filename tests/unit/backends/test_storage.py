"""Storage of tasks and cgroups, and the ring that the host fills."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path

import pytest

import bpfc
from bpfc.running import Runtime
from ir.diagnostics import RejectedError

OBJECT = Path(__file__).parents[2] / "objects" / "storage.o"
PACKET = bytes(64)


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with bpfc.load(OBJECT).start() as started:
        yield started


def test_a_tasks_value_is_made_at_first_use_and_kept(runtime: Runtime) -> None:
    assert [runtime["task"].run(PACKET).ret for _ in range(3)] == [101, 102, 103]
    (value,) = runtime.maps["tasks"].values()
    assert value == 103
    assert runtime["task"].run(PACKET, {"mark": 1}).ret == 0
    assert len(runtime.maps["tasks"]) == 0
    assert runtime["task"].run(PACKET).ret == 101


def test_a_cgroup_has_one_value(runtime: Runtime) -> None:
    assert [runtime["cgroup"].run(PACKET).ret for _ in range(3)] == [1, 0, 1]
    assert runtime.maps["cgroup_storage"].value == 3


def test_samples_are_drained_in_order_until_the_callback_stops(runtime: Runtime) -> None:
    ring = runtime.maps["samples"]
    assert runtime["drain"].run(PACKET).ret == 0
    for sample in (b"\x01", b"\x02abc", b"\xff" * 1000, b"\x03"):
        ring.send(sample)
    assert runtime["drain"].run(PACKET).ret == 3 << 16 | (1 + 2 + 255)
    assert runtime["drain"].run(PACKET).ret == 1 << 16 | 3
    assert ring.unread == 0


def test_a_user_ring_takes_samples_until_it_is_full_and_again_when_drained(runtime: Runtime) -> None:
    ring = runtime.maps["samples"]
    for _ in range(3):
        for _ in range(64):
            ring.send(b"\x01" * 56)
        with pytest.raises(RejectedError) as caught:
            ring.send(b"\x01" * 56)
        assert caught.value.errno == ENOSPC
        assert runtime["drain"].run(PACKET).ret == 64 << 16 | 64


def test_a_damaged_sample_is_refused(runtime: Runtime) -> None:
    ring = runtime.maps["samples"]
    ring.send(b"\x01" * 8)
    live = ring.live
    live.block.view[3 * 4096 : 3 * 4096 + 4] = (9999).to_bytes(4, sys.byteorder)
    assert runtime["drain"].run(PACKET).verdict == (1 << 32) - 22
