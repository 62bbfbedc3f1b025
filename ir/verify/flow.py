"""The control flow of a function, derived once: its blocks in order, and who follows whom."""

from __future__ import annotations

from typing import final

from ir.core import Block, Function


@final
class Flow:
    """Of the reachable blocks: `order` is reverse postorder, `number` the place of each in it.

    `entering` are the sources of the edges into each block, one for each edge; `back` those of the edges that lead to
    where the walk has been, each source once.
    """

    __slots__ = ("back", "entering", "function", "number", "order", "successors")

    def __init__(self, function: Function) -> None:
        self.function = function
        self.order = order = function.reverse_postorder()
        self.number = number = {block: place for place, block in enumerate(order)}
        self.successors: dict[Block, tuple[Block, ...]] = {}
        self.entering: dict[Block, list[Block]] = {block: [] for block in order}
        self.back: dict[Block, list[Block]] = {}
        for place, block in enumerate(order):
            self.successors[block] = following = block.successors()
            for successor in following:
                self.entering[successor].append(block)
                if number[successor] <= place:
                    latches = self.back.setdefault(successor, [])
                    if block not in latches[-1:]:
                        latches.append(block)
