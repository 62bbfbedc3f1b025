"""Static branches that are off, sprinkled over a program: whatever is compiled must do the same with them.

    block b:                    block b:
      x = ...                     x = ...
      y = ...           ->        nop_or_goto: block cold else block rest        (or goto_or_nop, the other way round)
      return y                  block rest:            block cold:
                                  y = ...                return 57005
                                  return y

This is a transform of the SSA form, so that slots, lines and locations of the program stay as they are; the
branches get numbers of their own, which are keys of no instruction.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from random import Random
from typing import Final, final

from ir.core import Block, Const, Edge, Function, Jump, Module, Return, StaticBranch, Terminator
from ir.isa import ROW_BY_NAME

FIRST_KEY: Final = 1 << 24  # more than a program has slots
WRONG: Final = 57005
_MOST: Final = 8  # in one function


@final
@dataclass(frozen=True, slots=True)
class SprinkledFirst:
    """Which branches jump first: of the sprinkled ones those with odd keys, of the others `own`."""

    own: Container[int]

    def __contains__(self, key: object) -> bool:
        if isinstance(key, int) and key >= FIRST_KEY:
            return bool(key & 1)
        return key in self.own


def sprinkle(module: Module, random: Random, *, is_harmless: bool = False) -> int:
    """Put branches to cold code into every function; how many. Cold code returns a wrong result, or, harmless, nothing.

    Harmless ones are for who reads all ways through a program, such as the verifier.
    """
    key = FIRST_KEY
    for function in module.functions.values():
        wrong = WRONG
        if function is module.main and module.context.returns is not None:
            wrong = module.context.returns[1]
        places = [(block, position) for block in function.blocks for position in range(len(block.insts) + 1)]
        chosen = random.sample(range(len(places)), min(len(places), random.randint(1, _MOST)))
        for number in sorted(
            chosen, reverse=True
        ):  # from the back: a block's earlier places stay as they are
            _split(function, *places[number], key, random.random() < 0.5, None if is_harmless else wrong)
            key += 2
    return (key - FIRST_KEY) // 2


def _split(
    function: Function, block: Block, position: int, key: int, jumps_first: bool, wrong: int | None
) -> None:
    """Put a static branch before instruction `position` of a block."""
    rest, cold = Block(block.start), Block(block.start)
    rest.insts, block.insts = block.insts[position:], block.insts[:position]
    rest.terminator = block.terminator
    cold.terminator = _leave(cold, rest, wrong)
    on, off = Edge(cold), Edge(rest)
    key += jumps_first
    row = ROW_BY_NAME["goto_or_nop" if jumps_first else "nop_or_goto"]
    taken, other = (off, on) if jumps_first else (on, off)
    block.terminator = StaticBranch(row, taken, other, jumps_first, key)
    at = function.blocks.index(block) + 1
    function.blocks[at:at] = [rest, cold]


def _leave(cold: Block, rest: Block, wrong: int | None) -> Terminator:
    if wrong is None:
        return Jump(Edge(rest), rest.start)
    result = Const(wrong, rest.start)
    cold.insts = [result]
    return Return(result, rest.start)
