"""CO-RE: what programs ask of types, and what becomes of their instructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bpfc.elf.reader import read_object
from ir.asm import assemble
from ir.btf import Btf, read_btf
from ir.btf_encode import encode_btf
from ir.btf_ext import CoreKind, CoreRelocation
from ir.btf_types import (
    Array,
    BtfKind,
    Enum,
    Enumerator,
    Float,
    Forward,
    Int,
    Member,
    Parameter,
    Pointer,
    Prototype,
    Qualifier,
    Struct,
    Type,
    Typedef,
)
from ir.core_relocation import relocate
from ir.diagnostics import RejectedError
from ir.isa import Insn
from ir.kinds import ProgramType
from ir.object import POISON_HELPER, FunctionInfo, Program

OBJECTS = Path(__file__).parents[2] / "objects"

INT = Int("int", 4, 32, is_signed=True)
U32 = Int("unsigned int", 4, 32)
U64 = Int("unsigned long long", 8, 64)
CHAR = Int("char", 1, 8, is_signed=True)
K = CoreKind


def types(*of: Type) -> Btf:
    """BTF of types with ids 1, 2, ..."""
    return read_btf(encode_btf(of))


def struct(name: str, size: int, *members: Member) -> Struct:
    """A struct; offsets of its members are in bits."""
    return Struct(name, False, size, members)


def program(text: str, asked: CoreRelocation, big_endian: bool = False) -> Program:
    """A program whose first instruction has a CO-RE relocation."""
    insns = assemble(text)
    info = FunctionInfo("main", 0, len(insns) + sum(insn.opcode == 0x18 for insn in insns), True)
    return Program(
        "main", "kprobe", ProgramType.KPROBE, insns, (info,), core={0: asked}, big_endian=big_endian
    )


def patched(text: str, local: Btf, target: Btf, kind: CoreKind, id: int, access: str = "0") -> Insn:
    """The first instruction of a program after relocation."""
    return relocate(program(text, CoreRelocation(kind, id, access)), local, target).insns[0]


def value(local: Btf, target: Btf, kind: CoreKind, id: int, access: str, before: int) -> int:
    """What `r1 = before` becomes."""
    return patched(f"r1 = {before}", local, target, kind, id, access).imm


LOCAL = types(INT, struct("s", 16, Member("a", 1, 0), Member("b", 1, 32), Member("c", 3, 64)), U64)
MOVED = types(
    U64,
    INT,
    struct("s", 40, Member("new", 1, 0), Member("c", 1, 64), Member("b", 2, 128), Member("a", 2, 160)),
)


@pytest.mark.parametrize(
    ("text", "access", "after"),
    [
        ("r1 = *(u32 *)(r2 + 4)", "0:1", "r1 = *(u32 *)(r2 + 16)"),
        ("*(u64 *)(r2 + 8) = r1", "0:2", "*(u64 *)(r2 + 8) = r1"),
        ("*(u32 *)(r2 + 0) = 5", "0:0", "*(u32 *)(r2 + 20) = 5"),
        ("r1 += 4", "0:1", "r1 += 16"),
        ("w1 = 0", "0:0", "w1 = 20"),
        ("r1 = 4 ll", "0:1", "r1 = 16 ll"),
        ("lock *(u32 *)(r2 + 4) += w1", "0:1", "lock *(u32 *)(r2 + 16) += w1"),
        ("r1 += 20", "1:1", "r1 += 56"),
    ],
)
def test_a_field_that_moved_is_found_by_its_name(text: str, access: str, after: str) -> None:
    assert patched(text, LOCAL, MOVED, K.FIELD_BYTE_OFFSET, 2, access) == assemble(after)[0]


def test_other_instructions_and_slots_stay() -> None:
    before = program("r1 = 4 ll\nr2 = 7\nexit", CoreRelocation(K.FIELD_BYTE_OFFSET, 2, "0:1"))
    after = relocate(before, LOCAL, MOVED)
    assert after.insns[1:] == before.insns[1:]
    assert after.starts == before.starts
    assert not after.core
    assert not after.poisoned


@pytest.mark.parametrize(
    ("kind", "access", "before", "after"),
    [
        (K.FIELD_BYTE_SIZE, "0:1", 4, 4),
        (K.FIELD_EXISTS, "0:1", 1, 1),
        (K.FIELD_SIGNED, "0:1", 1, 1),
        (K.FIELD_SIGNED, "0:2", 0, 0),
        (K.FIELD_LSHIFT_U64, "0:1", 32, 32),
        (K.FIELD_RSHIFT_U64, "0:1", 32, 32),
        (K.FIELD_RSHIFT_U64, "0:2", 0, 0),
        (K.TYPE_SIZE, "0", 16, 40),
        (K.TYPE_EXISTS, "0", 1, 1),
        (K.TYPE_ID_TARGET, "0", 2, 3),
        (K.TYPE_ID_LOCAL, "0", 2, 2),
        (K.TYPE_MATCHES, "0", 1, 1),
    ],
)
def test_what_else_can_be_asked(kind: CoreKind, access: str, before: int, after: int) -> None:
    assert value(LOCAL, MOVED, kind, 2, access, before) == after


def test_what_the_target_lacks_does_not_exist() -> None:
    nothing = types(INT)
    assert value(LOCAL, nothing, K.FIELD_EXISTS, 2, "0:1", 1) == 0
    assert value(LOCAL, nothing, K.TYPE_EXISTS, 2, "0", 1) == 0
    assert value(LOCAL, nothing, K.TYPE_MATCHES, 2, "0", 1) == 0
    assert value(LOCAL, nothing, K.TYPE_SIZE, 2, "0", 16) == 0
    assert value(LOCAL, nothing, K.TYPE_ID_TARGET, 2, "0", 2) == 0


def test_a_field_that_is_gone_poisons_its_instruction() -> None:
    without = types(INT, struct("s", 4, Member("a", 1, 0)))
    after = relocate(
        program("r1 = 4 ll\nexit", CoreRelocation(K.FIELD_BYTE_OFFSET, 2, "0:1")), LOCAL, without
    )
    assert after.insns[:2] == (Insn(0x85, imm=POISON_HELPER),) * 2
    assert POISON_HELPER == 195896080
    assert after.poisoned[0].message == "the target has no field 's.b'"
    assert after.starts[-1] == 3


def test_members_of_anonymous_structs_are_found() -> None:
    nested = types(
        INT,
        Struct("", True, 8, (Member("x", 1, 0), Member("", 3, 0))),
        struct("", 8, Member("y", 1, 0), Member("b", 1, 32)),
        struct("s", 24, Member("front", 1, 0), Member("", 2, 64)),
    )
    assert value(LOCAL, nested, K.FIELD_BYTE_OFFSET, 2, "0:1", 4) == 12
    assert value(nested, LOCAL, K.FIELD_BYTE_OFFSET, 4, "0:1:1:1", 12) == 4


def test_elements_of_arrays_are_found() -> None:
    local = types(INT, Array(1, 1, 4), struct("s", 20, Member("a", 1, 0), Member("list", 2, 32)))
    longer = types(INT, Array(1, 1, 8), struct("s", 40, Member("list", 2, 64)))
    shorter = types(INT, Array(1, 1, 2), struct("s", 8, Member("list", 2, 0)))
    assert value(local, longer, K.FIELD_BYTE_OFFSET, 3, "0:1:3", 16) == 20
    assert value(local, shorter, K.FIELD_EXISTS, 3, "0:1:3", 1) == 0
    assert value(local, shorter, K.FIELD_EXISTS, 3, "0:1:1", 1) == 1


def test_an_array_of_unknown_length_at_the_end_has_every_element() -> None:
    local = types(INT, Array(1, 1, 4), struct("s", 16, Member("list", 2, 0)))
    flexible = types(INT, Array(1, 1, 0), struct("s", 8, Member("n", 1, 0), Member("list", 2, 64)))
    inside = types(INT, Array(1, 1, 0), struct("s", 8, Member("list", 2, 0), Member("n", 1, 64)))
    assert value(local, flexible, K.FIELD_BYTE_OFFSET, 3, "0:0:3", 12) == 20
    assert value(local, inside, K.FIELD_EXISTS, 3, "0:0:3", 1) == 0


def test_flavours_of_a_type_stand_for_it() -> None:
    old = types(INT, struct("s___old", 4, Member("b", 1, 0)))
    assert value(old, LOCAL, K.FIELD_BYTE_OFFSET, 2, "0:0", 0) == 4
    assert value(LOCAL, old, K.FIELD_BYTE_OFFSET, 2, "0:1", 4) == 0


def test_flavours_that_disagree_are_ambiguous() -> None:
    two = types(INT, struct("s", 8, Member("b", 1, 0)), struct("s___2", 8, Member("b", 1, 32)))
    with pytest.raises(RejectedError, match="core-ambiguous"):
        value(LOCAL, two, K.FIELD_BYTE_OFFSET, 2, "0:1", 4)


def test_flavours_that_agree_or_lack_the_field_do_not_matter() -> None:
    three = types(
        INT, struct("s", 8, Member("b", 1, 32)), struct("s___2", 16, Member("b", 1, 32)), struct("s___3", 4)
    )
    assert value(LOCAL, three, K.FIELD_BYTE_OFFSET, 2, "0:1", 4) == 4


def test_a_type_of_another_kind_is_no_candidate() -> None:
    union = types(INT, Struct("s", True, 4, (Member("b", 1, 0),)))
    assert value(LOCAL, union, K.FIELD_EXISTS, 2, "0:1", 1) == 0
    assert value(LOCAL, types(Forward("s", False)), K.TYPE_EXISTS, 2, "0", 1) == 0


@pytest.mark.parametrize(
    ("field", "exists"),
    [
        (U64, 1),  # integers of any size and sign
        (Int("odd", 4, 3, bit_offset=5), 0),  # but not old bit fields
        (Pointer(0), 0),
        (Float("float", 4), 0),
        (Enum("e", 4, False, ()), 0),
    ],
)
def test_fields_must_be_of_compatible_types(field: Type, exists: int) -> None:
    target = types(field, struct("s", 8, Member("b", 1, 0)))
    assert value(LOCAL, target, K.FIELD_EXISTS, 2, "0:1", 1) == exists


def test_enums_are_compatible_by_name_and_structs_always() -> None:
    local = types(
        Enum("e", 4, False, ()), struct("in", 4), struct("s", 8, Member("e", 1, 0), Member("n", 2, 32))
    )
    wide = types(
        Enum("e___x", 8, False, (), True),
        Struct("out", True, 8, ()),
        struct("s", 16, Member("e", 1, 0), Member("n", 2, 64)),
    )
    other = types(Enum("f", 4, False, ()), INT, struct("s", 8, Member("e", 1, 0), Member("n", 2, 32)))
    assert value(local, wide, K.FIELD_EXISTS, 3, "0:0", 1) == 1
    assert value(local, wide, K.FIELD_BYTE_OFFSET, 3, "0:1", 4) == 8
    assert value(local, other, K.FIELD_EXISTS, 3, "0:0", 1) == 0
    assert value(local, other, K.FIELD_EXISTS, 3, "0:1", 1) == 0


def test_unsigned_loads_take_the_width_of_the_target() -> None:
    narrow = types(U32, struct("s", 8, Member("b", 1, 32)))
    wide = types(U64, struct("s", 16, Member("b", 1, 64)))
    load, store = "r1 = *(u32 *)(r2 + 4)", "*(u32 *)(r2 + 4) = r1"
    assert patched(load, narrow, wide, K.FIELD_BYTE_OFFSET, 2, "0:0") == assemble("r1 = *(u64 *)(r2 + 8)")[0]
    assert patched(store, narrow, wide, K.FIELD_BYTE_OFFSET, 2, "0:0") == assemble("*(u64 *)(r2 + 8) = r1")[0]
    assert patched("r1 += 4", narrow, wide, K.FIELD_BYTE_OFFSET, 2, "0:0") == assemble("r1 += 8")[0]


def test_signed_loads_of_another_width_are_poisoned() -> None:
    local = types(INT, struct("s", 4, Member("b", 1, 0)))
    wide = types(Int("long", 8, 64, is_signed=True), struct("s", 8, Member("b", 1, 0)))
    asked = CoreRelocation(K.FIELD_BYTE_OFFSET, 2, "0:0")
    after = relocate(program("r1 = *(u32 *)(r2 + 0)", asked), local, wide)
    assert after.insns == (Insn(0x85, imm=POISON_HELPER),)
    assert "8 bytes in the target, not 4" in after.poisoned[0].message


BITS = types(U32, struct("s", 8, Member("low", 1, 0, 3), Member("mid", 1, 3, 7), Member("top", 1, 30, 2)))
MOVED_BITS = types(U32, struct("s", 16, Member("x", 1, 0), Member("mid", 1, 61, 7), Member("low", 1, 33, 3)))


@pytest.mark.parametrize(
    ("kind", "access", "after"),
    [
        (K.FIELD_BYTE_OFFSET, "0:0", 4),
        (K.FIELD_BYTE_SIZE, "0:0", 4),
        (K.FIELD_LSHIFT_U64, "0:0", 64 - (1 + 3)),
        (K.FIELD_RSHIFT_U64, "0:0", 61),
        (K.FIELD_SIGNED, "0:0", 0),
        (K.FIELD_EXISTS, "0:2", 0),
    ],
)
def test_bit_fields_are_read_by_shifting(kind: CoreKind, access: str, after: int) -> None:
    before = {K.FIELD_RSHIFT_U64: 61, K.FIELD_SIGNED: 0, K.FIELD_EXISTS: 1}.get(kind, 99)
    assert value(BITS, MOVED_BITS, kind, 2, access, before) == after


def test_a_bit_field_that_crosses_its_unit_is_read_with_a_wider_load() -> None:
    crossing = types(U32, struct("s", 8, Member("mid", 1, 28, 7)))
    assert value(BITS, crossing, K.FIELD_BYTE_SIZE, 2, "0:1", 99) == 8
    assert value(BITS, crossing, K.FIELD_LSHIFT_U64, 2, "0:1", 99) == 64 - 35


def test_a_bit_field_that_no_load_covers_is_refused() -> None:
    with pytest.raises(RejectedError, match="64 bits"):
        value(BITS, MOVED_BITS, K.FIELD_BYTE_OFFSET, 2, "0:1", 99)


def test_bits_are_counted_from_the_other_end_in_big_endian_programs() -> None:
    asked = CoreRelocation(K.FIELD_LSHIFT_U64, 2, "0:0")
    after = relocate(program("r1 = 99", asked, big_endian=True), BITS, MOVED_BITS)
    assert after.insns[0].imm == 32 + 1


NUMBERS = types(Enum("e", 4, False, (Enumerator("ONE", 1), Enumerator("BIG", 0xFFFF_FFFF))))


def test_enumerators_are_found_by_name() -> None:
    renumbered = types(Enum("e", 8, False, (Enumerator("BIG", 1 << 40), Enumerator("ONE___x", 7)), True))
    assert value(NUMBERS, renumbered, K.ENUMVAL_VALUE, 1, "0", 1) == 7
    assert value(NUMBERS, renumbered, K.ENUMVAL_EXISTS, 1, "1", 1) == 1
    assert patched("r1 = 4294967295 ll", NUMBERS, renumbered, K.ENUMVAL_VALUE, 1, "1").imm == 1 << 40


def test_enumerators_that_are_gone_do_not_exist_and_poison() -> None:
    empty = types(Enum("e", 4, False, ()))
    assert value(NUMBERS, empty, K.ENUMVAL_EXISTS, 1, "0", 1) == 0
    assert value(NUMBERS, empty, K.ENUMVAL_VALUE, 1, "0", 1) == POISON_HELPER


def test_types_are_loosely_compatible_through_pointers_arrays_and_functions() -> None:
    local = types(INT, Pointer(1), Prototype(2, (Parameter("x", 2),)), Typedef("t", 3))
    same = types(U64, Pointer(1), Prototype(2, (Parameter("y", 2),)), Typedef("t", 3))
    fewer = types(U64, Pointer(1), Prototype(2, ()), Typedef("t", 3))
    assert value(local, same, K.TYPE_EXISTS, 4, "0", 1) == 1
    assert value(local, fewer, K.TYPE_EXISTS, 4, "0", 1) == 0


@pytest.mark.parametrize(
    ("member", "matches"),
    [
        ((INT, Qualifier(BtfKind.CONST, 1)), 1),
        ((INT, Typedef("int", 1)), 1),
        ((U32, Typedef("b", 1)), 0),
        ((Int("int", 8, 64, is_signed=True), Typedef("b", 1)), 0),
    ],
)
def test_strict_matching_looks_at_every_member(member: Sequence[Type], matches: int) -> None:
    local = types(INT, struct("s", 4, Member("b", 1, 0)))
    target = types(*member, struct("s", 16, Member("a", 1, 0), Member("b", 2, 64)))
    assert value(local, target, K.TYPE_MATCHES, 2, "0", 1) == matches


def test_strict_matching_takes_structs_behind_pointers_by_name() -> None:
    local = types(INT, struct("in", 4, Member("x", 1, 0)), Pointer(2), struct("s", 8, Member("p", 3, 0)))
    declared = types(Forward("in", False), Pointer(1), struct("s", 8, Member("p", 2, 0)))
    other = types(Forward("out", False), Pointer(1), struct("s", 8, Member("p", 2, 0)))
    assert value(local, declared, K.TYPE_MATCHES, 4, "0", 1) == 1
    assert value(local, other, K.TYPE_MATCHES, 4, "0", 1) == 0


@pytest.mark.parametrize(
    ("text", "kind", "id", "access", "said"),
    [
        ("r1 = 5", K.FIELD_BYTE_OFFSET, 2, "0:1", "holds 5, wanted 4"),
        ("r1 = r2", K.FIELD_BYTE_OFFSET, 2, "0:1", "cannot be relocated"),
        ("r1 = 4", K.FIELD_BYTE_OFFSET, 2, "0:9", "does not fit"),
        ("r1 = 4", K.FIELD_BYTE_OFFSET, 2, "0:0:1", "does not fit"),
        ("r1 = 4", K.FIELD_BYTE_OFFSET, 2, "", "not a list of numbers"),
        ("r1 = 4", K.FIELD_BYTE_OFFSET, 2, "0:-1", "not a list of numbers"),
        ("r1 = 4", K.FIELD_BYTE_OFFSET, 2, ":".join("0" * 65), "65 steps"),
        ("r1 = 4", K.TYPE_SIZE, 2, "0:1", "wanted '0'"),
        ("r1 = 4", K.ENUMVAL_VALUE, 2, "0", "no enumerator"),
        ("r1 = 4", K.FIELD_BYTE_OFFSET, 77, "0:1", "no type 77"),
    ],
)
def test_relocations_that_make_no_sense_are_refused(
    text: str, kind: CoreKind, id: int, access: str, said: str
) -> None:
    with pytest.raises(RejectedError, match=said) as caught:
        patched(text, LOCAL, MOVED, kind, id, access)
    assert caught.value.diagnostics[0].at.insn == 0


def test_an_offset_too_large_for_an_instruction_is_refused() -> None:
    far = types(INT, struct("s", 1 << 20, Member("b", 1, 8 * 40_000)))
    with pytest.raises(RejectedError, match="40000"):
        patched("r1 = *(u32 *)(r2 + 4)", LOCAL, far, K.FIELD_BYTE_OFFSET, 2, "0:1")


def test_types_made_to_take_forever_are_compared_once_each() -> None:
    levels = 30
    doubling: list[Type] = [INT]
    for number in range(levels):
        below = number + 1
        doubling.append(struct(f"s{number}", 8, Member("l", below, 0), Member("r", below, 32)))
    deep = types(*doubling)
    wrong = types(*[U64, *doubling[1:]])
    assert value(deep, deep, K.TYPE_MATCHES, levels + 1, "0", 1) == 1
    assert value(deep, wrong, K.TYPE_MATCHES, levels + 1, "0", 1) == 0


def test_anonymous_types_that_contain_each_other_end() -> None:
    loop = types(
        INT, Struct("", True, 8, (Member("", 2, 0), Member("", 2, 0))), struct("s", 8, Member("", 2, 0))
    )
    assert value(LOCAL, loop, K.FIELD_EXISTS, 2, "0:1", 1) == 0


@pytest.mark.parametrize("name", ["everything.o", "everything.eb.o"])
def test_a_program_fitted_to_its_own_types_does_not_change(name: str) -> None:
    found = read_object((OBJECTS / name).read_bytes(), name)
    assert found.btf is not None
    asked = found.programs["core"]
    others = {
        K.TYPE_SIZE,
        K.FIELD_LSHIFT_U64,
    }  # flavours differ in size; clang and libbpf differ about the shift
    kept = {slot: relocation for slot, relocation in asked.core.items() if relocation.kind not in others}
    after = relocate(replace(asked, core=kept), found.btf, found.btf)
    assert after.insns == asked.insns


KERNEL = Path("/sys/kernel/btf/vmlinux")


@pytest.mark.skipif(not KERNEL.exists(), reason="the running kernel has no BTF")
def test_the_running_kernel_has_what_the_sample_asks_for() -> None:
    found = read_object((OBJECTS / "everything.o").read_bytes(), "everything.o")
    assert found.btf is not None
    asked = found.programs["core"]
    after = relocate(asked, found.btf, read_btf(KERNEL.read_bytes()))
    assert {problem.message for problem in after.poisoned.values()} <= {
        "the target has no field 'task_struct___old.state'",
        "the target has no value 'state.STOPPED'",
        "the target has no field 'task_struct.kind'",
    }
    pid = next(slot for slot, r in asked.core.items() if r.access == "0:0" and r.kind is K.FIELD_BYTE_OFFSET)
    assert after.insns[after.starts.index(pid)].offset > 100
