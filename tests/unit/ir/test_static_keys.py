"""Reading which static branches belong to which key."""

from __future__ import annotations

from dataclasses import replace
from errno import EINVAL
from pathlib import Path

import pytest

import bpfc
from ir.diagnostics import RejectedError
from ir.object import Object, Relocation
from ir.static_keys import DeclaredBranch, Polarity, read_static_keys

OBJECT = bpfc.load(Path(__file__).parents[2] / "objects" / "static_keys.o").object


def moved(object: Object, part: int, by: int) -> Object:
    """`object` with one field of the first entry, or of all of them (part 8), relocated elsewhere."""

    def is_meant(one: Relocation) -> bool:
        return one.section == ".static_keys" and (one.offset == part or (part == 8 and one.offset % 16 == 8))

    relocations = tuple(
        replace(one, target_offset=one.target_offset + by) if is_meant(one) else one
        for one in object.relocations
    )
    return replace(object, relocations=relocations)


def test_entries_name_branches_by_section_and_byte() -> None:
    table = read_static_keys(OBJECT)
    assert table.names == ("debug", "trace", "unused")
    assert table.branches["trace"] == (DeclaredBranch(".text", 16),)
    assert table.of(OBJECT.programs["with_callee"]) == {"debug": (2, 7), "trace": (8,)}
    assert table.polarity is Polarity.FIRST_IS_OFF


def test_without_the_flag_the_polarity_is_that_of_2025() -> None:
    assert read_static_keys(moved(OBJECT, 8, -2)).polarity is Polarity.FIRST_IS_ON


def test_a_section_of_one_key_lists_its_branches() -> None:
    object = replace(
        OBJECT,
        data={"mine.static_branch": bytes(8)},
        relocations=(Relocation("mine.static_branch", 0, "R_BPF_64_ABS64", "xdp", 8, "xdp", 8),),
    )
    assert read_static_keys(object).of(object.programs["unlikely"]) == {"mine": (1,)}


@pytest.mark.parametrize(
    "bad",
    [
        replace(OBJECT, data={".static_keys": bytes(17)}),
        replace(OBJECT, relocations=()),
        moved(OBJECT, 0, 8),
        moved(OBJECT, 0, 4),
        moved(OBJECT, 4, 8),
        moved(OBJECT, 8, 4),
        moved(OBJECT, 8, 8192),
    ],
    ids=["size", "no relocations", "no branch", "inside an insn", "other target", "unknown flag", "no key"],
)
def test_entries_that_name_no_branch_target_or_key_are_refused(bad: Object) -> None:
    with pytest.raises(RejectedError) as caught:
        read_static_keys(bad)
    assert caught.value.errno == EINVAL
