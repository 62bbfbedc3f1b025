"""The interpreter and native code do the same: results, packets, maps."""

from __future__ import annotations

from random import Random
from typing import Final

from bpfc.testing.bulk import Style, case_of
from bpfc.testing.case import Case
from bpfc.testing.differences import difference
from bpfc.testing.native import run
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally
from bpfc.testing.reference import interpret, shows_addresses
from bpfc.testing.shapes.table import RUNS

STYLE: Final = Style(size=4, inputs=24, repertoire=RUNS)
_LEVELS: Final = ("O0", "O0", "O0", "O0", "O0", "O1", "O1", "O2")


def draw(seed: int) -> Case:
    """A program on many inputs."""
    return case_of(seed, STYLE)


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """Run it both ways, natively at one level or another."""
    wanted = interpret(case)
    tally.steps += wanted.insns
    level = Random(case.seed + 1).choice(_LEVELS)
    found = run(case, level)
    tally.ran(case, len(case.inputs))
    differs = difference(wanted, found)
    if differs is None or shows_addresses(case):
        return None
    return Finding(ORACLE.name, differs[0], level, differs[1])


ORACLE: Final = Oracle("native", "the interpreter and native code do the same", draw, judge, share=36)
