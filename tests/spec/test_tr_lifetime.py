"""Trampolines when memory runs out, under a storm, and around a thread that sleeps: TR-18, TR-22, TR-23; and leaks."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bpfc
from ir.diagnostics import Diagnostic
from ir.function_model import U64, Model
from runtime.epoch import epochs
from runtime.memory import Pool
from runtime.native_entry import NativeFunction, function_at_pointer
from runtime.records import Records
from runtime.space import Space, host_space
from runtime.threads import Threads
from tests.native import load_text
from tests.storms import going_on
from tests.tracing import WAITS, run

if TYPE_CHECKING:
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram
    from runtime.linker import LinkedImage

OBJECTS = Path(__file__).parent.parent / "objects"
SECONDS = float(os.environ.get("BPFC_STORM_SECONDS", "3"))  # the long form: 10
CYCLES = int(os.environ.get("BPFC_ATTACH_CYCLES", "1000"))  # the long form: 10000
PACKET = bytes(64)
EMULATED_SECONDS = 0.5

CODE = """
define i64 @f(i64 %a, i64 %b) noinline {
  %sum = add i64 %a, %b
  ret i64 %sum
}
define i64 @loops(ptr %slot, i64 %n) {
  br label %head
head:
  %i = phi i64 [ 0, %0 ], [ %j, %head ]
  %wrong = phi i64 [ 0, %0 ], [ %more, %head ]
  %f = load volatile ptr, ptr %slot
  %r = call i64 %f(i64 %i, i64 7)
  %want = add i64 %i, 7
  %bad = icmp ne i64 %r, %want
  %one = zext i1 %bad to i64
  %more = add i64 %wrong, %one
  %j = add i64 %i, 1
  %d = icmp ult i64 %j, %n
  br i1 %d, label %head, label %out
out:
  ret i64 %more
}
"""


@pytest.fixture(scope="module")
def code() -> Iterator[LinkedImage]:
    with load_text(CODE + WAITS) as image:
        yield image


def number(runtime: Runtime, name: str) -> int:
    found = runtime.globals[name]
    assert isinstance(found, int)
    return found


def entry_bytes(program: RunningProgram, function: str) -> bytes:
    point = program.hooks.hook(function).entry.point
    return program.image.block.read(point.address - program.image.address, point.site.length)


def memory_in_use(space: Space | None = None) -> tuple[int, ...]:
    """Bytes of code and data, records, guards and counts that are taken, once all that was retired is freed."""
    gc.collect()  # or what earlier tests left in cycles goes while this one measures
    epochs().drain(20)
    space = space or host_space()
    space.pool.allocate_data(1).close()  # data blocks are unmapped when the next one is mapped
    hooks = space.hooks
    return (space.pool.code.left, space.pool.data.left, hooks.records.in_use, *hooks.threads.left)


@dataclass(slots=True)
class Faults:
    """Lets the allocation with this number fail; `seen` were there so far, `failed` have."""

    at: int
    seen: int = 0
    failed: list[str] = field(default_factory=list)

    def ask(self, what: str) -> None:
        self.seen += 1
        if self.seen == self.at:
            self.failed.append(what)
            raise bpfc.UnsupportedError([Diagnostic("injected", f"no memory for {what}", errno=errno.ENOMEM)])


@contextmanager
def faults(at: int) -> Iterator[Faults]:
    """Every way to allocate what images, links and programs need asks first."""
    injected = Faults(at)
    places = (
        (Pool, "allocate_code"),
        (Pool, "allocate_data"),
        (Records, "take"),
        (Threads, "take_count"),
        (Threads, "take_guard"),
    )
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in places:
            real = getattr(owner, name)

            def asking(self: object, *args: object, real: object = real, name: str = name) -> object:
                injected.ask(name)
                return real(self, *args)  # type: ignore[operator]  # a method of one of three classes

            patch.setattr(owner, name, asking)
        yield injected


def test_tr_18_attaching_without_memory_changes_nothing(targets: Runtime, machine: Space) -> None:
    """Each allocation that attaching makes fails once; the image that was there goes on, and nothing is kept."""
    target = targets["calls_f"]
    nop = entry_bytes(target, "f")
    source = bpfc.load(OBJECTS / "tracers.o")
    with source.start() as before:
        old = before["on_entry"].attach_fentry(target, "f")
        with source.start() as warm, warm["on_exit"].attach_fexit(target, "f"):
            assert run(target) == 5
        baseline, failed, runs = memory_in_use(machine), [], 1
        for at in range(1, 100):
            with source.start() as runtime:
                program = runtime["on_exit"]
                with faults(at) as injected, ExitStack() as expected:
                    refused = expected.enter_context(pytest.raises(bpfc.UnsupportedError))
                    link = program.attach_fexit(target, "f")
                    expected.pop_all()
                if not injected.failed:
                    link.close()
                    break
                assert refused.value.errno == errno.ENOMEM
                runs += 1
                assert run(target) == 5
                assert number(before, "entries") == runs
                assert number(runtime, "exits") == 0
            assert memory_in_use(machine) == baseline
            failed += injected.failed
        assert {"allocate_code", "allocate_data", "take", "take_count", "take_guard"} <= set(failed)
        old.close()
    assert entry_bytes(target, "f") == nop


def test_tr_18_detaching_succeeds_without_memory(targets: Runtime, machine: Space) -> None:
    """Each allocation that detaching makes fails once, and then all: the program does not run any more."""
    target = targets["calls_f"]
    nop = entry_bytes(target, "f")
    source = bpfc.load(OBJECTS / "tracers.o")
    with source.start() as one, source.start() as two, source.start() as three:
        for runtime, name in ((one, "on_entry"), (two, "entry_a")):
            with runtime[name].attach_fentry(target, "f"):
                assert run(target) == 5
        with three["on_exit"].attach_fexit(target, "f"):
            assert run(target) == 5
        baseline = memory_in_use(machine)
        for at in (*range(1, 12), 0):
            links = [
                rt[name].attach_fentry(target, "f") for rt, name in ((one, "on_entry"), (two, "entry_a"))
            ]
            links.append(three["on_exit"].attach_fexit(target, "f"))
            with faults(at) as injected:
                while links:
                    links.pop(0 if at % 2 else -1).close()
                    before = [number(one, "entries"), number(two, "order"), number(three, "exits")]
                    assert run(target) == 5
                    after = [number(one, "entries"), number(two, "order"), number(three, "exits")]
                    running = sum(new != old for new, old in zip(after, before, strict=True))
                    assert running == len(links)
            assert entry_bytes(target, "f") == nop
            assert memory_in_use(machine) == baseline
            assert injected.failed or at == 0 or injected.seen < at


@pytest.mark.slow
@pytest.mark.host_only("about a C function of this process")
def test_tr_22_a_storm_of_attaching_under_threads_that_call_a_native_function(code: LinkedImage) -> None:
    pointer = ctypes.c_uint64(code.address_of("f"))
    target = function_at_pointer("f", ctypes.addressof(pointer), Model((U64, U64), U64))
    # Safe because the loop is code of the fixture, and the pointer outlives it.
    loops = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)(code.address_of("loops"))
    _storm(target, lambda: loops(ctypes.addressof(pointer), 50_000), host_space())
    assert pointer.value == code.address_of("f")


@pytest.mark.slow
def test_tr_22_a_storm_of_attaching_under_threads_that_call_a_bpf_function(
    targets: Runtime, machine: Space
) -> None:
    target = targets["calls_f"]
    nop = entry_bytes(target, "f")

    def call() -> int:
        rets = target.run_batch(
            [PACKET] * (64 if machine.is_native else 4), ctx={"ingress_ifindex": 2, "rx_queue_index": 3}
        )
        return sum(ret != 5 for ret in rets)

    _storm(target, call, machine)
    assert entry_bytes(target, "f") == nop


def _storm(target: RunningProgram | NativeFunction, call: object, machine: Space) -> None:
    """4 threads call, 2 attach and detach an entry and an exit program each; then all memory is back."""
    assert callable(call)
    source = bpfc.load(OBJECTS / "tracers.o")
    function = "f" if not isinstance(target, NativeFunction) else None
    wrong: list[int] = []
    cycles: list[int] = []
    failed: list[BaseException] = []

    def work() -> None:
        while goes_on():
            wrong.append(call())

    def hook(tracers: Runtime) -> None:
        try:
            while goes_on():
                with (
                    tracers["on_entry"].attach_fentry(target, function),
                    tracers["on_exit"].attach_fexit(target, function),
                ):
                    cycles.append(1)
        except BaseException as error:  # noqa: BLE001  # shown by the main thread
            failed.append(error)

    with source.start() as one, source.start() as two:
        for tracers in (one, two):
            with (
                tracers["on_entry"].attach_fentry(target, function),
                tracers["on_exit"].attach_fexit(target, function),
            ):
                call()
        baseline = memory_in_use(machine)
        seconds = SECONDS if machine.is_native else EMULATED_SECONDS
        goes_on = going_on(seconds, lambda: len(cycles) >= 12)
        workers = [threading.Thread(target=work) for _ in range(4)]
        workers += [threading.Thread(target=hook, args=(tracers,)) for tracers in (one, two)]
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join()
        assert failed == []
        assert sum(wrong) == 0
        assert memory_in_use(machine) == baseline
        for tracers in (one, two):
            assert number(tracers, "entries") >= number(tracers, "exits") > 0
        assert len(cycles) >= 12


@pytest.mark.slow
@pytest.mark.host_only("about a C function of this process")
def test_tr_23_sleepers_return_through_images_of_long_ago(code: LinkedImage) -> None:
    """Again and again, 4 threads sleep in the function under an exit program; that goes and is freed, 50 others come
    and go; then they wake.
    """
    # Safe because the function is code of the fixture.
    waits = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)(code.address_of("waits"))
    source = bpfc.load(OBJECTS / "tracers.o")
    with source.start() as others:
        with others["entry_a"].attach_fentry(waits), others["exit_a"].attach_fexit(waits):
            pass  # what programs keep while their object is open is there now
        baseline = memory_in_use()
        end = time.monotonic() + SECONDS
        rounds = 0
        while not rounds or time.monotonic() < end:
            _sleep_and_wake(waits, source, others)
            rounds += 1
        assert number(others, "order") == 0
        assert memory_in_use() == baseline


def _sleep_and_wake(waits: Callable[..., int], source: bpfc.Loaded, others: Runtime) -> None:
    entered, go = (ctypes.c_uint64 * 4)(), ctypes.c_uint64(0)
    results: list[int] = []

    def sleep(index: int) -> None:
        results.append(waits(ctypes.addressof(entered) + 8 * index, ctypes.addressof(go)))

    first = source.start()
    link = first["all_slots"].attach_fexit(waits)
    threads = [threading.Thread(target=sleep, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    while not all(entered):
        time.sleep(1e-3)
    link.close()
    first.close()  # its maps and code stay as long as the image that knows them
    untouched = first.world.live["tracers.bss"].block.view[4096:4296]  # its global variables
    for _ in range(25):
        with others["entry_a"].attach_fentry(waits), others["exit_a"].attach_fexit(waits):
            pass
    assert epochs().collect() > 0
    go.value = 1
    for thread in threads:
        thread.join()
    assert results == [99] * 4
    assert bytes(untouched) == bytes(200)
    untouched.release()


@pytest.mark.slow
@pytest.mark.host_only("about a C function of this process")
def test_attaching_and_detaching_again_and_again_leaves_nothing_behind(
    code: LinkedImage, targets: Runtime
) -> None:
    pointer = ctypes.c_uint64(code.address_of("f"))
    native = function_at_pointer("f", ctypes.addressof(pointer), Model((U64, U64), U64))
    bpf = targets["calls_f"]
    with bpfc.load(OBJECTS / "tracers.o").start() as tracers, ExitStack() as _:

        def cycle() -> None:
            with tracers["on_entry"].attach_fentry(native), tracers["on_exit"].attach_fexit(bpf, "f"):
                pass

        for _ in range(50):
            cycle()
        baseline, maps = memory_in_use(), _mappings()
        resident = 0
        for done in range(CYCLES):
            cycle()
            if done == CYCLES // 10:
                resident = _resident()
        assert memory_in_use() == baseline
        assert abs(_mappings() - maps) <= 4  # the allocators of Python and C map arenas of their own
        assert _resident() - resident < 8 << 20


def _mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
