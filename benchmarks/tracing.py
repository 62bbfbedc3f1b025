"""What programs around a native function cost: an empty function, called in a native loop, bare and hooked.

Each contestant has a copy of the library of its own, hooked at its entry, so that all take turns in one race.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import bpfc
from benchmarks.costs import TRIES, Cost
from benchmarks.measure import Contestant, Timing, race, timed
from benchmarks.native import Compiler, compile_library
from bpfc.links import LinkKind

OBJECT: Final = Path(__file__).parent / "programs" / "tracing.o"
CALLS: Final = 200_000  # in one batch
FEW: Final = 1000  # of what is slow
MOST: Final = 38
ENTRY_TARGET: Final = 3.0
BOTH_TARGET: Final = 6.0
KNOWN_TARGET_US: Final = 200.0
NEW_TARGET_MS: Final = 5.0
CYCLES: Final = 200
PROTOTYPE: Final = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_long)

LIBRARY: Final = """
#define ROOM __attribute__((noinline, aligned(16), patchable_function_entry(16)))

ROOM long empty(long a, long b) { __asm__ volatile(""); return 0; }

void loop(long n) { for (long i = 0; i < n; i++) empty(i, 7); }

long (*volatile through)(long, long) = empty;

void loop_through(long n) { for (long i = 0; i < n; i++) through(i, 7); }
"""

FRIDA_TARGET: Final = """
import ctypes, sys, time
library = ctypes.CDLL(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    calls = int(line)
    before = time.thread_time_ns()
    library.loop(ctypes.c_long(calls))
    print((time.thread_time_ns() - before) / calls, flush=True)
"""
FRIDA_HOOK: Final = """
const target = Process.getModuleByName(%s).getExportByName("empty");
const code = new CModule("void onEnter(void) {} void onLeave(void) {}");
Interceptor.attach(target, %s);
Interceptor.flush();
"""


def measure_tracing(compiler: Compiler | None, folder: Path) -> Iterator[Cost]:
    """Each cost as it is measured; nothing without a C compiler."""
    if compiler is None:
        return
    original = compile_library(compiler, folder, "tracing", LIBRARY)
    with ExitStack() as stack:
        libraries = _Libraries(original)
        source = bpfc.load(OBJECT)
        programs = stack.enter_context(source.start())
        one = _hook(stack, libraries, programs, "at_entry")
        _hook(stack, libraries, programs, "at_exit")
        both = _hook(stack, libraries, programs, "at_entry", "at_exit")
        counting = _hook(stack, libraries, programs, "counts")
        many = libraries.copy("many")
        for number in range(MOST):
            kind = ("at_entry", "at_exit")[number % 2]
            world = stack.enter_context(source.start())
            stack.enter_context(bpfc.attach(world[kind], bpfc.native(many, "empty", PROTOTYPE)))
        contestants = {name: _loop(library) for name, library in libraries.made.items()}
        contestants["callback"] = _callback(libraries)
        seen = race(contestants)
        with bpfc.enable_stats():
            timed_runs = race({"one": _loop(one), "both": _loop(both)})
        yield from _differences(seen, timed_runs)
        assert programs.globals["calls"], counting
    yield from _latency(libraries, source)
    yield from _frida(original)


def _differences(seen: dict[str, Timing], timed_runs: dict[str, Timing]) -> Iterator[Cost]:
    bare = seen["bare"].best
    yield Cost("a call of an empty native function", bare, "ns")
    for name, said, goal in (
        ("at_entry", "an empty fentry program", ENTRY_TARGET),
        ("at_exit", "an empty fexit program", BOTH_TARGET),
        ("at_entry-at_exit", "fentry and fexit, both empty", BOTH_TARGET),
        ("counts", "fentry that counts calls and adds up an argument", None),
        ("many", f"{MOST} empty programs", None),
        ("callback", "a ctypes callback in its place", None),
    ):
        yield Cost(f"{said}, over that", seen[name].best - bare, "ns", goal)
    yield Cost("an empty fentry program, runs counted and timed", timed_runs["one"].best - bare, "ns")
    yield Cost("fentry and fexit, runs counted and timed", timed_runs["both"].best - bare, "ns")


class _Libraries:
    """Copies of one library, each loaded by itself."""

    def __init__(self, original: Path) -> None:
        self._original = original
        self.made: dict[str, ctypes.CDLL] = {}
        self.copy("bare")

    def copy(self, name: str) -> ctypes.CDLL:
        """A fresh copy."""
        path = self._original.with_name(f"{name}.so")
        shutil.copy(self._original, path)
        self.made[name] = found = ctypes.CDLL(str(path))
        return found


def _hook(stack: ExitStack, libraries: _Libraries, runtime: Any, *names: str) -> ctypes.CDLL:
    library = libraries.copy("-".join(names))
    for name in names:
        stack.enter_context(bpfc.attach(runtime[name], bpfc.native(library, "empty", PROTOTYPE)))
    return library


def _loop(library: ctypes.CDLL, function: str = "loop", calls: int = CALLS) -> Contestant:
    run = getattr(library, function)
    run.argtypes, run.restype = (ctypes.c_long,), None
    return timed(lambda: run(calls), calls)


def _callback(libraries: _Libraries) -> Contestant:
    """What one does without bpfc: a Python function in the place of a pointer."""
    library = ctypes.CDLL(str(libraries.made["bare"]._name))
    pointer = ctypes.c_void_p.in_dll(library, "through")
    hook = PROTOTYPE(lambda a, b: 0)
    pointer.value = ctypes.cast(hook, ctypes.c_void_p).value
    run = _loop(library, "loop_through", FEW)
    return lambda hook=hook: run()  # type: ignore[misc]  # keeps the callback


def _latency(libraries: _Libraries, source: bpfc.Loaded) -> Iterator[Cost]:
    """Attaching where the image has a shape that was seen before, and where it has not."""
    library = libraries.made["bare"]
    target = bpfc.native(library, "empty", PROTOTYPE)
    with source.start() as programs:
        program = programs["at_entry"]

        def cycles() -> None:
            for _ in range(CYCLES):
                before = time.thread_time_ns()
                link = bpfc.attach(program, target)
                took.append(time.thread_time_ns() - before)
                link.close()

        took: list[int] = []
        cycles()
        yield Cost(
            "attach, the image's shape seen before", sorted(took)[CYCLES // 4] / 1e3, "us", KNOWN_TARGET_US
        )
    yield Cost(
        "attach, a new shape",
        min(_new_shape(library, source, n) for n in range(3, 3 + TRIES)) / 1e6,
        "ms",
        NEW_TARGET_MS,
    )


def _new_shape(library: ctypes.CDLL, source: bpfc.Loaded, arguments: int) -> float:
    """Nanoseconds to attach to a function of so many arguments, with a program that is compiled for it already."""
    prototype = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * arguments)
    with (
        source.start() as programs,
        tempfile.TemporaryDirectory() as empty,
        environment("BPFC_CACHE_DIR", empty),
    ):
        program = programs["at_entry"]
        target = bpfc.native(library, "empty", prototype)
        program.traced(target.model, LinkKind.FENTRY)
        before = time.thread_time_ns()
        link = bpfc.attach(program, target)
        took = time.thread_time_ns() - before
        link.close()
    return took


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """A variable of the environment, while inside."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _frida(original: Path) -> Iterator[Cost]:
    """Frida's Interceptor, in a process of its own, where it is installed."""
    if find_spec("frida") is None:
        return
    for said, hook in (
        ("onEnter in C", "{ onEnter: code.onEnter }"),
        ("onEnter and onLeave in C", "{ onEnter: code.onEnter, onLeave: code.onLeave }"),
        ("onEnter in JavaScript", "{ onEnter() {} }"),
    ):
        plain, hooked = _frida_pair(original, hook)
        yield Cost(f"frida's Interceptor, {said}", hooked - plain, "ns")


def _frida_pair(original: Path, hook: str) -> tuple[float, float]:
    import frida

    command = [sys.executable, "-c", FRIDA_TARGET, str(original)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None, "it was asked for"
        assert child.stdout is not None, "it was asked for"
        child.stdout.readline()

        def measure() -> float:
            assert child.stdin is not None, "as above"
            assert child.stdout is not None, "as above"
            times = []
            for _ in range(TRIES):
                child.stdin.write(f"{CALLS}\n")
                child.stdin.flush()
                times.append(float(child.stdout.readline()))
            return min(times)

        plain = measure()
        session = frida.attach(child.pid)
        script = session.create_script(FRIDA_HOOK % (json.dumps(original.name), hook))
        script.load()
        hooked = measure()
        session.detach()
        child.stdin.close()
    return plain, hooked
