"""Bytecode without the code that decided branches rule out, for dumps and for the kernel.

    r1 = map_value(0, 4)                  r1 = map_value(0, 4)
    r2 = *(u32 *)(r1 + 0)                 r2 = *(u32 *)(r1 + 0)
    if r2 == 0 goto +1             ->     exit
    call 999
    exit

What `fold-rodata` decided on the SSA form is done here as Linux does (opt_hard_wire_dead_code_branches): a
decided branch becomes a jump or goes, what nothing reaches goes, functions and C lines follow. Static
branches and may_goto go both ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ir.bytecode import Rewritten, rewrite
from ir.functions import called_slot
from ir.isa import ROW_BY_NAME, Insn, Kind, jump_distance, row_of
from ir.object import Program
from ir.passes.remove_nops import remove_nops

_JA: Final = ROW_BY_NAME["ja"].opcode


def hardwire_branches(program: Program, decided: Mapping[int, bool]) -> Rewritten:
    """`program` without what is unreachable once the branches at `decided` slots are taken, or are not."""
    insns = list(program.insns)
    reached = _reached(program, decided)
    removed: list[int] = []
    for number, slot in enumerate(program.starts[:-1]):
        if slot not in reached or decided.get(slot) is False:
            removed.append(slot)
        elif slot in decided:
            insns[number] = Insn(_JA, offset=insns[number].offset)
    wired = replace(program, insns=tuple(insns))
    smaller = rewrite(wired, dict.fromkeys(removed, ()))
    return smaller.then(remove_nops(smaller.program))


def _reached(program: Program, decided: Mapping[int, bool]) -> set[int]:
    """The slots that some path from the start of main leads to, through calls and function addresses too."""
    insns = dict(zip(program.starts, program.insns, strict=False))
    reached: set[int] = set()
    work = [program.functions[0].start]
    while work:
        slot = work.pop()
        if slot in reached:
            continue
        reached.add(slot)
        work += _successors(slot, insns[slot], decided.get(slot))
    return reached


def _successors(slot: int, insn: Insn, is_taken: bool | None) -> list[int]:
    row = row_of(insn)
    following = slot + insn.slots
    match row.kind:
        case Kind.EXIT:
            return []
        case Kind.JUMP:
            return [slot + 1 + jump_distance(row, insn)]
        case Kind.BRANCH | Kind.STATIC_BRANCH | Kind.MAY_GOTO:
            target = slot + 1 + jump_distance(row, insn)
            if row.kind is not Kind.BRANCH or is_taken is None:
                return [following, target]
            return [target if is_taken else following]
        case _:
            called = called_slot(insn, slot)
            return [following] if called is None else [following, called]
