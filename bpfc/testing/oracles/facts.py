"""What the fast analysis claims, for lowering to leave out checks, is so: also of programs that nobody proved safe."""

from __future__ import annotations

from random import Random
from typing import Final

from bpfc.testing.bulk import Style, case_of
from bpfc.testing.case import Case
from bpfc.testing.fact_claims import FactClaims
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally, row_at
from bpfc.testing.spread import Contradiction, Left, Run
from ir.lift import lift
from ir.pipeline import DEFAULT
from ir.verify.facts import analyze

STYLE: Final = Style(size=5, inputs=4, daring=0.3)


def draw(seed: int) -> Case:
    """A program that does what may be unsafe."""
    return case_of(seed, STYLE)


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """Optimize it as the compiler does, analyze it, run it leniently."""
    assert case.program is not None, "a case of instructions"
    module = lift(case.program, case.maps)
    DEFAULT.run(module)
    watcher = FactClaims(analyze(module))
    random = Random(case.seed)
    for data in case.inputs:
        run = Run(module, random, data, (watcher,), fuel=400, is_lenient=True)
        try:
            run.run()
        except Left:
            pass
        except Contradiction as found:
            return Finding(ORACLE.name, found.what, row_at(case.program, found.slot), str(found))
        finally:
            tally.steps += run.steps
    return None


ORACLE: Final = Oracle(
    "facts", "what lowering is told was proved is so", draw, judge, share=4, is_python=True, verifies=True
)
