"""Acceptance cases of static keys under threads: SK-23 to SK-25, five seconds each."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import bpfc
from ir.diagnostics import DiagnosticError
from runtime.space import Space
from tests.storms import going_on

OBJECT = Path(__file__).parent.parent / "objects" / "static_keys.o"
SECONDS, PACKETS, CHECKED = 5, 2000, 1_000_000
EMULATED_SECONDS, EMULATED_PACKETS, EMULATED_CHECKED = 0.5, 2, 100
LEGAL = {3, 7}


def sizes(machine: Space) -> tuple[float, int, int]:
    """How long a case lasts in seconds, how many packets a batch has, how many results are enough."""
    if machine.is_native:
        return SECONDS, PACKETS, CHECKED
    return EMULATED_SECONDS, EMULATED_PACKETS, EMULATED_CHECKED


@contextmanager
def threads(*bodies: Callable[[], None]) -> Iterator[None]:
    """Run functions in threads of their own meanwhile; what one of them raised comes out at the end."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        started = [pool.submit(body) for body in bodies]
        yield
    for future in started:
        future.result()


@pytest.mark.slow
def test_sk_23_running_threads_see_both_legal_results_and_nothing_else(machine: Space) -> None:
    seconds, packets, enough = sizes(machine)
    with bpfc.load(OBJECT).start() as runtime:
        program, key = runtime["unlikely"], runtime.static_keys["debug"]
        stop = threading.Event()
        seen: set[int] = set()

        def read() -> None:
            batch = bpfc.Batch([bytearray(64)] * packets)
            while not stop.is_set():
                seen.update(program.run_batch(batch))

        with threads(*[read] * 4):
            toggles = 0
            goes_on = going_on(seconds, lambda: seen == LEGAL and toggles > enough // 1000)
            while goes_on():
                key.enable()
                key.disable()
                toggles += 2
            stop.set()
    assert seen == LEGAL
    assert toggles > enough // 1000


@pytest.mark.slow
def test_sk_24_who_starts_after_the_announcement_sees_the_new_form(machine: Space) -> None:
    seconds, packets, enough = sizes(machine)
    with bpfc.load(OBJECT).start() as runtime:
        program, key = runtime["unlikely"], runtime.static_keys["debug"]
        stop = threading.Event()
        announced: list[tuple[int, int] | None] = [None]  # None while the key is being changed
        checked, stale = [0] * 4, [0] * 4

        def read(number: int) -> None:
            batch = bpfc.Batch([bytearray(64)] * packets)
            while not stop.is_set():
                before = announced[0]
                results = program.run_batch(batch)
                if before is not None and announced[0] is before:
                    checked[number] += packets
                    stale[number] += packets - list(results).count(before[1])

        with threads(*[lambda number=number: read(number) for number in range(4)]):
            end, turn = time.monotonic() + seconds, 0
            while time.monotonic() < end or sum(checked) < enough:
                turn += 1
                for change, expected in ((key.enable, 7), (key.disable, 3)):
                    announced[0] = None
                    change()
                    announced[0] = (turn, expected)
                    time.sleep(0.002)
            stop.set()
    assert sum(checked) >= enough
    assert sum(stale) == 0


@pytest.mark.slow
def test_sk_25_writers_of_two_keys_and_an_unload_do_not_disturb_each_other(machine: Space) -> None:
    seconds, packets, enough = sizes(machine)
    with bpfc.load(OBJECT).start() as runtime:
        shared = runtime["with_callee"]
        stop = threading.Event()
        refused: list[int] = []
        seen: set[int] = set()
        unloads = [0]

        def toggle(name: str) -> None:
            while not stop.is_set():
                for on in (True, False):
                    runtime.static_keys[name].switch(on)
                    try:
                        runtime["unlikely"].keys["debug"].enable()
                    except DiagnosticError as error:
                        refused.append(error.errno)
            runtime.static_keys[name].enable()

        def unload() -> None:
            while not stop.is_set():
                other = runtime["unlikely"]
                assert other.run(bytes(64)).ret in LEGAL
                runtime.unload("unlikely")
                unloads[0] += 1

        def read() -> None:
            batch = bpfc.Batch([bytearray(64)] * packets)
            while not stop.is_set():
                seen.update(shared.run_batch(batch))

        with threads(lambda: toggle("debug"), lambda: toggle("trace"), unload, read):
            time.sleep(seconds)
            stop.set()
        assert set(refused) <= {errno.ENOENT}
        assert seen <= {0, 100, 1000, 1100, 10000, 10100, 11000, 11100}
        assert unloads[0] > min(20, enough // 1000)
        assert shared.run(bytes(64)).ret == 11100
        assert runtime["unlikely"].run(bytes(64)).ret == 7
