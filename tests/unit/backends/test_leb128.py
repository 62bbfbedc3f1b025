"""Numbers of variable length, by the examples of DWARF 4, figures 22 and 23, and there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.leb128 import read_signed, read_unsigned, signed, unsigned

UNSIGNED = {2: "02", 127: "7f", 128: "8001", 129: "8101", 130: "8201", 12857: "b964"}
SIGNED = {2: "02", -2: "7e", 127: "ff00", -127: "817f", 128: "8001", -128: "807f", 129: "8101", -129: "ff7e"}


@pytest.mark.parametrize(("number", "text"), UNSIGNED.items())
def test_unsigned_numbers_are_as_the_standard_shows_them(number: int, text: str) -> None:
    assert unsigned(number).hex() == text
    assert read_unsigned(b"\xff" + bytes.fromhex(text) + b"\xff", 1) == (number, 1 + len(text) // 2)


@pytest.mark.parametrize(("number", "text"), SIGNED.items())
def test_signed_numbers_are_as_the_standard_shows_them(number: int, text: str) -> None:
    assert signed(number).hex() == text
    assert read_signed(b"\xff" + bytes.fromhex(text) + b"\xff", 1) == (number, 1 + len(text) // 2)


@given(st.integers(-(1 << 70), 1 << 70))
def test_every_number_comes_back(number: int) -> None:
    data = signed(number)
    assert read_signed(data, 0) == (number, len(data))
    data = unsigned(abs(number))
    assert read_unsigned(data, 0) == (abs(number), len(data))
