"""Rewriting bytecode: jumps, functions, lines and tracked slots stay right."""

from __future__ import annotations

import pytest

from ir.asm import assemble, disassemble
from ir.btf_ext import CoreKind, CoreRelocation
from ir.bytecode import Rewritten, rewrite
from ir.diagnostics import RejectedError, SourceLine
from ir.functions import discover_functions
from ir.isa import ROW_BY_NAME, Insn
from ir.kinds import ProgramType
from ir.object import Program, Reference, ReferenceKind
from ir.passes.hardwire_branches import hardwire_branches
from ir.passes.remove_nops import remove_nops

NOP = Insn(ROW_BY_NAME["ja"].opcode)


def make(text: str) -> Program:
    insns = assemble(text)
    return Program("main", "", ProgramType.UNSPEC, insns, discover_functions(insns, "main"))


def listing(rewritten: Rewritten) -> list[str]:
    return [line.strip() for line in disassemble(rewritten.program.insns).splitlines()]


def line(number: int) -> SourceLine:
    return SourceLine("a.c", number, 1)


def test_a_replacement_moves_what_follows_and_stays_on_its_first_instruction() -> None:
    program = make("r0 = 0\nr0 = 1\nr0 = 2\nr0 = 3\nr0 = 4\nexit")
    three = assemble("r1 = 1\nr1 = 2\nr1 = 3")
    assert rewrite(program, {1: three, 3: three}).moved == (0, 1, 4, 5, 8, 9)


def test_removed_nops_are_tracked_as_removed() -> None:
    program = make("r0 = 0\ngoto +0\nr0 = 2\ngoto +0\nr0 = 4\nexit")
    assert remove_nops(program).moved == (0, None, 1, None, 2, 3)


def test_static_branches_over_nothing_stay() -> None:
    done = remove_nops(
        make("goto +0\nnop_or_goto +0\ngoto_or_nop +0\nnop_or_gotol +0\ngotol +0\nr0 = 0\nexit")
    )
    assert listing(done) == [
        "0: nop_or_goto +0",
        "1: goto_or_nop +0",
        "2: nop_or_gotol +0",
        "3: gotol +0",
        "4: r0 = 0",
        "5: exit",
    ]


def test_a_jump_over_nops_is_a_nop() -> None:
    assert listing(remove_nops(make("goto +2\ngoto +0\nmay_goto +0\nr0 = 0\nexit"))) == [
        "0: r0 = 0",
        "1: exit",
    ]


def test_a_jump_back_is_no_nop() -> None:
    program = make("r0 = 0\nr0 += 1\nif r0 != 5 goto -2\ngoto +1\nr0 = 7\nexit")
    assert remove_nops(program).program == program


def test_jumps_calls_and_addresses_find_their_targets_again() -> None:
    program = make(
        """
        if r1 == 0 goto out
        goto +0
        r1 = 7 ll
        call f
        r2 = func(g)
    out:
        r0 = 0
        goto +0
        exit
    f:
        goto +0
        r0 = 1
        exit
    g:
        r0 = 2
        exit
        """
    )
    done = remove_nops(program)
    assert listing(done) == [
        "0: if r1 == 0 goto +5",
        "1: r1 = 0x7 ll",
        "3: call pc+4",
        "4: r2 = func(pc+5)",
        "6: r0 = 0",
        "7: exit",
        "8: r0 = 1",
        "9: exit",
        "10: r0 = 2",
        "11: exit",
    ]
    assert [(info.name, info.start, info.slots) for info in done.program.functions] == [
        ("main", 0, 8),
        ("subprog_1", 8, 2),
        ("subprog_2", 10, 2),
    ]
    assert done.moved[:7] == (0, None, 1, 2, 3, 4, 5)


