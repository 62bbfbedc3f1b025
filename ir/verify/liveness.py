"""Which values are still needed at the start of each block.

A state keeps facts about these only. Registers are few, so the sets are small and states stay cheap to copy
and to join.
"""

from __future__ import annotations

from ir.core import Block, Const, Function, Value, operands


def live_values(function: Function, order: list[Block]) -> dict[Block, frozenset[Value]]:
    """The values live at the start of each block of `order`, without its own parameters."""
    summaries = {block: _summary(block) for block in order}
    live: dict[Block, set[Value]] = {block: set(summaries[block][0]) for block in order}
    entering: dict[Block, list[Block]] = {block: [] for block in order}
    for block in order:
        for successor in block.successors():
            entering[successor].append(block)
    work = list(order)
    queued = set(order)
    while work:
        block = work.pop()
        queued.discard(block)
        above = live[block]
        for previous in entering[block]:
            new = above - live[previous] - summaries[previous][1]
            if new:
                live[previous] |= new
                if previous not in queued:
                    queued.add(previous)
                    work.append(previous)
    return {block: frozenset(values) for block, values in live.items()}


def _summary(block: Block) -> tuple[set[Value], set[Value]]:
    """The values a block uses from outside, and those it makes."""
    made: set[Value] = set(block.params)
    used: set[Value] = set()
    for item in (*block.insts, block.terminator):
        for value in operands(item):
            if value not in made and not isinstance(value, Const):
                used.add(value)
        made.add(item)  # type: ignore[arg-type]  # a terminator is no value and nobody's operand
    return used, made
