"""What static keys cost: a disabled branch in a hot loop, beside a flag in memory; and switching them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import bpfc
from benchmarks.costs import TRIES, Cost
from benchmarks.measure import Contestant, paired_ratio, race
from bpfc.running import Runtime
from bpfc.running_program import RunningProgram
from ir.kinds import MapType
from ir.object import Map

ROUNDS: Final = 200_000  # of the loop, in one run
MANY: Final = 10_000  # branches in one program
TOGGLES: Final = 400
FLAGS: Final = Map("flags", MapType.ARRAY, 4, 64, 1, initial=bytes(64))
BRANCH_TARGET: Final = 3.0
MANY_TARGET_MS: Final = 5.0
TOGGLE_TARGET_US: Final = 20.0

_LOOP: Final = """
r0 = 7
r1 = {rounds}
r3 = map_value(3, 0)
{test}r0 ^= r1
r0 *= 31
r1 += -1
if r1 != 0 goto -{back}
exit
"""
_COLD: Final = "r0 += 99\ngoto -7"
_TESTS: Final = {
    "none": ("", 4),
    "key": ("nop_or_goto +5\n", 5),
    "flag": ("w4 = load_acquire((u32 *)(r3 + 0))\nif r4 != 0 goto +5\n", 6),
}


def measure_static_keys() -> Iterator[Cost]:
    """Each cost as it is measured."""
    yield from branch_cost()
    yield from switch_cost()


def branch_cost() -> Iterator[Cost]:
    """A branch that is never taken, in percent of the loop without it; the usual of ratios round by round."""
    loops = {name: bpfc.assemble(_text(name), maps={3: FLAGS}).start() for name in _TESTS}
    try:
        seen = race({name: _contestant(runtime) for name, runtime in loops.items()})
    finally:
        for runtime in loops.values():
            runtime.close()
    yield Cost("a round of the hot loop", seen["none"].best, "ns")
    for name, said in (("key", "a disabled static branch"), ("flag", "a flag read from memory each round")):
        target = BRANCH_TARGET if name == "key" else None
        yield Cost(f"{said} in it", 100 * (paired_ratio(seen[name], seen["none"]) - 1), "%", target)


def switch_cost() -> Iterator[Cost]:
    """One key of one site, and one of many."""
    with bpfc.assemble("r0 = 3\nnop_or_goto +1\nexit\nr0 = 7\nexit", keys={"one": [1]}).start() as runtime:
        program = runtime["main"]
        once = min(_toggle_ns(program) for _ in range(TRIES)) / 1e3
        yield Cost("switch one branch", once, "us", TOGGLE_TARGET_US)
    text = "r0 = 0\n" + "nop_or_goto +1\ngoto +1\nr0 += 1\n" * MANY + "exit"
    slots = range(1, 1 + 3 * MANY, 3)
    with bpfc.assemble(text, keys={"many": slots}).start(bpfc.Options(level="O0")) as runtime:
        assert runtime["main"].run(b"").ret == 0
        key = runtime.static_keys["many"]
        sites = len(key.sites)
        took = []
        for on in (True, False) * 5:
            before = time.thread_time_ns()
            key.switch(on)
            took.append(time.thread_time_ns() - before)
        yield Cost(f"switch {sites} sites of a key", min(took) / 1e6, "ms", MANY_TARGET_MS)


def _toggle_ns(program: RunningProgram) -> float:
    before = time.thread_time_ns()
    for number in range(TOGGLES):
        program.static_branch_update(1, number & 1)
    return (time.thread_time_ns() - before) / TOGGLES


def _text(name: str) -> str:
    test, back = _TESTS[name]
    return _LOOP.format(rounds=ROUNDS, test=test, back=back) + (_COLD if test else "")


def _contestant(runtime: Runtime) -> Contestant:
    program = runtime["main"]
    return lambda: program.run(b"").ns / ROUNDS
