"""The control flow of a function, derived once: its blocks in order, and who follows whom."""

from __future__ import annotations

from typing import final

from ir.core import Block, Function


@final
class Flow:
    """Of the reachable blocks: `order` is reverse postorder, `number` the place of each in it.

    `entering` are the sources of the edges into each block, one for each edge.
    """

    __slots__ = ("entering", "function", "number", "order", "successors")

    def __init__(self, function: Function) -> None:
        self.function = function
        self.order = order = function.reverse_postorder()
        self.number = {block: number for number, block in enumerate(order)}
        self.successors: dict[Block, tuple[Block, ...]] = {}
        self.entering: dict[Block, list[Block]] = {block: [] for block in order}
        for block in order:
            self.successors[block] = following = block.successors()
            for successor in following:
                self.entering[successor].append(block)
