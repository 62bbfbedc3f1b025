"""Accesses to contexts and packets go where the kernel's conversions send them."""

from __future__ import annotations

import pytest

from ir.context import HEADER, PLAIN, SK_BUFF, XDP_MD
from ir.context_access import find_in_packet, translate_access
from ir.segments import AccessError


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("data", (0, 8)),
        ("data_end", (8, 8)),
        ("data_meta", (16, 8)),
        ("len", (HEADER, 4)),
        ("mark", (HEADER + 8, 4)),
    ],
)
def test_fields_of_a_socket_buffer_are_in_the_header_or_behind_it(name: str, place: tuple[int, int]) -> None:
    assert translate_access(SK_BUFF, SK_BUFF.fields[name][0], 4, is_store=False) == place


def test_writable_fields_are_stored_behind_the_header() -> None:
    assert translate_access(SK_BUFF, SK_BUFF.fields["mark"][0], 4, is_store=True) == (HEADER + 8, 4)
    assert translate_access(PLAIN, 100, 8, is_store=True) == (HEADER + 100, 8)


@pytest.mark.parametrize(
    ("offset", "size", "is_store", "message"),
    [
        (0, 2, False, "2-byte load at offset 0 of xdp_md splits a packet pointer"),
        (7, 2, False, "2-byte load at offset 7 of xdp_md splits a packet pointer"),
        (20, 8, False, "8-byte load at offset 20 of xdp_md is beyond its 24 bytes"),
        (12, 4, True, "4-byte store at offset 12 of xdp_md is not allowed"),
        (0, 4, True, "4-byte store at offset 0 of xdp_md is not allowed"),
    ],
)
def test_other_accesses_are_refused(offset: int, size: int, is_store: bool, message: str) -> None:
    with pytest.raises(AccessError) as caught:
        translate_access(XDP_MD, offset, size, is_store)
    assert (caught.value.code, caught.value.message) == ("bad-context-access", message)


@pytest.mark.parametrize(
    ("index", "size", "address"),
    [
        (0, 1, 100),
        (56, 4, 156),
        (57, 4, None),
        (60, 1, None),
        (-1, 1, None),
        (-0x200000, 2, 100),
        (-0x200000 + 12, 2, 112),
        (-0x100000, 1, 114),
        (-0x100000 + 45, 1, 159),
        (-0x100000 + 46, 1, None),
        (-0x200001, 1, None),
    ],
)
def test_a_negative_index_counts_from_the_link_or_network_header(
    index: int, size: int, address: int | None
) -> None:
    assert find_in_packet(index, size, 100, 160) == address
