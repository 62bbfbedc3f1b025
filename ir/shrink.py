"""Bytecode for a loader to load, as short as what is known of the program makes it.

    fold constants -> thread jumps -> shorten extensions -> remove dead instructions -> remove nops, and again

Registers and the order of instructions stay: a compiler has chosen them for BPF already, and what a verifier once
accepted it should accept again (docs/decisions/0011-bpf-output.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from ir.bytecode import Rewritten, unchanged
from ir.context import Argument, ContextLayout, layout_of
from ir.kinds import ProgramType
from ir.object import Map, Program
from ir.passes.clean_bytecode import remove_dead_insns, shorten_extensions, thread_jumps
from ir.passes.fold_bytecode import fold_bytecode
from ir.passes.hardwire_branches import hardwire_branches
from ir.passes.remove_nops import remove_nops

MOST_ROUNDS: Final = 8


def shrink(program: Program, maps: Mapping[str, Map]) -> Rewritten:
    """A shorter program that does the same with the content that `maps` have now. Raises RejectedError."""
    context = _context(program)
    steps: tuple[Callable[[Program], Rewritten], ...] = (
        lambda each: fold_bytecode(each, maps, context),
        thread_jumps,
        lambda each: hardwire_branches(each, {}),
        lambda each: shorten_extensions(each, context),
        lambda each: remove_dead_insns(each, context),
        remove_nops,
    )
    done = unchanged(program)
    for _ in range(MOST_ROUNDS):
        before = done.program.insns
        for step in steps:
            done = done.then(step(done.program))
        if done.program.insns == before:
            break
    return done


def _context(program: Program) -> ContextLayout:
    """What the program starts with; an extension with as many arguments as its type says."""
    layout = layout_of(program.type)
    if program.type is not ProgramType.EXT:
        return layout
    return replace(layout, entry=(Argument.NUMBER,) * program.functions[0].parameters)
