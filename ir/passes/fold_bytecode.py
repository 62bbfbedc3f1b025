"""`fold-bytecode`: put what read-only data and arithmetic make constant into the instructions. Works on bytecode.

    r1 = map_value(0, 4)                  r1 = map_value(0, 4)      now dead
    r2 = *(u32 *)(r1 + 0)          ->     r2 = 7
    if r2 == 0 goto +1                                              never taken: gone
    call 999                              call 999

`ir/constants.py` decides on the SSA form of each function by itself, so that a function that two programs share
comes out the same. What the loader has yet to fill in (`opaque` slots: CO-RE relocations) is no constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ir.algebra import signed
from ir.bytecode import Rewritten, rewrite
from ir.constants import Constants
from ir.context import ContextLayout
from ir.core import Alu, Branch, Load
from ir.isa import ROW_BY_NAME, S32, Insn
from ir.lift import lift
from ir.object import Map, Program
from ir.passes.hardwire_branches import hardwire_branches

_MOV64: Final = ROW_BY_NAME["mov64 imm"].opcode
_MOV32: Final = ROW_BY_NAME["mov32 imm"].opcode


def fold_bytecode(program: Program, maps: Mapping[str, Map], context: ContextLayout) -> Rewritten:
    """`program` with constants in place of what always is one, without the code that they rule out.

    Raises RejectedError for a program whose structure is not sound.
    """
    opaque = frozenset(program.core)
    at = dict(zip(program.starts, program.insns, strict=False))
    decided: dict[int, bool] = {}
    folded: dict[int, Insn] = {}
    for function in lift(program, maps, context).functions.values():
        constants = Constants(function, maps, opaque)
        for block in function.blocks:
            if not constants.is_reached(block):
                continue
            if type(block.terminator) is Branch:
                is_taken = constants.decision(block.terminator)
                if is_taken is not None:
                    decided[block.terminator.at] = is_taken
            for inst in block.insts:
                value = constants.facts.get(inst) if type(inst) is Alu or type(inst) is Load else None
                mov = _move(at[inst.at].dst, value) if type(value) is int else None
                if mov is not None:
                    folded[inst.at] = mov
    changed = {slot: (mov,) for slot, mov in folded.items() if at[slot] != mov}
    done = rewrite(program, changed)
    places = {done.moved[slot]: is_taken for slot, is_taken in decided.items()}
    wired = hardwire_branches(
        done.program, {slot: taken for slot, taken in places.items() if slot is not None}
    )
    return done.then(wired)


def _move(register: int, value: int) -> Insn | None:
    """One instruction that loads a 64-bit value; None when there is none."""
    if signed(64, value) in S32:
        return Insn(_MOV64, register, imm=signed(64, value))
    if value < 1 << 32:
        return Insn(_MOV32, register, imm=signed(32, value))
    return None
