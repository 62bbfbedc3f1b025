"""The law of shrinking: fewer instructions, the same results, memory and helper calls."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bpfc.testing.observed import observe_insns
from bpfc.testing.programs import Sample, samples
from ir.shrink import shrink
from ir.static_keys import static_branches


@given(samples(), st.booleans())
def test_a_shrunken_program_does_the_same(sample: Sample, flips: bool) -> None:
    _check(sample, flips)


@given(samples(big_endian=True))
def test_a_shrunken_big_endian_program_does_the_same(sample: Sample) -> None:
    _check(sample, flips=False)


def _check(sample: Sample, flips: bool) -> None:
    done = shrink(sample.program, sample.maps)
    smaller = replace(sample, program=done.program)
    assert done.program.starts[-1] <= sample.program.starts[-1]
    branches = frozenset(static_branches(sample.program)) if flips else frozenset()
    moved = frozenset(slot for branch in branches if (slot := done.moved[branch]) is not None)
    before, after = observe_insns(sample, branches), observe_insns(smaller, moved)
    if isinstance(before.result, int):  # what traps is no program for a verifier
        assert after == before
    again = shrink(done.program, sample.maps)
    assert again.program.insns == done.program.insns
