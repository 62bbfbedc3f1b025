"""Timers run their callbacks when they are due, and not when they were cancelled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import bpfc
from bpfc.running import Runtime
from ir.diagnostics import RejectedError

OBJECT = Path(__file__).parents[2] / "objects" / "timers.o"
PACKET = bytes(64)
EBUSY, EINVAL = 16, 22


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with bpfc.load(OBJECT).start() as started:
        yield started


@pytest.mark.parametrize(("program", "map", "key"), [("in_array", "array", 2), ("in_hash", "hash", 0x77)])
def test_a_timer_fires_when_its_clock_says_so(runtime: Runtime, program: str, map: str, key: int) -> None:
    now = 0
    timers = runtime.world.timers
    timers.clock = lambda clock: now
    assert runtime[program].run(PACKET, {"mark": 500}).ret == 0
    assert timers.fire() == 0
    now = 500
    assert timers.fire() == 1
    assert runtime.maps[map][key].count == 1
    assert runtime.bss.last_key == key
    now = 1499
    assert timers.fire() == 0
    now = 1500
    assert timers.fire() == 1
    now = 99999
    assert timers.fire() == 1
    assert timers.fire() == 0
    assert runtime.maps[map][key].count == 3
    assert not timers.errors


def test_a_timer_is_made_once_and_may_be_cancelled(runtime: Runtime) -> None:
    now = 0
    runtime.world.timers.clock = lambda clock: now
    assert runtime["stop"].run(PACKET).verdict == (1 << 32) - EINVAL
    assert runtime["in_array"].run(PACKET, {"mark": 5}).ret == 0
    assert runtime["in_array"].run(PACKET, {"mark": 5}).verdict == (1 << 32) - EBUSY
    assert runtime["stop"].run(PACKET).ret == 1
    assert runtime["stop"].run(PACKET).ret == 0
    now = 100
    assert runtime.world.timers.fire() == 0


def test_timers_run_on_a_thread_of_their_own(runtime: Runtime) -> None:
    assert runtime["in_array"].run(PACKET, {"mark": 1000}).ret == 0
    end = time.monotonic() + 10
    while runtime.maps["array"][2].count < 3 and time.monotonic() < end:
        time.sleep(0.001)
    assert runtime.maps["array"][2].count == 3
    assert not runtime.world.timers.errors


@pytest.mark.parametrize("target", [None, "riscv64"])
def test_no_callback_runs_in_code_that_was_freed(target: str | None) -> None:
    """Each runtime ends while its timer, due at once again and again, is somewhere in its callback or before it."""
    if target is not None:
        pytest.importorskip("unicorn", reason="the extra 'emu' is not installed")
    loaded = bpfc.load(OBJECT)
    for number in range(40):
        with loaded.start(target=target) if target else loaded.start() as runtime:
            timers = runtime.world.timers
            assert runtime["in_array"].run(PACKET, {"mark": 1 + 20_000 * (number % 8)}).ret == 0
            time.sleep(0.0001 * (number % 4))
        assert (timers.fire(), timers.errors) == (0, [])


def test_a_program_is_not_unloaded_while_a_timer_has_its_callback(runtime: Runtime) -> None:
    runtime.world.timers.clock = lambda clock: 0
    assert runtime["in_array"].run(PACKET, {"mark": 500}).ret == 0
    with pytest.raises(RejectedError, match="timers hold it") as caught:
        runtime.unload("in_array")
    assert caught.value.errno == EBUSY
