"""What the verifier claims is so: the concrete in the abstract, at every instruction; and no access leaves its object."""

from __future__ import annotations

from random import Random
from typing import Final

from bpfc.testing.bulk import Style, case_of
from bpfc.testing.case import LICENSE, Case
from bpfc.testing.claims import Claims
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally, row_at
from bpfc.testing.spread import Contradiction, Left, Run
from bpfc.testing.traits import traits_of
from ir.core import Module
from ir.lift import lift
from ir.verify.prove import EFFORTS, verify

# Little of the stack is written at first, for what is not, holds anything in a run.
SAFE: Final = Style(size=3, inputs=4, filled=0.3)
DARING: Final = Style(size=3, inputs=4, daring=0.12, filled=0.3)


def draw(seed: int) -> Case:
    """Every third program does now and then what may be unsafe."""
    return case_of(seed, SAFE if seed % 3 else DARING)


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """Prove it, then run it with every claim compared."""
    assert case.program is not None, "a case of instructions"
    module = lift(case.program, case.maps)
    attempts: list[Claims] = []
    random = Random(case.seed + 2)

    def witness() -> Claims:
        attempts.append(Claims())
        return attempts[-1]

    # Of daring programs few are safe, and looking three times at the others is a waste.
    efforts = EFFORTS if random.random() < 0.15 else EFFORTS[:1]
    report = verify(module, LICENSE, efforts=efforts, witness=witness)
    if not report.is_accepted:
        tally.outcomes[f"refused {report.diagnostics[0].code}"] += 1
        return None
    tally.accepted += 1
    tally.proved.add(case.code_digest)
    tally.traits.update(traits_of(module, attempts[-1]))
    return _run(case, module, attempts[-1], tally)


def _run(case: Case, module: Module, claims: Claims, tally: Tally) -> Finding | None:
    assert case.program is not None, "a case of instructions"
    random = Random(case.seed)
    for data in case.inputs:
        run = Run(module, random, data, (claims,))
        try:
            run.run()
        except Left as left:
            tally.outcomes[f"left {left}"] += 1
        except Contradiction as found:
            row = row_at(case.program, found.slot)
            return Finding(ORACLE.name, found.what, row, str(found))
        finally:
            tally.steps += run.steps
    return None


ORACLE: Final = Oracle(
    "claims",
    "what *prove* claims holds at every instruction of a run",
    draw,
    judge,
    share=12,
    is_python=True,
    verifies=True,
)
