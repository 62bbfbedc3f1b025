"""Rows as Python functions give what the model over integers gives."""

from __future__ import annotations

import pytest

from bpfc.testing.author import WIDE_EDGES
from ir.algebra import Integers
from ir.isa import ROWS, Kind, Row, compute
from ir.row_functions import row_functions

COMPUTING = [row for row in ROWS if row.kind in (Kind.ALU, Kind.BRANCH)]


@pytest.mark.parametrize("row", COMPUTING, ids=lambda row: row.name)
@pytest.mark.parametrize("big_endian", [False, True])
def test_a_function_gives_what_its_row_means(row: Row, big_endian: bool) -> None:
    function, algebra = row_functions(big_endian)[row.name], Integers(big_endian)
    for x in WIDE_EDGES:
        for y in WIDE_EDGES:
            assert function(x, y) == compute(row, algebra, x, y), (x, y)


def test_arsh32_extends_the_sign_of_the_low_half_only() -> None:
    assert row_functions(False)["arsh32 imm"](0x1_8000_0000, 4) == 0xF800_0000
