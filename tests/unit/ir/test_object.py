"""What a program says of itself."""

from __future__ import annotations

from dataclasses import replace

from ir.isa import Insn
from ir.kinds import ProgramType
from ir.object import FunctionInfo, Program, Reference, ReferenceKind

INSNS = (Insn(0x18, 1, 0, 0, 7), Insn(0xB7, 0, 0, 0, -1), Insn(0x95))
PROGRAM = Program("p", "xdp", ProgramType.XDP, INSNS, (FunctionInfo("p", 0, 4, is_global=True),))


def test_programs_of_one_digest_have_one_code() -> None:
    load, move, leave = INSNS
    others = [
        replace(PROGRAM, insns=insns)
        for insns in (
            (load._replace(imm=1 << 63), move, leave),
            (load._replace(imm=8), move, leave),
            (load._replace(src=1), move, leave),
            (load, move._replace(imm=0), leave),
            (load, move._replace(dst=2), leave),
            (load, move._replace(opcode=0xB4), leave),
            (load, move._replace(offset=8), leave),
            (move, load, leave),
            (load, move),
            (),
        )
    ]
    map_ = Reference(ReferenceKind.MAP, "m")
    others += [
        replace(PROGRAM, type=ProgramType.UNSPEC),
        replace(PROGRAM, big_endian=True),
        replace(PROGRAM, functions=(FunctionInfo("p", 0, 4, is_global=False),)),
        replace(PROGRAM, references={0: map_}),
        replace(PROGRAM, references={0: replace(map_, name="n")}),
        replace(PROGRAM, references={2: map_}),
        replace(PROGRAM, tokens={1: 0}),
    ]
    digests = {each.digest for each in (PROGRAM, *others)}
    assert len(digests) == 1 + len(others)


def test_the_digest_of_a_program_does_not_tell_where_it_came_from() -> None:
    map_ = Reference(ReferenceKind.MAP, "m")
    one = replace(PROGRAM, references={0: map_, 2: map_}, file="a.o", section="xdp.frags")
    other = replace(PROGRAM, references={2: map_, 0: map_})
    assert one.digest == other.digest
