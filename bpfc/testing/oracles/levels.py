"""Native code does the same at every level: O0 has nothing that optimizes, O2 everything."""

from __future__ import annotations

from typing import Final

from bpfc.testing.bulk import Style, case_of
from bpfc.testing.case import Case
from bpfc.testing.differences import difference
from bpfc.testing.native import run
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally

STYLE: Final = Style(size=8, inputs=96)


def draw(seed: int) -> Case:
    """A larger program on many inputs; no interpreter has to keep up."""
    return case_of(seed, STYLE)


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """Compare each level with O0."""
    wanted = run(case, "O0")
    tally.ran(case, len(case.inputs))
    for level in ("O2",):
        found = run(case, level)
        tally.ran(case, len(case.inputs))
        differs = difference(wanted, found)
        if differs:
            return Finding(ORACLE.name, differs[0], level, differs[1])
    return None


ORACLE: Final = Oracle("levels", "O0 and O2 give the same", draw, judge)
