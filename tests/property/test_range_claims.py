"""What is claimed of random programs, by the fast analysis and by proofs, is what happens when they run."""

from __future__ import annotations

import contextlib
from random import Random

from hypothesis import example, given
from hypothesis import strategies as st

from bpfc.testing.bulk import Style, case_of, draw_case
from bpfc.testing.claims import Claims
from bpfc.testing.fact_claims import FactClaims
from bpfc.testing.spread import Left, Run
from ir.lift import lift
from ir.verify.facts import analyze
from ir.verify.prove import verify
from tests.random_programs import random_module

SIZES = (0, 1, 4, 14, 20, 33, 64, 100)
SAFE = Style(size=5, inputs=4)


@given(seed=st.integers(0, 1 << 48))
@example(seed=105463)  # a sign-extended load of a field of the context that holds a pointer gives a number
def test_runs_agree_with_every_claim_of_the_fast_analysis(seed: int) -> None:
    random = Random(seed)
    module = random_module(random, random.choice((4, 8, 12, 20)))
    watcher = FactClaims(analyze(module))
    for _ in range(4):
        packet = random.randbytes(random.choice(SIZES))
        with contextlib.suppress(Left):
            Run(module, random, packet, (watcher,), fuel=150, is_lenient=True).run()


@given(random=st.randoms(use_true_random=False))
def test_runs_agree_with_every_claim_of_a_proof(random: Random) -> None:
    case = draw_case(random, SAFE)
    assert case.program is not None
    module = lift(case.program, case.maps)
    attempts: list[Claims] = []

    def witness() -> Claims:
        attempts.append(Claims())
        return attempts[-1]

    if verify(module, "GPL", witness=witness).is_accepted:
        for packet in case.inputs:
            with contextlib.suppress(Left):
                Run(module, Random(case.seed), packet, (attempts[-1],)).run()


def test_nearly_all_programs_without_daring_are_proved_safe() -> None:
    cases = [case_of(seed, SAFE) for seed in range(60)]
    reports = [verify(lift(case.program, case.maps), "GPL") for case in cases if case.program is not None]
    assert sum(report.is_accepted for report in reports) >= 57
