"""Laws of lifting and of passes: what a program does is the same before and after."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfc.testing.observed import observe_insns, observe_module
from bpfc.testing.programs import Sample, samples
from ir.core import StaticBranch
from ir.lift import lift
from ir.parse import parse_module
from ir.pipeline import DEFAULT, PASSES, Pipeline, parse_pipeline
from ir.text import format_module
from ir.validate import validate

EVERY_PASS = list(PASSES)


@given(samples(), st.booleans())
def test_lifting_keeps_what_a_program_does(sample: Sample, flips: bool) -> None:
    module = lift(sample.program, sample.maps)
    validate(module)
    flipped = _static_branches(sample) if flips else frozenset()
    assert observe_module(sample, module, flipped) == observe_insns(sample, flipped)


@given(samples(big_endian=True))
def test_lifting_keeps_what_a_big_endian_program_does(sample: Sample) -> None:
    module = lift(sample.program, sample.maps)
    assert observe_module(sample, module) == observe_insns(sample)


@pytest.mark.parametrize("name", EVERY_PASS)
@given(sample=samples(), flips=st.booleans())
def test_a_pass_keeps_what_a_program_does(name: str, sample: Sample, flips: bool) -> None:
    flipped = _static_branches(sample) if flips else frozenset()
    _check(parse_pipeline(name), sample, flipped)


@given(samples(big_endian=True))
def test_the_default_pipeline_keeps_what_a_big_endian_program_does(sample: Sample) -> None:
    _check(DEFAULT, sample)


@given(samples(), st.lists(st.sampled_from(EVERY_PASS), min_size=2, max_size=6))
def test_passes_in_any_order_keep_what_a_program_does(sample: Sample, names: list[str]) -> None:
    _check(parse_pipeline(",".join(names)), sample)


@given(samples())
def test_printed_modules_parse_to_themselves(sample: Sample) -> None:
    module = lift(sample.program, sample.maps)
    for slots in (False, True):
        text = format_module(module, slots=slots, maps=True)
        assert format_module(parse_module(text), slots=slots, maps=True) == text


def _check(pipeline: Pipeline, sample: Sample, flipped: frozenset[int] = frozenset()) -> None:
    module = lift(sample.program, sample.maps)
    before = observe_module(sample, module, flipped)
    pipeline.run(module)
    validate(module)
    assert observe_module(sample, module, flipped) == before


def _static_branches(sample: Sample) -> frozenset[int]:
    module = lift(sample.program, sample.maps)
    return frozenset(
        block.terminator.at
        for function in module.functions.values()
        for block in function.blocks
        if isinstance(block.terminator, StaticBranch)
    )
