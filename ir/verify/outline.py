"""What the explorer needs of a function and finds once: the order of its blocks, live values, loops, counters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import final

from ir.core import Block, Function, Param, Value, operands
from ir.verify.flow import Flow
from ir.verify.induction import Induction
from ir.verify.liveness import Asked, live_values
from ir.verify.loops import Loops


@final
class Outline:
    """Of one function."""

    def __init__(self, function: Function, asked: Asked = operands) -> None:
        flow = Flow(function)
        self.order, self.number = flow.order, flow.number
        self.live = live_values(flow, asked)
        self.loops = Loops(flow)
        self.ways_in: dict[Block, int] = {block: len(ways) for block, ways in flow.entering.items()}
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
        self._last_return = _last_returns(flow)
        self._own: dict[Block, set[Value]] = {}
        self._slots: dict[tuple[object, int], Param] = {}
        self._made: dict[Block, list[tuple[int, Param]]] = {}

    def is_final(self, block: Block) -> bool:
        """Whether nothing arrives at `block` once all blocks before it have been walked, and they will not be again."""
        place = self.number[block]
        return not self._last_return or self._last_return[place] < place

    def own(self, block: Block) -> set[Value]:
        """The symbols that a block makes: its parameters, at the head of a loop all that the loop makes, and slots."""
        found = self._own.get(block)
        if found is None:
            found = self._own[block] = self.loops.renewed(block)
        return found

    def slot(self, block: Block, offset: int) -> Param:
        """What stands for the value that the ways into `block` keep at a stack offset."""
        symbol = self._slots.get((block, offset))
        if symbol is None:
            symbol = self._slots[block, offset] = Param(-1)
            self.own(block).add(symbol)
            self._made.setdefault(block, []).append((offset, symbol))
        return symbol

    def slots_made(self, block: Block) -> Sequence[tuple[int, Param]]:
        """The stack offsets that have a symbol at `block`, and the symbols."""
        return self._made.get(block, ())

    def slots_of(self, block: Block) -> partial[Param]:
        """`slot` for one block."""
        return partial(self.slot, block)


def _last_returns(flow: Flow) -> list[int]:
    """For each place in the order the last one from which a back-edge leads to it or before; nothing without loops."""
    if not flow.back:
        return []
    last, found = -1, []
    for block in flow.order:
        for latch in flow.back.get(block, ()):
            last = max(last, flow.number[latch])
        found.append(last)
    return found
