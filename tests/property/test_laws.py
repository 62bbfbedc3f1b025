"""The laws of rows that passes use hold for every operand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfc.testing.strategies import values
from ir.algebra import Integers
from ir.isa import ROW_BY_NAME, ROWS, Kind, Row, compute
from ir.passes.laws import OPERAND, laws_of

LAWFUL = [row for row in ROWS if row.kind in (Kind.ALU, Kind.BRANCH)]


@pytest.mark.parametrize("row", LAWFUL, ids=lambda row: row.name)
@given(x=values(), y=values(), big_endian=st.booleans(), high=values(32))
def test_a_law_holds_for_all_operands(row: Row, x: int, y: int, big_endian: bool, high: int) -> None:
    algebra, laws = Integers(big_endian), laws_of(row, big_endian)
    mask = (1 << row.bits) - 1

    def follows(law: int, operand: int, result: int) -> bool:
        return result == (operand & mask if law == OPERAND else law)

    above = high << 32 & ~mask
    for constant, law in laws.right.items():
        assert follows(law, x, compute(row, algebra, x, constant | above))
    for constant, law in laws.left.items():
        assert follows(law, y, compute(row, algebra, constant | above, y))
    if laws.same is not None:
        assert follows(laws.same, x, compute(row, algebra, x, x))
    if laws.is_commutative:
        assert compute(row, algebra, x, y) == compute(row, algebra, y, x)


@pytest.mark.parametrize(
    ("name", "constant", "law"),
    [
        ("add64 imm", 0, OPERAND),
        ("and32 reg", 0xFFFF_FFFF, OPERAND),
        ("mul64 imm", 0, 0),
        ("div32 imm", 0, 0),
        ("mod64 imm", 0, OPERAND),
        ("lsh64 reg", 0, OPERAND),
        ("jlt64 imm", 0, 0),
        ("jge32 reg", 0, 1),
    ],
)
def test_the_known_laws_are_found(name: str, constant: int, law: int) -> None:
    assert laws_of(ROW_BY_NAME[name], False).right[constant] == law


def test_addition_is_commutative_and_subtraction_is_not() -> None:
    assert laws_of(ROW_BY_NAME["add64 reg"], False).is_commutative
    assert not laws_of(ROW_BY_NAME["sub64 reg"], False).is_commutative
