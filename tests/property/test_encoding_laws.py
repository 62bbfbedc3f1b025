"""Laws of the instruction encodings: bytes, text and insns say the same, for every legal instruction."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfc.testing.strategies import insns, insns_of
from ir.asm import assemble, disassemble, format_insn, jump_labels
from ir.diagnostics import DiagnosticError
from ir.encoding import decode, encode
from ir.isa import ROWS, Insn, Row, find_row, row_of


@given(st.lists(insns()), st.booleans())
def test_decoding_encoded_instructions_gives_them_back(program: list[Insn], big_endian: bool) -> None:
    assert decode(encode(program, big_endian), big_endian) == tuple(program)


@given(st.binary(max_size=64), st.booleans())
def test_bytes_that_decode_are_encoded_as_they_were(code: bytes, big_endian: bool) -> None:
    try:
        program = decode(code, big_endian)
    except DiagnosticError:
        return
    assert encode(program, big_endian) == code


@given(st.lists(insns()))
def test_the_two_byte_orders_differ_only_in_the_order_of_bytes(program: list[Insn]) -> None:
    little, big = encode(program), encode(program, big_endian=True)
    for at in range(0, len(little), 8):
        assert little[at] == big[at]
        assert little[at + 1] >> 4 == big[at + 1] & 15
        assert little[at + 2 : at + 4] == big[at + 2 : at + 4][::-1]
        assert little[at + 4 : at + 8] == big[at + 4 : at + 8][::-1]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@settings(max_examples=20)
@given(data=st.data())
def test_the_text_of_an_instruction_assembles_to_it(row: Row, data: st.DataObject) -> None:
    insn = data.draw(insns_of(row))
    assert row_of(insn) is row
    assert assemble(format_insn(insn)) == (insn,)


@given(st.lists(insns(), min_size=1))
def test_a_listing_assembles_to_the_program(program: list[Insn]) -> None:
    assert assemble(disassemble(program)) == tuple(program)


@given(st.lists(insns(), min_size=1))
def test_a_listing_with_labels_assembles_to_the_program(program: list[Insn]) -> None:
    assert assemble(disassemble(program, jump_labels(program))) == tuple(program)


@given(insns(), st.sampled_from(["dst", "src", "offset", "imm"]), st.integers(-0x8000, 0x7FFF))
def test_no_two_rows_take_the_same_instruction(insn: Insn, field: str, value: int) -> None:
    other = insn._replace(**{field: value})
    rows = [row for row in ROWS if row.opcode == other.opcode and row.accepts(other)]
    assert len(rows) <= 1
    assert find_row(other) is (rows[0] if rows else None)
