"""Which values are still needed at the start of each block.

A state keeps facts about these only. Registers are few, so the sets are small and states stay cheap to copy
and to join. Whoever asks about more than the operands of an instruction says so with `asked`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ir.core import Block, Const, Function, Inst, Terminator, Value, operands

Asked = Callable[[Inst | Terminator], Iterable[Value]]
"""The values that somebody asks about when an instruction is checked, all of which dominate it."""


def live_values(
    function: Function, order: list[Block], asked: Asked = operands
) -> dict[Block, frozenset[Value]]:
    """The values live at the start of each block of `order`, without its own parameters."""
    summaries = {block: _summary(block, asked) for block in order}
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


def _summary(block: Block, asked: Asked) -> tuple[set[Value], set[Value]]:
    """The values a block uses from outside, and those it makes."""
    used: set[Value] = set(asked(block.terminator))
    for inst in block.insts:
        used.update(asked(inst))
    made: set[Value] = {*block.params, *block.insts}  # all of them before they are used
    return {value for value in used - made if type(value) is not Const}, made
