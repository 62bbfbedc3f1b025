"""What it costs that global functions can be replaced: calls of one that nothing replaces, and of one that is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import bpfc
from benchmarks.costs import TRIES, Cost
from benchmarks.measure import paired_ratio, race, timed
from bpfc.running_program import RunningProgram

OBJECT: Final = Path(__file__).parent / "programs" / "extensible.o"
CALLS: Final = 1000  # in one run
BATCH: Final = 100
ROUNDS: Final = 60
RACES: Final = 5
UNUSED_TARGET: Final = 1.05
CYCLES: Final = 1000


def measure_extensions() -> Iterator[Cost]:
    """A call, as a ratio to one of a function that can't be replaced: the usual of ratios round by round, least of races."""
    source = bpfc.load(OBJECT)
    batch = bpfc.Batch([bytearray(64) for _ in range(BATCH)])
    with ExitStack() as stack:
        plain, unused, attached, other = (
            stack.enter_context(source.start(bpfc.Options(extensible=is_extensible)))
            for is_extensible in (False, True, True, True)
        )
        programs = {name: one["bench"] for name, one in (("plain", plain), ("unused", unused))}
        programs["attached"] = attached["bench"]
        extension, target = other["same_step"], programs["attached"]
        stack.enter_context(target.replace("step", extension))
        contestants = {
            name: timed(lambda program=program: program.run_batch(batch), CALLS * BATCH)  # type: ignore[misc]  # bound now
            for name, program in programs.items()
        }
        races = [race(contestants, ROUNDS) for _ in range(RACES)]
        cycle = min(_cycle_ns(unused["bench"], extension) for _ in range(TRIES))
    yield Cost("a call of a global function, out of line", min(seen["plain"].best for seen in races), "ns")
    for name, said, goal in (
        ("unused", "of one that could be replaced", UNUSED_TARGET),
        ("attached", "of one that is replaced", None),
    ):
        ratio = min(paired_ratio(seen[name], seen["plain"]) for seen in races)
        yield Cost(f"the same, {said}", ratio, "x", goal)
    yield Cost("attach and detach", cycle / 1e3, "us")


def _cycle_ns(target: RunningProgram, extension: RunningProgram) -> float:
    def cycles() -> None:
        for _ in range(CYCLES):
            target.replace("step", extension).close()

    return timed(cycles, CYCLES)()