def test_records_follow_their_instructions_or_go_with_them() -> None:
    insns = assemble("r1 = map_fd(0)\ngoto +0\nr2 = func(f)\nr0 = 0\nexit\nf: r0 = 1\nexit")
    core = CoreRelocation(CoreKind.FIELD_EXISTS, 1, "0")
    program = Program(
        "main",
        "",
        ProgramType.UNSPEC,
        insns,
        discover_functions(insns, "main"),
        references={
            0: Reference(ReferenceKind.MAP, "m"),
            3: Reference(ReferenceKind.FUNCTION, "subprog_1", 7),
        },
        core={2: core, 5: core},
    )
    done = remove_nops(program).program
    assert done.references == {
        0: Reference(ReferenceKind.MAP, "m"),
        2: Reference(ReferenceKind.FUNCTION, "subprog_1", 6),
    }
    assert done.core == {4: core}


def test_the_line_of_a_removed_instruction_moves_to_the_next_unless_that_begins_another() -> None:
    insns = assemble("goto +0\nr0 = 0\ngoto +0\nr0 = 1\nr0 = 2\nexit")
    lines = {0: line(1), 2: line(2), 3: line(3), 4: line(4)}
    program = Program("main", "", ProgramType.UNSPEC, insns, discover_functions(insns, "main"), lines=lines)
    assert remove_nops(program).program.lines == {0: line(1), 1: line(3), 2: line(4)}


def test_a_line_does_not_move_into_another_function() -> None:
    insns = assemble("call pc+2\nexit\nr5 = 1\nr0 = 1\nexit")
    lines = {0: line(1), 2: line(2)}
    program = Program("main", "", ProgramType.UNSPEC, insns, discover_functions(insns, "main"), lines=lines)
    assert rewrite(program, {2: ()}).program.lines == {0: line(1)}


def test_a_distance_that_no_longer_fits_is_refused() -> None:
    program = make("if r1 == 0 goto +1\nr0 = 0\nexit")
    with pytest.raises(RejectedError, match="'jeq64 imm' would have to jump 40000 slots"):
        rewrite(program, {1: [NOP] * 40000})


def test_hardwiring_removes_branches_dead_code_and_functions_only_called_there() -> None:
    program = make(
        """
        r0 = 0
        if r1 == 0 goto skip
        call f
    skip:
        if r1 == 1 goto out
        r0 = 1
    out:
        exit
    f:
        call g
        exit
    g:
        r0 = 0
        exit
        """
    )
    done = hardwire_branches(program, {1: True, 3: False})
    assert listing(done) == ["0: r0 = 0", "1: r0 = 1", "2: exit"]
    assert [info.name for info in done.program.functions] == ["main"]
    assert done.moved == (0, None, None, None, 1, 2, None, None, None, None)


def test_hardwiring_never_decides_static_branches_and_may_goto() -> None:
    text = "nop_or_goto +1\nmay_goto +1\nr0 = 1\nr0 = 2\nexit"
    program = make(text)
    assert hardwire_branches(program, {}).program == program


def test_a_reference_follows_its_instruction_into_a_patch() -> None:
    insns = assemble("r1 = map_fd(0)\nr0 = 0\nexit")
    references = {0: Reference(ReferenceKind.MAP, "m")}
    program = Program(
        "main", "", ProgramType.UNSPEC, insns, discover_functions(insns, "main"), references=references
    )
    patched = rewrite(program, {0: (NOP, insns[0], NOP)})
    assert patched.program.references == {1: references[0]}
    assert patched.moved == (0, 2, 4, 5)
    assert rewrite(program, {0: (NOP,)}).program.references == {}


def test_of_replacements_that_look_alike_the_last_is_the_instruction_itself() -> None:
    jump, nop = Insn(0x05, offset=1), Insn(0xB7, 0, 0, 0, 9)
    text = "goto +1\nr0 = 1\nr0 = 2\nexit"
    insns = assemble(text)
    program = Program("main", "", ProgramType.UNSPEC, insns, discover_functions(insns, "main"))
    assert insns[0] == jump
    after = rewrite(program, {0: (jump, nop, jump), 1: (nop, insns[1])}).program.insns
    assert [insn.offset for insn in after if insn.opcode == 0x05] == [1, 2]
