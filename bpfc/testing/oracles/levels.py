"""Native code does the same at O0, where nothing optimizes, as at a level where all does, on many inputs in one native loop."""

from __future__ import annotations

from random import Random
from typing import Final

from bpfc.testing.bulk import Style, case_of
from bpfc.testing.case import Case
from bpfc.testing.differences import difference
from bpfc.testing.native import run_batch
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally
from bpfc.testing.reference import shows_addresses
from bpfc.testing.shapes.table import RUNS

STYLE: Final = Style(size=8, inputs=256, repertoire=RUNS)
_LEVELS: Final = ("O1", "O1", "O2", "O2", "O3")


def draw(seed: int) -> Case:
    """A larger program on many inputs; no interpreter has to keep up."""
    return case_of(seed, STYLE)


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """Compare a level with O0."""
    wanted = run_batch(case, "O0")
    tally.ran(case, len(wanted.outcomes))
    level = Random(case.seed + 1).choice(_LEVELS)
    found = run_batch(case, level)
    tally.ran(case, len(found.outcomes))
    differs = difference(wanted, found)
    if differs is None or shows_addresses(case):
        return None
    return Finding(ORACLE.name, differs[0], level, differs[1])


ORACLE: Final = Oracle("levels", "O0 and other levels give the same", draw, judge, share=4)
