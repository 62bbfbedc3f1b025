"""LLVM IR as text: what undoes itself is not written."""

from __future__ import annotations

from backends.text import Text
from ir.isa import ROW_BY_NAME, compute


def test_a_truncation_takes_an_extension_back() -> None:
    text = Text(big_endian=False)
    wide = text.zext(32, "%a", 64)
    assert text.trunc(64, wide, 32) == "%a"
    assert text.lines == ["  %v1 = zext i32 %a to i64"]


def test_a_narrower_truncation_starts_from_what_was_extended() -> None:
    text = Text(big_endian=False)
    wide = text.sext(32, "%a", 64)
    text.trunc(64, wide, 16)
    assert text.lines[1:] == ["  %v2 = trunc i32 %a to i16"]


def test_a_wider_truncation_extends_with_the_same_sign() -> None:
    text = Text(big_endian=False)
    wide = text.sext(8, "%a", 64)
    text.trunc(64, wide, 32)
    assert text.lines[1:] == ["  %v2 = sext i8 %a to i32"]


def test_a_truncation_is_written_once_in_a_block_and_again_in_the_next() -> None:
    text = Text(big_endian=False)
    assert text.trunc(64, "%a", 32) == text.trunc(64, "%a", 32) == "%v1"
    text.start_block()
    assert text.trunc(64, "%a", 32) == "%v2"


def test_numbers_are_truncated_and_extended_at_once() -> None:
    text = Text(big_endian=False)
    assert text.trunc(64, "4294967295", 32) == "-1"
    assert text.zext(32, "-1", 64) == "4294967295"
    assert text.sext(16, "-2", 64) == "-2"
    assert text.and_(32, "-1", "255") == "255"
    assert text.lines == []


def test_a_mask_that_keeps_every_bit_is_not_written() -> None:
    text = Text(big_endian=False)
    low = text.and_(64, "%a", "63")
    assert text.and_(64, low, "127") == low
    assert text.and_(64, low, "31") != low


def test_a_mask_that_may_clear_a_bit_of_an_extended_byte_is_written() -> None:
    text = Text(big_endian=False)
    byte = text.zext(8, "%a", 64)
    assert text.and_(64, byte, "255") == byte
    assert text.and_(64, byte, "127") == "%v2"


def test_division_by_what_is_never_zero_is_one_operation() -> None:
    text = Text(big_endian=False)
    text.note_nonzero("%b")
    compute(ROW_BY_NAME["div64 reg"], text, "%a", "%b")
    assert text.lines == ["  %v1 = udiv i64 %a, %b"]


def test_division_by_what_may_be_zero_is_made_total() -> None:
    text = Text(big_endian=False)
    compute(ROW_BY_NAME["mod64 reg"], text, "%a", "%b")
    assert text.lines == [
        "  %v1 = icmp eq i64 %b, 0",
        "  %v2 = select i1 %v1, i64 1, i64 %b",
        "  %v3 = urem i64 %a, %v2",
        "  %v4 = select i1 %v1, i64 %a, i64 %v3",
    ]


def test_a_constant_shift_count_is_masked_when_it_is_written() -> None:
    text = Text(big_endian=False)
    compute(ROW_BY_NAME["lsh64 imm"], text, "%a", "67")
    assert text.lines == ["  %v1 = shl i64 %a, 3"]
