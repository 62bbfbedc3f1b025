"""The interpreter and native code do the same: results, packets, maps."""

from __future__ import annotations

from typing import Final

from bpfc.testing.bulk import Style, case_of
from bpfc.testing.case import Case
from bpfc.testing.differences import difference
from bpfc.testing.native import run
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally
from bpfc.testing.reference import interpret, shows_addresses

STYLE: Final = Style(size=5, inputs=48)
_LEVELS: Final = ("O1", "O2", "O1", "O0")


def draw(seed: int) -> Case:
    """A program on many inputs."""
    return case_of(seed, STYLE)


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """Run it both ways, natively at one level or another."""
    wanted = interpret(case)
    tally.steps += wanted.insns
    level = _LEVELS[case.seed % len(_LEVELS)]
    found = run(case, level)
    tally.ran(case, len(case.inputs))
    differs = difference(wanted, found)
    if differs is None or shows_addresses(case):
        return None
    return Finding(ORACLE.name, differs[0], level, differs[1])


ORACLE: Final = Oracle("native", "the interpreter and native code do the same", draw, judge, share=6)
