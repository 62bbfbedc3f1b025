"""What calls cost: of another image near and far, against a direct call that a C compiler made; and bpf-to-bpf calls.

native   call step                          one shared library
near     call step                          another image, in reach
far      call *entry(%rip)                  another image, 3 GiB or 128 GiB away, through its table entry
         call veneer; veneer: jmp *literal  128 GiB away

What a far call costs depends on more than the instruction: branch predictors keep targets of other upper address bits
in slower entries. So each distance has its row.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import bpfc
from backends.machine import Level, Machine
from backends.native_code import NativeCode
from backends.object_reader import parse_object
from backends.registry import host
from benchmarks.costs import Cost
from benchmarks.measure import Contestant, Timing, paired_ratio, race, timed
from benchmarks.micros import MICROS
from benchmarks.native import Compiler, Native, compile_library
from benchmarks.speed import PROGRAM, lay_out
from runtime.linker import LinkedImage, link
from runtime.memory import Pool

ROUNDS: Final = 100_000  # calls in one run
PACKETS: Final = 200
FAR: Final = 128 << 30
WINDOW: Final = 4 << 30  # addresses of the same upper 32 bits
NEAR_TARGET: Final = 1.05
FAR_TARGET: Final = 1.30
SUBPROGRAM_CALLS: Final = 1000  # in a run of programs/calls.c
SUBPROGRAM_TARGET_NS: Final = 1.08
SUBPROGRAM_TARGET: Final = 1.05

_NATIVE: Final = """
typedef unsigned long long u64;
static __attribute__((noinline)) u64 step(u64 x, u64 y) { BODY; return x; }
u64 many(u64 n) { u64 x = 1; for (u64 i = 0; i < n; i++) x = step(x, i); return x; }
"""
_STEP: Final = """
define i64 @step(i64 %x, i64 %y) {
  BODY
}
"""
# What the callee does: in C, in LLVM IR. The second is that of programs/calls.c, four cycles long.
_BODIES: Final = {
    "a hash step": (
        "x = (x ^ y) * 0x9E3779B97F4A7C15ull; x ^= x >> 29",
        "%1 = xor i64 %x, %y\n%2 = mul i64 %1, -7046029254386353131\n%3 = lshr i64 %2, 29\n"
        "%4 = xor i64 %2, %3\nret i64 %4",
    ),
    "two shifts": (
        "x ^= y << 7; x ^= x >> 9; x += y",
        "%1 = shl i64 %y, 7\n%2 = xor i64 %x, %1\n%3 = lshr i64 %2, 9\n%4 = xor i64 %2, %3\n"
        "%5 = add i64 %4, %y\nret i64 %5",
    ),
    "an addition": ("x += y", "%1 = add i64 %x, %y\nret i64 %1"),
}
_CALLERS: Final = {
    "near": "near",
    "window": "far, in the same 4 GiB",
    "far": "far",
    "veneer": "far, through a veneer",
}
_WITH_TARGETS: Final = "a hash step"
_MANY: Final = """
declare i64 @step(i64, i64) ATTRIBUTES
define i64 @many(i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
  %x = phi i64 [ 1, %entry ], [ %y, %loop ]
  %y = call i64 @step(i64 %x, i64 %i)
  %j = add i64 %i, 1
  %again = icmp ult i64 %j, %n
  br i1 %again, label %loop, label %out
out:
  ret i64 %y
}
"""


def measure_calls(compiler: Compiler | None, folder: Path) -> Iterator[Cost]:
    """Each cost as it is measured; nothing of other images without a native side."""
    if compiler is not None:
        yield from image_calls(compiler, folder)
    yield from subprogram_calls(compiler, folder)


def image_calls(compiler: Compiler, folder: Path) -> Iterator[Cost]:
    """Calls from one image to another, by what the callee does."""
    for number, (what, (in_c, in_ir)) in enumerate(_BODIES.items()):
        text = _NATIVE.replace("BODY", in_c)
        library = ctypes.CDLL(str(compile_library(compiler, folder, f"direct_calls_{number}", text)))
        library.many.argtypes, library.many.restype = [ctypes.c_uint64], ctypes.c_uint64
        with Pool() as pool:
            seen = _race(library.many, _compile(_STEP.replace("BODY", in_ir)), pool)
        yield Cost(f"{what}, called natively", seen["native"].best, "ns")
        targets = {"near": NEAR_TARGET, "far": FAR_TARGET} if what == _WITH_TARGETS else {}
        for name, said in _CALLERS.items():
            ratio = paired_ratio(seen[name], seen["native"])
            yield Cost(f"{what}, called {said}", ratio, "x native", targets.get(name))


def _race(native: Callable[[int], int], step: NativeCode, pool: Pool) -> dict[str, Timing]:
    """Callers of `step` beside it and far away, and the native caller of the same in C."""
    window = (pool.address - FAR) // WINDOW * WINDOW
    near, far = link(step, {}, pool), link(step, {}, pool, at=window)
    slot, plain = (_compile(_MANY.replace("ATTRIBUTES", text)) for text in ("nonlazybind", ""))
    callers = {
        "near": _bind(plain, near, pool),
        "window": _bind(slot, far, pool, at=window + WINDOW * 3 // 4),
        "far": _bind(slot, far, pool),
        "veneer": _bind(plain, far, pool),
    }
    runs = {"native": native, **{name: _function(image) for name, image in callers.items()}}
    assert len({run(1000) for run in runs.values()}) == 1, "all compute the same"
    seen = race({name: _contestant(run) for name, run in runs.items()})
    for image in (*callers.values(), near, far):
        image.close()
    return seen


def subprogram_calls(compiler: Compiler | None, folder: Path) -> Iterator[Cost]:
    """One of 1000 calls of a static subprogram, and what it is over the same in C with the body inlined."""
    micro = next(micro for micro in MICROS if micro.name == "calls")
    batch = lay_out(micro, PACKETS)
    with bpfc.load(micro.object).start() as runtime:
        runs = {"bpfc": timed(partial(runtime[PROGRAM].run_batch, batch), PACKETS * SUBPROGRAM_CALLS)}
        if compiler is not None:
            inlined = Native(compiler, micro, folder, "-D__noinline=inline")
            runs["inlined"] = timed(partial(inlined.run_batch, batch), PACKETS * SUBPROGRAM_CALLS)
        seen = race(runs)
    yield Cost("a bpf-to-bpf call, of 1000", seen["bpfc"].best, "ns", SUBPROGRAM_TARGET_NS)
    if compiler is not None:
        ratio = paired_ratio(seen["bpfc"], seen["inlined"])
        yield Cost("a bpf-to-bpf call, over its body inlined in C", ratio, "x native", SUBPROGRAM_TARGET)


def _compile(text: str) -> NativeCode:
    machine = Machine(host(), Level.DEFAULT)
    module = machine.parse(text)
    machine.optimize(module)
    return parse_object(machine.emit_object(module), machine.target)


def _bind(caller: NativeCode, callee: LinkedImage, pool: Pool, at: int | None = None) -> LinkedImage:
    return link(caller, {"step": callee.address_of("step")}, pool, at=at)


def _function(image: LinkedImage) -> Callable[[int], int]:
    # Safe because it is a whole function of one integer, and its image is closed after the race.
    return ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(image.address_of("many"))


def _contestant(run: Callable[[int], int]) -> Contestant:
    def contestant() -> float:
        before = time.thread_time_ns()
        run(ROUNDS)
        return (time.thread_time_ns() - before) / ROUNDS

    return contestant
