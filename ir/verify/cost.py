"""How long a program may run: bounds on loop trips multiplied through loops and calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ir.callees import callees_of, functions_taken
from ir.core import Block, Call, Function, Module
from ir.helpers import ArgumentKind, helper_by_id
from ir.isa import Callee
from ir.verify.flow import Flow
from ir.verify.loops import Loops
from ir.verify.refusal import Refused

# A program may run this many instructions without spending fuel; a loop inside an unbounded one, this many.
COST_LIMIT: Final = 1 << 33
INNER_COST_LIMIT: Final = 1 << 14
_UNBOUNDED: Final = 1 << 80
_CALLBACK_TRIPS: Final = 1 << 23


def loops_without_fuel(module: Module, trips: Mapping[Block, int]) -> set[Block]:
    """Heads of the loops that need no fuel: all when the program surely ends soon, else the short ones."""
    costs: dict[str, int] = {}
    loop_costs: dict[Block, int] = {}
    for name in order_callees_first(module):
        costs[name] = _function_cost(module, module.functions[name], costs, trips, loop_costs)
    everything = costs[module.main.name] <= COST_LIMIT
    return {head for head in trips if everything or loop_costs.get(head, _UNBOUNDED) <= INNER_COST_LIMIT}


def _function_cost(
    module: Module,
    function: Function,
    costs: dict[str, int],
    trips: Mapping[Block, int],
    loop_costs: dict[Block, int],
) -> int:
    """Instructions that one call of `function` runs at most; `loop_costs` gets those of each loop."""
    flow = Flow(function)
    try:
        loops = Loops(flow)
    except Refused:  # for loops too deep in each other
        return _UNBOUNDED
    within: dict[Block | None, int] = {None: 0}
    for block in flow.order:
        cost = len(block.insts) + 1
        for inst in block.insts:
            if isinstance(inst, Call):
                cost += _call_cost(module, inst, costs)
        loop = loops.innermost.get(block)
        head = loop.head if loop is not None else None
        within[head] = min(within.get(head, 0) + cost, _UNBOUNDED)
    for loop in reversed(loops.heads.values()):
        bound = trips.get(loop.head, _UNBOUNDED)
        loop_costs[loop.head] = min((bound + 1) * within.get(loop.head, 0), _UNBOUNDED)
        outside = loop.parent.head if loop.parent is not None else None
        within[outside] = min(within.get(outside, 0) + loop_costs[loop.head], _UNBOUNDED)
    return within[None]


def _call_cost(module: Module, call: Call, costs: dict[str, int]) -> int:
    if call.callee is Callee.SUBPROGRAM and isinstance(call.target, str):
        return costs.get(call.target, _UNBOUNDED)
    callbacks = _callbacks(module, call)
    if call.callee is Callee.INDIRECT:
        return _UNBOUNDED
    return min(
        max((costs.get(name, _UNBOUNDED) for name in callbacks), default=0) * _CALLBACK_TRIPS, _UNBOUNDED
    )


def _callbacks(module: Module, call: Call) -> list[str]:
    """The functions that a call may run besides the one it names."""
    if call.callee is Callee.SUBPROGRAM:
        return []
    if call.callee is Callee.HELPER and isinstance(call.target, int):
        helper = helper_by_id(call.target, module.program.type)
        if helper is not None and all(a.kind is not ArgumentKind.FUNCTION for a in helper.arguments):
            return []
    return functions_taken(module)


def order_callees_first(module: Module) -> list[str]:
    """The names of the functions, callees before callers."""
    callees = {name: callees_of(module, function) for name, function in module.functions.items()}
    order: list[str] = []
    seen: set[str] = set()
    stack = [(name, False) for name in reversed(list(module.functions))]
    while stack:
        name, done = stack.pop()
        if done:
            order.append(name)
        elif name not in seen and name in callees:
            seen.add(name)
            stack.append((name, True))
            stack += [(callee, False) for callee in callees[name]]
    return order
