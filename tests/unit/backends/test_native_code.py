"""Native code as bytes: what is read is what was written, and anything else is found out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.native_code import (
    Form,
    NativeCode,
    PatchSite,
    Relocation,
    Section,
    SiteKind,
    Symbol,
    from_bytes,
)
from ir.diagnostics import UnreadableError

names = st.text(st.characters(min_codepoint=1, codec="utf-8"), max_size=12)
small = st.integers(0, 2**31 - 1)
wide = st.integers(0, 2**63 - 1)
sections = st.builds(Section, names, st.binary(max_size=40), wide, small, st.booleans(), st.booleans())
symbols = st.builds(
    Symbol, names, st.integers(-1, 3), wide, wide, st.booleans(), st.booleans(), st.integers(0, 255)
)
relocations = st.builds(Relocation, small, wide, names, small, st.integers(-(2**63), 2**63 - 1))
sites = st.builds(
    PatchSite,
    st.sampled_from(SiteKind),
    small,
    wide,
    small,
    small,
    wide,
    st.integers(-1, 2**62),
    st.sampled_from(Form),
)


def several(items: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(items, max_size=3).map(tuple)


codes = st.builds(
    NativeCode, names, several(sections), several(symbols), several(relocations), several(sites)
)


@given(codes)
def test_reading_gives_back_what_was_written(code: NativeCode) -> None:
    assert from_bytes(code.to_bytes()) == code


@given(codes, st.data())
def test_bytes_that_were_cut_short_are_refused(code: NativeCode, data: st.DataObject) -> None:
    written = code.to_bytes()
    with pytest.raises(UnreadableError):
        from_bytes(written[: data.draw(st.integers(0, len(written) - 1))])


@given(codes, st.data())
def test_bytes_that_were_changed_are_refused(code: NativeCode, data: st.DataObject) -> None:
    written = bytearray(code.to_bytes())
    written[data.draw(st.integers(0, len(written) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UnreadableError):
        from_bytes(bytes(written))


@given(st.binary(max_size=100))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(UnreadableError) as caught:
        from_bytes(data)
    assert "not native code that bpfc wrote" in str(caught.value)


def test_code_of_a_later_format_names_both_formats() -> None:
    written = bytearray(NativeCode("x86_64", (), (), ()).to_bytes())
    written[8] = 9
    with pytest.raises(UnreadableError) as caught:
        from_bytes(bytes(written))
    assert "native code of format 9, this bpfc reads format 4" in str(caught.value)
