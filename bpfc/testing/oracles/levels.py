"""Native code does the same at O0, where nothing optimizes, and O2, where everything does."""

from __future__ import annotations

from typing import Final

from bpfc.testing.bulk import Style, case_of
from bpfc.testing.case import Case
from bpfc.testing.differences import difference
from bpfc.testing.native import run
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally
from bpfc.testing.reference import shows_addresses

STYLE: Final = Style(size=8, inputs=96)


def draw(seed: int) -> Case:
    """A larger program on many inputs; no interpreter has to keep up."""
    return case_of(seed, STYLE)


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """Compare O2 with O0."""
    wanted = run(case, "O0")
    tally.ran(case, len(case.inputs))
    found = run(case, "O2")
    tally.ran(case, len(case.inputs))
    differs = difference(wanted, found)
    if differs is None or shows_addresses(case):
        return None
    return Finding(ORACLE.name, differs[0], "", differs[1])


ORACLE: Final = Oracle("levels", "O0 and O2 give the same", draw, judge)
