"""What the fast analysis claims of random programs is what happens when they run."""

from __future__ import annotations

import contextlib
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ir.verify.facts import analyze
from tests.random_programs import random_module
from tests.ssa_machine import Machine, Trap

SIZES = (0, 1, 4, 14, 20, 33, 64, 100)


@given(seed=st.integers(0, 1 << 48))
def test_runs_agree_with_every_claim(seed: int) -> None:
    random = Random(seed)
    module = random_module(random, random.choice((4, 8, 12, 20)))
    facts = analyze(module)
    for _ in range(4):
        packet = random.randbytes(random.choice(SIZES))
        with contextlib.suppress(Trap):
            Machine(module, facts, random, packet).run()
