"""Whatever the bytes, reading them gives an Object or Diagnostics, soon."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bpfc.elf.file import read_elf
from bpfc.elf.reader import read_object
from bpfc.testing.mutation import mutate
from bpfc.testing.readers import OBJECT
from ir.btf import read_btf
from ir.btf_c import dump_c
from ir.btf_check import check_btf
from ir.btf_dump import dump_raw
from ir.diagnostics import DiagnosticError

OBJECTS = Path(__file__).parents[1] / "objects"
NAMES = ("everything.o", "everything.eb.o", "legacy_maps.o", "xdp_stats.o")
DATA = {name: (OBJECTS / name).read_bytes() for name in NAMES}


@given(st.sampled_from(NAMES), st.integers(0, 2**64))
def test_a_malformed_object_is_read_or_refused(name: str, seed: int) -> None:
    assert OBJECT.outcome(mutate(DATA[name], seed), name)


@given(st.binary(max_size=300))
@example(b"\x7fELF")
def test_bytes_that_are_no_object_are_refused(data: bytes) -> None:
    with pytest.raises(DiagnosticError):
        read_object(data, "random.o")


@given(st.sampled_from(NAMES), st.integers(0, 2**64), st.booleans())
def test_malformed_types_are_shown_or_refused(name: str, seed: int, as_c: bool) -> None:
    section = read_elf(DATA[name], name).find(".BTF")
    assert section is not None
    data = bytearray(section.data)
    random = Random(seed)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(24, len(data), 4)
        data[place : place + 4] = random.choice((random.randbytes(4), data[place - 4 : place], bytes(4)))
    assert show_types(bytes(data), as_c)


def show_types(data: bytes, as_c: bool) -> str:
    """All text that BTF has to give, or what is wrong with it."""
    try:
        btf = read_btf(data)
        lines = dump_c(btf) if as_c else dump_raw(btf)
        return "\n".join([*lines, *map(str, check_btf(btf)), "end"])
    except DiagnosticError as error:
        return str(error)
