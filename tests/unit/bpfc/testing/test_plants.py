"""Every oracle can find: planted bugs are found soon, and made small.

A few of them here; all of them, each within two minutes (a wrong bound within one), by `make plants`.
"""

from __future__ import annotations

import os

import pytest

from backends.text import Text
from bpfc.loaded import Loaded
from bpfc.testing.oracle import Finding, Surroundings, Tally, judge
from bpfc.testing.plants import PLANTS, Plant, planted
from bpfc.testing.reduce import reduce
from bpfc.testing.registry import ORACLES
from ir import encoding
from ir.verify.transfer import ScalarAlgebra

EASY = ("spill", "transfer-xor", "transfer-and", "transfer-lshr", "poke", "relocation")
ALL = os.environ.get("BPFC_PLANTS") == "all"
CHOSEN = [plant for plant in PLANTS.values() if (ALL or plant.name in EASY) and plant.name != "crash"]
MOST_CASES = 20_000 if ALL else 400
MOST_INSNS = 24
HERE = Surroundings()


def test_there_is_a_plant_in_every_part_that_matters() -> None:
    assert len(PLANTS) >= 12
    assert sum(name.startswith("transfer-") for name in PLANTS) >= 8


def test_every_bug_can_be_planted_and_is_gone_afterwards() -> None:
    before = [encoding.decode, Text.udiv, ScalarAlgebra.add, Loaded.resize]
    for name in PLANTS:
        with planted(name):
            pass
    assert [encoding.decode, Text.udiv, ScalarAlgebra.add, Loaded.resize] == before


@pytest.mark.parametrize("plant", CHOSEN, ids=lambda plant: plant.name)
def test_a_planted_bug_is_found_and_made_small(plant: Plant) -> None:
    oracle = ORACLES[plant.oracle]
    with planted(plant.name):
        for seed in range(5000, 5000 + MOST_CASES):
            case = oracle.draw(seed)
            found = judge(oracle, case, Tally(), HERE)
            if found is not None:
                break
        assert isinstance(found, Finding)
        small, finding = reduce(oracle, case, found, HERE)
    assert finding.signature == found.signature
    assert small.program is not None
    assert len(small.program.insns) <= MOST_INSNS
    assert judge(oracle, small, Tally(), HERE) is None, "without the plant there is nothing to find"
