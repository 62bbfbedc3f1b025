"""Each oracle on a few cases: they find nothing, and what they did is counted."""

from __future__ import annotations

import pytest

from bpfc.testing.case import Case, from_json, to_json
from bpfc.testing.oracle import Oracle, Surroundings, Tally, judge
from bpfc.testing.reference import shows_addresses
from bpfc.testing.registry import CAMPAIGNS, ORACLES, oracles_of
from ir.asm import assemble
from ir.functions import discover_functions
from ir.isa import ROW_BY_NAME
from ir.kinds import ProgramType
from ir.object import Program

HERE = Surroundings(("riscv64",))
CASES = {"targets": 2, "levels": 3, "native": 8, "patching": 2, "accepted": 8, "linux": 16}


@pytest.mark.parametrize("oracle", ORACLES.values(), ids=lambda oracle: oracle.name)
def test_an_oracle_finds_nothing(oracle: Oracle) -> None:
    if oracle.lacks(HERE):
        pytest.skip(oracle.lacks(HERE))
    tally = Tally()
    count = CASES.get(oracle.name, 24)
    found = [judge(oracle, oracle.draw(seed), tally, HERE) for seed in range(count)]
    assert [each.said for each in found if each is not None] == []
    assert tally.cases == count


@pytest.mark.parametrize("name", ["native", "passes", "patching", "loader"])
def test_a_case_is_the_same_after_a_detour_through_json(name: str) -> None:
    for seed in range(16):
        case = ORACLES[name].draw(seed)
        again = from_json(to_json(case))
        assert (again.program, again.inputs, again.data) == (case.program, case.inputs, case.data)
        assert dict(again.maps) == dict(case.maps)


def test_a_campaign_is_a_set_of_oracles_or_one() -> None:
    assert oracles_of("all") == tuple(ORACLES.values())
    assert oracles_of("claims") == (ORACLES["claims"],)
    assert oracles_of("everything") is None
    assert all(name in ORACLES for names in CAMPAIGNS.values() for name in names)


def test_campaigns_draw_every_row_of_the_instruction_set() -> None:
    drawn: set[str] = set()
    for name in ("native", "passes"):
        for seed in range(1200):
            program = ORACLES[name].draw(seed).program
            assert program is not None
            drawn.update(row.name for row in program.rows)
    assert drawn == set(ROW_BY_NAME)


@pytest.mark.parametrize(
    "insns",
    [
        "r0 = r10\nexit",
        "r0 = r1\nr0 <<= 32\nexit",
        "r0 = *(s32 *)(r1 + 0)\nr0 &= 0xff0\nexit",
    ],
)
def test_where_memory_is_shows_in_the_result_and_is_noticed(insns: str) -> None:
    code = assemble(insns)
    program = Program("main", "xdp", ProgramType.XDP, code, discover_functions(code, "main"))
    assert shows_addresses(Case(program, {}, (bytes(64),)))
    hidden = (*assemble(insns)[:-1], *assemble("r0 = 1\nexit"))
    program = Program("main", "xdp", ProgramType.XDP, hidden, discover_functions(hidden, "main"))
    assert not shows_addresses(Case(program, {}, (bytes(64),)))
