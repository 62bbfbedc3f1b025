"""What threads have to themselves while programs around functions run: blocks, processors' numbers; and lock order."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backends.native_code import Needs
from ir.function_model import U64, Model
from runtime.native_entry import NativeFunction, function_at_pointer
from runtime.space import host_space
from tests.native import load_text

if TYPE_CHECKING:
    from bpfc.running import Runtime
    from runtime.linker import LinkedImage

OBJECTS = Path(__file__).parent.parent / "objects"
CALLS = 500_000
THREADS = 6

CODE = """
define i64 @f(i64 %a, i64 %b) noinline {
  ret i64 %a
}
define i64 @loops(ptr %slot, i64 %n) {
  br label %head
head:
  %i = phi i64 [ 0, %0 ], [ %j, %head ]
  %f = load volatile ptr, ptr %slot
  %r = call i64 %f(i64 %i, i64 7)
  %j = add i64 %i, 1
  %d = icmp ult i64 %j, %n
  br i1 %d, label %head, label %out
out:
  ret i64 0
}
"""


@pytest.fixture(scope="module")
def code() -> Iterator[LinkedImage]:
    with load_text(CODE) as image:
        yield image


class Called:
    """A function, and a native loop that calls it through a pointer."""

    def __init__(self, code: LinkedImage) -> None:
        self._pointer = ctypes.c_uint64(code.address_of("f"))
        place = ctypes.addressof(self._pointer)
        self.target: NativeFunction = function_at_pointer("f", place, Model((U64, U64), U64))
        # Safe because the loop is code of the fixture, and the pointer lives as long as this object.
        loops = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)(code.address_of("loops"))
        self._loops, self._place = loops, place

    def call(self, count: int) -> None:
        self._loops(self._place, count)

    def from_threads(self, threads: int, calls: int) -> None:
        started = [threading.Thread(target=self.call, args=(calls,)) for _ in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()


def per_cpu(tracers: Runtime) -> list[int]:
    return list(tracers.maps["per_cpu"][0])


def test_values_by_processor_belong_to_one_thread_at_a_time(code: LinkedImage, tracers: Runtime) -> None:
    """More threads than processors add to them without a lock, and nothing is lost."""
    called = Called(code)
    with tracers["counts_by_cpu"].attach_fentry(called.target):
        called.from_threads(THREADS, CALLS)
    counts = per_cpu(tracers)
    assert sum(counts) == THREADS * CALLS
    assert len(counts) == os.cpu_count()


def test_only_programs_that_ask_for_the_processor_get_one(code: LinkedImage, tracers: Runtime) -> None:
    called = Called(code)
    seen = {}
    for name in ("empty", "entry_a", "all_at_entry", "on_entry", "counts_by_cpu"):
        with tracers[name].attach_fentry(called.target):
            trampoline = called.target.hook.trampoline
            assert trampoline is not None
            seen[name] = trampoline.links[0].program.needs
    assert seen == {
        "empty": Needs(0),
        "entry_a": Needs(0),
        "all_at_entry": Needs.HEADER | Needs.CONTEXT,
        "on_entry": Needs.RUN | Needs.HEADER | Needs.CONTEXT,
        "counts_by_cpu": Needs.RUN | Needs.CPU,
    }


def test_threads_that_end_give_their_blocks_back(code: LinkedImage, tracers: Runtime) -> None:
    called = Called(code)
    threads = host_space().hooks.threads
    with tracers["counts_by_cpu"].attach_fentry(called.target):
        called.call(1)
        before = threads.owners()
        lost = threads.lost
        for _ in range(30):
            called.from_threads(64, 10)
        end = time.monotonic() + 20  # a thread is joined before it has quite ended
        while threads.owners() > before and time.monotonic() < end:
            time.sleep(1e-3)
        assert threads.owners() <= before
        assert threads.lost == lost
    assert sum(per_cpu(tracers)) == 1 + 30 * 64 * 10


LOCK_ORDER = """
import json, sys, threading
held, edges = threading.local(), set()
real = threading.RLock, threading.Lock

def maker(kind):
    def make():
        frame = sys._getframe(1)
        file = frame.f_code.co_filename
        is_ours = any(f"/{floor}/" in file for floor in ("bpfc", "runtime"))
        return Watched(f"{file}:{frame.f_lineno}", kind()) if is_ours else kind()
    return make

class Watched:
    def __init__(self, where, lock):
        self.where, self.lock = where, lock

    def acquire(self, *args):
        mine = held.__dict__.setdefault("locks", [])
        edges.update((other, self.where) for other in mine if other != self.where)
        got = self.lock.acquire(*args)
        if got:
            mine.append(self.where)
        return got

    def release(self):
        held.locks.reverse()
        held.locks.remove(self.where)
        held.locks.reverse()
        self.lock.release()

    __enter__ = acquire

    def __exit__(self, *_):
        self.release()

threading.RLock, threading.Lock = map(maker, real)
import bpfc

with bpfc.load(sys.argv[1]).start() as targets, bpfc.load(sys.argv[2]).start() as tracers:
    target = targets["calls_f_and_g"]
    failed = []

    def hook(kind, name, function):
        try:
            for _ in range(30):
                with getattr(tracers[name], kind)(target, function):
                    assert target.run(bytes(64), {"ingress_ifindex": 9, "rx_queue_index": 5}).verdict == 1005
        except BaseException as error:
            failed.append(repr(error))

    jobs = (("attach_fentry", "entry_a", "f"), ("attach_fexit", "exit_b", "g"))
    threads = [threading.Thread(target=hook, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(json.dumps([failed, len(edges), sorted(edge for edge in edges if edge[::-1] in edges)]))
"""


def test_tr_24_locks_are_always_taken_in_one_order() -> None:
    """Two threads attach to two functions under watched locks: no two of them are taken in both orders."""
    files = [str(OBJECTS / "hooked.o"), str(OBJECTS / "tracers.o")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", LOCK_ORDER, *files], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    failed, edges, both_ways = json.loads(done.stdout)
    assert failed == []
    assert edges > 0, "locks were taken inside of others"
    assert both_ways == []
