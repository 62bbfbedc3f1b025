"""Which values are still needed at the start of each block.

A state keeps facts about these only. Registers are few, so the sets are small and states stay cheap to copy
and to join. Whoever asks about more than the operands of an instruction says so with `asked`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ir.core import Alu, Block, Branch, Const, Inst, Jump, Load, Store, Terminator, Value, operands
from ir.verify.flow import Flow

Asked = Callable[[Inst | Terminator], Iterable[Value]]
"""The values that somebody asks about when an instruction is checked, all of which dominate it."""


def live_values(flow: Flow, asked: Asked = operands) -> dict[Block, set[Value]]:
    """The values live at the start of each block, without its own parameters."""
    live: dict[Block, set[Value]] = {}
    made: dict[Block, set[Value]] = {}
    work: list[Block] = []
    for block in reversed(flow.order):
        used, own = _summary(block, asked)
        for successor in flow.successors[block]:
            above = live.get(successor)
            if above is None:
                work.append(successor)  # a way back: what is live there is not known yet
            elif above:
                used |= above
        used -= own
        live[block] = {value for value in used if type(value) is not Const} if used else used
        made[block] = own
    while work:
        block = work.pop()
        for previous in flow.entering[block]:
            new = live[block] - live[previous] - made[previous]
            if new:
                live[previous] |= new
                work.append(previous)
    return live


def _summary(block: Block, asked: Asked) -> tuple[set[Value], set[Value]]:
    """The values that a block uses, and those it makes, all of them before they are used."""
    used: set[Value] = set()
    add = used.add
    is_plain = asked is operands
    for inst in block.insts:
        if not is_plain:
            used.update(asked(inst))
        elif type(inst) is Alu:  # as `operands` has it, without the calls
            add(inst.x)
            add(inst.y)
        elif type(inst) is Load:
            add(inst.base)
        elif type(inst) is Store:
            add(inst.base)
            add(inst.value)
        elif type(inst) is not Const:
            used.update(operands(inst))
    terminator = block.terminator
    if is_plain and type(terminator) is Branch:
        used.update((terminator.x, terminator.y), terminator.taken.args, terminator.other.args)
    elif is_plain and type(terminator) is Jump:
        used.update(terminator.edge.args)
    else:
        used.update(asked(terminator))
    return used, {*block.params, *block.insts}
