"""Lifting and every pass keep what a program does."""

from __future__ import annotations

from random import Random
from typing import Final

from bpfc.testing.bulk import Style, case_of
from bpfc.testing.case import Case
from bpfc.testing.differences import difference
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally
from bpfc.testing.reference import Observed, evaluate, interpret
from bpfc.testing.shapes.table import MEANS
from ir.core import Module, StaticBranch
from ir.lift import lift
from ir.pipeline import PASSES, parse_pipeline
from ir.validate import validate

STYLE: Final = Style(size=6, inputs=4, repertoire=MEANS)


def draw(seed: int) -> Case:
    """A program with static branches on a few inputs."""
    return case_of(seed, STYLE)


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """Lift it, then run a few passes in any order, looking after each."""
    assert case.program is not None, "a case of instructions"
    random = Random(case.seed)
    module = lift(case.program, case.maps)
    flipped = frozenset(slot for slot in _static_slots(module) if random.random() < 0.5)
    wanted = interpret(case, flipped)
    tally.steps += wanted.insns
    found = _compare("lift", wanted, evaluate(case, module, flipped))
    for name in random.choices([*PASSES], k=4) if found is None else ():
        parse_pipeline(name).run(module)
        validate(module, f"after {name}")
        found = found or _compare(name, wanted, evaluate(case, module, flipped))
    return found


def _compare(name: str, wanted: Observed, found: Observed) -> Finding | None:
    differs = difference(wanted, found)
    return Finding(ORACLE.name, differs[0], name, differs[1]) if differs else None


def _static_slots(module: Module) -> list[int]:
    return [
        block.terminator.at
        for function in module.functions.values()
        for block in function.blocks
        if isinstance(block.terminator, StaticBranch)
    ]


ORACLE: Final = Oracle("passes", "lifting and every pass keep the meaning", draw, judge, share=4)
