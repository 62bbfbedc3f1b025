"""Programs that *prove* accepts never trap, fault or run for ever: neither interpreted nor as code without checks."""

from __future__ import annotations

from random import Random
from typing import Final

from bpfc.testing.bulk import Style, case_of
from bpfc.testing.case import LICENSE, Case
from bpfc.testing.native import run
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally, row_at
from bpfc.testing.reference import World
from ir.lift import lift
from ir.verify.prove import EFFORTS, verify

STYLE: Final = Style(size=4, inputs=24, daring=0.1)


def draw(seed: int) -> Case:
    """A program that now and then does what may be unsafe."""
    return case_of(seed, STYLE)


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """If it is accepted, interpret it and run it natively."""
    assert case.program is not None, "a case of instructions"
    report = verify(lift(case.program, case.maps), LICENSE, efforts=EFFORTS[:1])
    if not report.is_accepted:
        tally.outcomes[f"refused {report.diagnostics[0].code}"] += 1
        return None
    tally.accepted += 1
    last = [0]

    def trace(slot: int, registers: object) -> None:
        last[0] = slot

    world = World(case, trace=trace)
    for data in case.inputs:
        outcome, insns = world.interpret(data)
        tally.steps += insns
        if isinstance(outcome.ret, str):
            where = row_at(case.program, last[0])
            return Finding(ORACLE.name, f"trap {outcome.ret}", where, f"insn {last[0]}, interpreted")
    found = run(case, Random(case.seed + 1).choice(("O0", "O0", "O1", "O2")), hardened=False)
    tally.ran(case, len(case.inputs))
    for number, result in enumerate(found.outcomes):
        if isinstance(result.ret, str):
            return Finding(ORACLE.name, f"native trap {result.ret}", "", f"run {number}")
    return None


ORACLE: Final = Oracle(
    "accepted", "accepted programs never trap, fault or run for ever", draw, judge, share=6, verifies=True
)
