"""What the explorer needs of a function and finds once: the order of its blocks, live values, loops, counters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import final

from ir.core import Block, Function, Param, Value, operands
from ir.verify.induction import Induction
from ir.verify.liveness import Asked, live_values
from ir.verify.loops import Loops


@final
class Outline:
    """Of one function."""

    def __init__(self, function: Function, asked: Asked = operands) -> None:
        self.function = function
        self.order = function.reverse_postorder()
        self.number = {block: number for number, block in enumerate(self.order)}
        self.live = live_values(function, self.order, asked)
        self.loops = Loops(function, self.order)
        self.ways_in: dict[Block, int] = dict.fromkeys(self.order, 0)
        for block in self.order:
            for successor in block.successors():
                self.ways_in[successor] += 1
        self.inductions = {
            head: Induction(loop, self.loops.dominators)
            for head, loop in self.loops.heads.items()
            if loop.is_natural
        }
        for loop in self.loops.heads.values():
            counters = loop.counters() | loop.stepped()
            for block in loop.blocks if counters else ():
                if block is not loop.head:
                    self.live[block] |= counters
        self.own: dict[Block, set[Value]] = {block: self.loops.renewed(block) for block in self.order}
        self._slots: dict[tuple[object, int], Param] = {}
        self._made: dict[Block, list[tuple[int, Param]]] = {}

    def slot(self, block: Block, offset: int) -> Param:
        """What stands for the value that the ways into `block` keep at a stack offset."""
        symbol = self._slots.get((block, offset))
        if symbol is None:
            symbol = self._slots[block, offset] = Param(-1)
            self.own[block].add(symbol)
            self._made.setdefault(block, []).append((offset, symbol))
        return symbol

    def slots_made(self, block: Block) -> Sequence[tuple[int, Param]]:
        """The stack offsets that have a symbol at `block`, and the symbols."""
        return self._made.get(block, ())

    def slots_of(self, block: Block) -> partial[Param]:
        """`slot` for one block."""
        return partial(self.slot, block)
