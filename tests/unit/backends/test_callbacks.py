"""Callbacks run with what the helper passes them, as often as it says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import bpfc
from bpfc.running import Runtime

OBJECT = Path(__file__).parents[2] / "objects" / "callbacks.o"
PACKET = bytes(64)


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with bpfc.load(OBJECT).start() as started:
        yield started


def test_an_array_is_visited_in_order_and_its_values_are_live(runtime: Runtime) -> None:
    for index in range(5):
        runtime.maps["array"][index] = 10 * index
    assert runtime["sum_array"].run(PACKET).ret == 5
    assert runtime.bss.sums == {"keys": 10, "values": 100, "calls": 5}
    assert [runtime.maps["array"][index] for index in range(5)] == [1, 11, 21, 31, 41]


def test_a_per_cpu_array_is_visited_with_the_values_of_the_runs_cpu(runtime: Runtime) -> None:
    view = runtime.maps["percpu_array"]
    for index in range(5):
        view[index] = [index, *[100] * (view.live.cpus - 1)]
    assert runtime["sum_percpu_array"].run(PACKET).ret == 5
    assert runtime.bss.sums == {"keys": 10, "values": 10, "calls": 5}


def test_a_hash_may_be_emptied_while_it_is_visited(runtime: Runtime) -> None:
    for number in range(20):
        runtime.maps["hash"][number, 0, 1] = 2
    assert runtime["sum_hash"].run(PACKET).ret == 20
    assert runtime.bss.sums == {"keys": 190 + 20, "values": 40, "calls": 20}
    assert len(runtime.maps["hash"]) == 0


def test_a_per_cpu_hash_is_visited(runtime: Runtime) -> None:
    for number in range(7):
        runtime.maps["percpu_hash"][number] = 3
    assert runtime["sum_percpu_hash"].run(PACKET).ret == 7
    assert runtime.bss.sums == {"keys": 21, "values": 21, "calls": 7}


def test_a_visit_ends_when_the_callback_says_so(runtime: Runtime) -> None:
    assert runtime["stop"].run(PACKET).ret == 2


@pytest.mark.parametrize(
    ("turns", "result", "last"),
    [(0, 0, 0), (1, 1, 0), (1000, 1000, 999), (5000, 1001, 1000), ((1 << 23) + 1, (1 << 64) - 7, 0)],
)
def test_a_loop_turns_as_often_as_asked(runtime: Runtime, turns: int, result: int, last: int) -> None:
    assert runtime["count"].run(PACKET, {"mark": turns}).verdict == result & 0xFFFF_FFFF
    assert runtime.bss.sums["values"] == last


def test_loops_nest(runtime: Runtime) -> None:
    assert runtime["nested"].run(PACKET, {"mark": 10}).ret == sum(index - 1 for index in range(1, 10))


def test_a_spin_lock_keeps_its_value_consistent(runtime: Runtime) -> None:
    program = runtime["locked"]

    def work() -> None:
        for _ in range(300):
            program.run(PACKET)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared = runtime.maps["shared"][0]
    assert (shared.left, shared.right) == (900, 900)
