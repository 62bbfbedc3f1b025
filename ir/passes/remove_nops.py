"""`remove-nops`: remove instructions that jump to the next one. Works on bytecode, before lifting.

    goto +1                    r0 = 1
    goto +0             ->     nop_or_goto +0
    r0 = 1                     exit
    nop_or_goto +0
    exit

As the kernel's opt_remove_nops (kernel/bpf/verifier.c): a nop is `goto +0`, the whole instruction compared,
so that a static branch +0 stays, or `may_goto +0`. Beyond it, a jump over nothing but nops is one too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

from ir.bytecode import Rewritten, rewrite, unchanged
from ir.isa import ROW_BY_NAME, Insn
from ir.object import Program

_NOPS: Final = frozenset(Insn(ROW_BY_NAME[name].opcode) for name in ("ja", "may_goto"))


@final
@dataclass(frozen=True, slots=True)
class RemoveNops:
    """Remove every nop."""

    name: ClassVar[str] = "remove-nops"
    summary: ClassVar[str] = "remove jumps to the next instruction (bytecode)"

    def rewrite(self, program: Program) -> Rewritten:
        """`program` without nops."""
        return remove_nops(program)


def remove_nops(program: Program) -> Rewritten:
    """`program` without nops."""
    nops: list[int] = []
    starts = program.starts
    kept = starts[-1]  # the first slot from here on that stays
    for number in range(len(program.insns) - 1, -1, -1):
        slot, insn = starts[number], program.insns[number]
        reached = slot + 1 + insn.offset
        if insn._replace(offset=0) in _NOPS and slot < reached <= kept:
            nops.append(slot)
        else:
            kept = slot
    return rewrite(program, dict.fromkeys(nops, ())) if nops else unchanged(program)
