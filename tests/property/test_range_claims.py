"""What is claimed of random programs, by the fast analysis and by proofs, is what happens when they run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from bpfc.testing.bulk import Style, case_of, draw_case
from bpfc.testing.claims import Claims
from bpfc.testing.fact_claims import FactClaims
from bpfc.testing.spread import Left, Run
from ir.core import Module
from ir.lift import lift
from ir.verify.facts import analyze
from ir.verify.prove import verify

SAFE = Style(size=5, inputs=4)
DARING = Style(size=6, inputs=4, daring=0.5)


@given(random=st.randoms(use_true_random=False))
def test_runs_agree_with_every_claim_of_the_fast_analysis(random: Random) -> None:
    case = draw_case(random, DARING)
    assert case.program is not None
    run_leniently(lift(case.program, case.maps), random, case.inputs)


def run_leniently(module: Module, random: Random, inputs: Iterable[bytes]) -> None:
    """Run it, whatever it does, and compare with what the fast analysis says of it."""
    watcher = FactClaims(analyze(module))
    for data in inputs:
        with contextlib.suppress(Left):
            Run(module, random, data, (watcher,), fuel=400, is_lenient=True).run()


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
