"""Where the fields are that belong to the kernel, in types of any shape."""

from __future__ import annotations

import pytest

from ir.btf import Btf, read_btf
from ir.btf_encode import encode_btf
from ir.btf_types import (
    Array,
    DataSection,
    Int,
    Linkage,
    Member,
    Pointer,
    SectionEntry,
    Struct,
    Type,
    TypeTag,
    Variable,
)
from ir.diagnostics import UnreadableError
from ir.verify.fields import MOST_FIELDS, MOST_NESTED, SpecialField, find_special_fields

LOCK = Struct("bpf_spin_lock", False, 4, ())
TIMER = Struct("bpf_timer", False, 16, ())


def types(*of: Type) -> Btf:
    """BTF of types with ids 1, 2, ..."""
    return read_btf(encode_btf(of))


def nested(depth: int) -> Btf:
    """Type `depth` + 1 is that many structures around a lock."""
    return types(LOCK, *(Struct(f"s{id}", False, 4, (Member("in", id, 0),)) for id in range(1, depth + 1)))


def test_fields_are_found_wherever_they_stand() -> None:
    btf = types(
        LOCK,
        TIMER,
        Int("int", 4, 32),
        Array(2, 3, 2),
        TypeTag("kptr", 1),
        Pointer(5),
        Struct("value", False, 56, (Member("t", 4, 64), Member("l", 1, 0), Member("p", 6, 320))),
    )
    assert find_special_fields(btf, 7) == (
        SpecialField(0, 4, "bpf_spin_lock"),
        SpecialField(8, 16, "bpf_timer"),
        SpecialField(24, 16, "bpf_timer"),
        SpecialField(40, 8, "kptr", 1),
    )
    assert find_special_fields(btf, 3) == find_special_fields(btf, 0) == ()


def test_variables_of_a_section_may_have_some() -> None:
    btf = types(LOCK, Variable("lock", 1, Linkage.GLOBAL), DataSection(".data", 8, (SectionEntry(2, 4, 4),)))
    assert find_special_fields(btf, 3) == (SpecialField(4, 4, "bpf_spin_lock"),)


def test_nesting_has_a_bound() -> None:
    assert len(find_special_fields(nested(MOST_NESTED - 1), MOST_NESTED)) == 1
    with pytest.raises(UnreadableError, match="nested more than 32 deep"):
        find_special_fields(nested(MOST_NESTED), MOST_NESTED + 1)


@pytest.mark.parametrize(
    "loop",
    [
        (Variable("v", 2, Linkage.GLOBAL), DataSection(".data", 4, (SectionEntry(1, 0, 4),))),
        (Struct("s", False, 4, (Member("in", 2, 0),)), Array(1, 1, 2)),
    ],
    ids=["section", "structure"],
)
def test_what_contains_itself_is_refused(loop: tuple[Type, ...]) -> None:
    with pytest.raises(UnreadableError, match="nested more than 32 deep"):
        find_special_fields(types(*loop), 2)


def test_types_that_explode_are_looked_at_once() -> None:
    doubling: list[Type] = [Int("int", 4, 32)]
    for id in range(1, 30):
        doubling.append(Struct(f"s{id}", False, 4, (Member("a", id, 0), Member("b", id, 0))))
    assert find_special_fields(types(*doubling), 30) == ()
    doubling[0] = LOCK
    with pytest.raises(UnreadableError, match="more than 64 special fields"):
        find_special_fields(types(*doubling), 30)


def test_so_many_fields_are_too_many() -> None:
    def locks(count: int) -> Btf:
        return types(LOCK, Int("int", 4, 32), Array(1, 2, count))

    assert len(find_special_fields(locks(MOST_FIELDS), 3)) == MOST_FIELDS
    for count in (MOST_FIELDS + 1, 0xFFFF_FFFF):
        with pytest.raises(UnreadableError, match="more than 64 special fields"):
            find_special_fields(locks(count), 3)
