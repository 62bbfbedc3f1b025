"""Extensions under running threads: calls see the old function or the new one, and nobody runs in freed memory."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from bpfc.links import Link
from runtime.epoch import epochs
from runtime.linker import LinkedImage
from runtime.space import Space
from tests.extensions import PACKET, run, started
from tests.tracing import FarPool

if TYPE_CHECKING:
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram

CYCLES = int(os.environ.get("BPFC_FREPLACE_CYCLES", "3000"))  # the long form: 100000
EMULATED_CYCLES = 30
THREADS = 4
NEAR = {8: 1 << 31, 4: 1 << 25}  # by the size of a pointer


@pytest.fixture
def targets() -> Iterator[Runtime]:
    with started("hooked") as runtime:
        yield runtime


@pytest.fixture
def extensions() -> Iterator[Runtime]:
    with started("replacements") as runtime:
        yield runtime


def cycles_on(machine: Space) -> int:
    """How often to attach and detach."""
    return CYCLES if machine.is_native else EMULATED_CYCLES


class Callers:
    """Threads that call a program without a break while the block runs; `seen` are the results of each."""

    def __init__(self, target: RunningProgram, ctx: dict[str, int]) -> None:
        self.seen: list[set[int]] = [set() for _ in range(THREADS)]
        self._target, self._ctx = target, ctx
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(results,)) for results in self.seen]

    def _call(self, results: set[int]) -> None:
        while not self._done.is_set():
            results.update(
                self._target.run_batch(
                    [PACKET] * (200 if self._target.runtime.world.space.is_native else 5), ctx=self._ctx
                )
            )

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
def test_fr_23_under_running_threads_each_call_is_the_old_or_the_new(
    targets: Runtime, extensions: Runtime, machine: Space
) -> None:
    target, extension = targets["calls_f_and_g"], extensions["returns_five"]
    old, new = 100 * (7 + 1) + 3, 100 * (7 + 1) + 5
    with Callers(target, {"ingress_ifindex": 7, "rx_queue_index": 3}) as callers:
        for _ in range(cycles_on(machine)):
            extension.attach_freplace(target, "g").close()
        while set().union(*callers.seen) != {old, new} and all(
            results <= {old, new} for results in callers.seen
        ):
            with extension.attach_freplace(target, "g"):
                assert run(target, 7, 3) == new
    assert all(results <= {old, new} for results in callers.seen)
    assert set().union(*callers.seen) == {old, new}
    assert run(target, 7, 3) == old
    epochs().drain(5)


@pytest.mark.slow
def test_fr_23_main_and_two_functions_are_replaced_at_once(
    targets: Runtime, extensions: Runtime, machine: Space
) -> None:
    target = targets["calls_f_and_g"]
    jobs = [("returns_five", "g"), ("difference", "f"), ("whole_program", "calls_f_and_g")]
    legal = {100 * first + second for first in (8, 6) for second in (3, 5)} | {1}

    def change(name: str, function: str) -> None:
        for _ in range(cycles_on(machine) // 10):
            extensions[name].attach_freplace(target, function).close()

    with Callers(target, {"ingress_ifindex": 7, "rx_queue_index": 3}) as callers:
        threads = [threading.Thread(target=change, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set().union(*callers.seen) <= legal
    assert target.hooks.extended == 0
    assert target.hooks.is_idle
    epochs().drain(5)


class Gate:
    """A helper that a test can see threads in, and let them out of."""

    def __init__(self) -> None:
        self.inside, self.leave = threading.Semaphore(0), threading.Event()

    def __call__(self) -> int:
        self.inside.release()
        assert self.leave.wait(60)
        return 1

    def wait(self, count: int) -> None:
        """Until `count` more threads are inside."""
        for _ in range(count):
            assert self.inside.acquire(timeout=60)


@pytest.mark.host_only("threads take turns on an emulated machine; the next case does without")
def test_fr_24_threads_inside_of_the_old_and_the_new_body_return_and_only_then_is_it_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two threads are in the old body when the extension comes, two in the extension when it goes."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2 * THREADS)  # each run has a cpu number of its own
    old, new = Gate(), Gate()
    with started("extended") as targets, started("extending") as extensions:
        targets.helpers["bpf_get_prandom_u32"] = old
        extensions.helpers["bpf_get_prandom_u32"] = new
        target, extension = targets["calls_waits"], extensions["waits_too"]
        results: list[int] = []

        def call() -> threading.Thread:
            thread = threading.Thread(target=lambda: results.append(run(target, 50)))
            thread.start()
            return thread

        first = [call() for _ in range(THREADS // 2)]
        old.wait(len(first))
        link = extension.attach_freplace(target, "waits")
        (form,) = extension.extension.forms.values()
        second = [call() for _ in range(THREADS // 2)]
        new.wait(len(second))
        link.close()
        extensions.close()
        old.leave.set()
        for thread in first:
            thread.join()
        epochs().collect()
        assert results == [51, 51]
        assert form.image.block.is_open
        new.leave.set()
        for thread in second:
            thread.join()
        epochs().drain(5)
        assert results == [51, 51, 1051, 1051]
        assert not form.image.block.is_open
        assert run(target, 50) == 51


def test_fr_24_calls_under_way_finish_where_they_began_in_the_middle_of_runs() -> None:
    """What the case before does with threads, by runs inside of runs: threads take turns on an emulated machine."""
    with started("extended") as targets, started("extending") as extensions:
        links: list[Link] = []
        images: list[LinkedImage] = []
        results: list[int] = []

        def in_old() -> int:
            extension = extensions["waits_too"]
            links.append(extension.attach_freplace(target, "waits"))
            (form,) = extension.extension.forms.values()
            images.append(form.image)
            results.append(run(target, 50))
            return 1

        def in_new() -> int:
            links.pop().close()
            extensions.close()
            epochs().collect()
            results.append(images[0].block.is_open)
            return 1

        targets.helpers["bpf_get_prandom_u32"] = in_old
        extensions.helpers["bpf_get_prandom_u32"] = in_new
        target = targets["calls_waits"]
        assert run(target, 50) == 51
        epochs().drain(5)
        assert (*results, images[0].block.is_open) == (True, 1051, False)


@pytest.fixture
def far(machine: Space) -> Iterator[tuple[RunningProgram, RunningProgram]]:
    """A target, and an extension too far away for its entry to jump to, unless jumps reach everything."""
    with started("extended") as targets, started("extending") as extensions:
        extensions.world.pool = FarPool(extensions.world.pool)
        yield targets["calls_waits"], extensions["far_away"]
    epochs().drain(10)  # so that the next one finds the addresses free


def veneer_of(target: RunningProgram, function: str) -> int:
    """Where the entry of a function jumps to while something is attached."""
    hook = target.hooks.hook(function).entry
    return target.image.address + target.image.layout.entries[hook.point.site.function]


def test_fr_25_a_far_extension_is_reached_through_the_veneer(
    far: tuple[RunningProgram, RunningProgram],
) -> None:
    target, extension = far
    with extension.attach_freplace(target, "waits"):
        (form,) = extension.extension.forms.values()
        assert abs(form.address - target.image.address) > NEAR[target.image.target.word]
        veneer = veneer_of(target, "waits")
        assert target.image.address <= veneer < target.image.address + target.image.block.size
        assert target.hooks.hook("waits").entry.target == form.address
        assert run(target, 41) == 42


def test_fr_25_a_thread_that_sits_in_the_veneer_at_detach_gets_to_the_original_body(
    far: tuple[RunningProgram, RunningProgram],
) -> None:
    """The thread has taken the entry's jump and not read the literal yet: it goes on at the veneer's first byte."""
    target, extension = far
    target.runtime.helpers["bpf_get_prandom_u32"] = lambda: 7
    target = target.runtime["calls_waits"]
    execution = target._execution()
    execution.arm(0, 0)
    kinds = ctypes.c_void_p, ctypes.c_uint64
    go_on = target.runtime.world.platform.function(veneer_of(target, "waits"), *kinds)
    link = extension.attach_freplace(target, "waits")
    assert go_on(execution.run_address, 41) == 42
    at_veneer, detached = threading.Event(), threading.Event()
    results: list[int] = []

    def sit() -> None:
        with target.runtime.world.entered(execution):
            at_veneer.set()
            assert detached.wait(20)
            results.append(go_on(execution.run_address, 41))

    thread = threading.Thread(target=sit)
    thread.start()
    assert at_veneer.wait(20)
    link.close()
    detached.set()
    thread.join()
    assert results == [48]


@pytest.mark.slow
def test_fr_25_far_extensions_come_and_go_under_running_threads(
    far: tuple[RunningProgram, RunningProgram], machine: Space
) -> None:
    target, extension = far
    target.runtime.helpers["bpf_get_prandom_u32"] = lambda: 7
    target = target.runtime["calls_waits"]
    with Callers(target, {"ingress_ifindex": 41}) as callers:
        for _ in range(max(cycles_on(machine) // 100, 3)):
            extension.attach_freplace(target, "waits").close()
    assert set().union(*callers.seen) <= {42, 48}
