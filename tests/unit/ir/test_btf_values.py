"""Values of BTF types: what bytes mean, and the bytes of a meaning."""

from __future__ import annotations

import pytest

from ir.btf import Btf, read_btf
from ir.btf_encode import encode_btf
from ir.btf_types import (
    Array,
    BtfKind,
    Enum,
    Enumerator,
    Float,
    Int,
    Member,
    Pointer,
    Qualifier,
    Struct,
    Typedef,
)
from ir.btf_values import Record, decode_value, encode_value
from ir.diagnostics import RejectedError

U8, S32, CHAR, BOOL, U64, DOUBLE, COLOR, POINTER, NAME, MAC, PAIR, INNER, OUTER, BITS, CONST, U16, PORTS = (
    range(1, 18)
)
TYPES = (
    Int("unsigned char", 1, 8),
    Int("int", 4, 32, is_signed=True),
    Int("char", 1, 8, is_signed=True),
    Int("_Bool", 1, 8, is_bool=True),
    Int("unsigned long", 8, 64),
    Float("double", 8),
    Enum("color", 4, True, (Enumerator("RED", -1), Enumerator("GREEN", 2))),
    Pointer(0),
    Array(CHAR, S32, 8),
    Array(U8, S32, 6),
    Struct("pair", False, 8, (Member("x", S32, 0), Member("y", S32, 32))),
    Struct("", True, 8, (Member("whole", U64, 0), Member("pair", PAIR, 0))),
    Struct("outer", False, 24, (Member("id", S32, 0), Member("", INNER, 64), Member("on", BOOL, 128))),
    Struct("bits", False, 4, (Member("low", S32, 0, 3), Member("high", S32, 3, 5))),
    Qualifier(BtfKind.CONST, S32),
    Int("unsigned short", 2, 16),
    Array(U16, S32, 3),
)


@pytest.fixture(params=[False, True], ids=["little", "big"])
def big_endian(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def btf(big_endian: bool) -> Btf:
    return read_btf(encode_btf(TYPES, big_endian))


@pytest.mark.parametrize(
    ("type_id", "little", "big", "value"),
    [
        (U8, "ff", "ff", 255),
        (S32, "feffffff", "fffffffe", -2),
        (CONST, "05000000", "00000005", 5),
        (BOOL, "01", "01", True),
        (U64, "0200000000000000", "0000000000000002", 2),
        (DOUBLE, "000000000000f83f", "3ff8000000000000", 1.5),
        (COLOR, "ffffffff", "ffffffff", "RED"),
        (COLOR, "07000000", "00000007", 7),
        (POINTER, "1000000000000000", "0000000000000010", 16),
        (NAME, "6574683000000000", "6574683000000000", "eth0"),
        (MAC, "020000000001", "020000000001", b"\2\0\0\0\0\1"),
        (PORTS, "010002000300", "000100020003", [1, 2, 3]),
        (PAIR, "01000000ffffffff", "00000001ffffffff", {"x": 1, "y": -1}),
        (BITS, "fd000000", "bf000000", {"low": -3, "high": -1}),
    ],
)
def test_a_value_and_its_bytes_mean_each_other(
    btf: Btf, big_endian: bool, type_id: int, little: str, big: str, value: object
) -> None:
    raw = bytes.fromhex(big if big_endian else little)
    assert decode_value(btf, type_id, raw) == value
    assert encode_value(btf, type_id, value) == raw


def test_anonymous_members_are_members_of_the_outer_struct() -> None:
    btf = read_btf(encode_btf(TYPES))
    raw = encode_value(btf, OUTER, {"id": 1, "pair": {"x": 2}, "on": True})
    assert raw.hex(" ", 4) == "01000000 00000000 02000000 00000000 01000000 00000000"
    outer = decode_value(btf, OUTER, raw)
    assert outer == {"id": 1, "whole": 2, "pair": {"x": 2, "y": 0}, "on": True}
    assert isinstance(outer, Record)
    assert outer.pair.x == 2
    with pytest.raises(AttributeError):
        outer.nope  # noqa: B018  # the access is what is tested


def test_bytes_of_the_right_size_are_taken_for_any_type() -> None:
    btf = read_btf(encode_btf(TYPES))
    assert encode_value(btf, PAIR, bytes(range(8))) == bytes(range(8))


@pytest.mark.parametrize(
    ("type_id", "value"),
    [
        (U8, 256),
        (U8, -129),
        (S32, "1"),
        (S32, b"123"),
        (COLOR, "BLUE"),
        (NAME, "longer than 8"),
        (PORTS, [1, 2, 3, 4]),
        (PORTS, "abc"),
        (PAIR, {"z": 1}),
        (PAIR, 7),
        (BITS, {"low": "x"}),
        (POINTER, None),
    ],
)
def test_what_is_no_value_of_a_type_is_refused(type_id: int, value: object) -> None:
    with pytest.raises(RejectedError) as caught:
        encode_value(read_btf(encode_btf(TYPES)), type_id, value)
    assert caught.value.diagnostics[0].code == "bad-value"


def test_typedefs_are_looked_through() -> None:
    btf = read_btf(encode_btf((Int("int", 4, 32, is_signed=True), Typedef("s32", 1))))
    assert decode_value(btf, 2, bytes.fromhex("ffffffff")) == -1
