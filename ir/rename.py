"""Replacing values all over a function, and parameters that stand for one value by that value."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress

from ir.core import Alu, Block, Const, Edge, Function, Load, Param, Value, substitute


def rename(function: Function, replaced: Mapping[Value, Value]) -> None:
    """Make every instruction and terminator read `replaced[v]` wherever it read v."""
    get = replaced.get
    for block in function.blocks:
        for inst in block.insts:
            if (
                type(inst) is Alu
            ):  # as `substitute` does, without the calls: most instructions are one of these
                inst.x, inst.y = get(inst.x, inst.x), get(inst.y, inst.y)
            elif type(inst) is Load:
                inst.base = get(inst.base, inst.base)
            elif type(inst) is not Const:
                substitute(inst, replaced)
        substitute(block.terminator, replaced)


def drop_params(function: Function, dropped: set[Value] | Mapping[Value, Value]) -> None:
    """Remove block parameters (read by nobody) and what edges pass for them."""
    shorter: dict[Block, list[bool]] = {}
    for block in function.blocks:
        keeps = [param not in dropped for param in block.params]
        if not all(keeps):
            shorter[block] = keeps
            block.params = list(compress(block.params, keeps))
    for block in function.blocks if shorter else ():
        for edge in block.edges():
            if edge.block in shorter:
                edge.args = list(compress(edge.args, shorter[edge.block]))


def flatten(replaced: dict[Value, Value]) -> dict[Value, Value]:
    """The replacements, each followed to its end where the new value is itself replaced."""
    return {value: _find(value, replaced) for value in replaced}


def remove_trivial_params(function: Function) -> bool:
    """Replace each block parameter that only ever receives one value (or itself) by that value."""
    entering: dict[Block, list[Edge]] = {}
    for block in function.blocks:
        for edge in block.edges():
            if edge.args:
                entering.setdefault(edge.block, []).append(edge)
    replaced: dict[Value, Value] = {}
    same: dict[Value, list[Value]] = {}
    receivers: dict[Value, list[tuple[Block, int]]] | None = None
    work = [(block, position) for block in entering for position in range(len(block.params))]
    work.reverse()
    while work:
        block, position = work.pop()
        param = block.params[position]
        if param in replaced:
            continue
        value = _one_value(param, position, entering[block], replaced)
        if value is None:
            continue
        replaced[param] = value
        if receivers is None:
            receivers = _receivers(entering)
        # Those that received what is now known to be this one have to be looked at again, too.
        members = [*same.pop(param, ()), param]
        same.setdefault(value, []).extend(members)
        for member in members:
            work += receivers.get(member, ())
    if not replaced:
        return False
    drop_params(function, replaced)
    rename(function, flatten(replaced))
    return True


def _one_value(param: Param, position: int, edges: list[Edge], replaced: dict[Value, Value]) -> Value | None:
    """What `param` always receives apart from itself; None when that is not one value."""
    one: Value | None = None
    for edge in edges:
        value = edge.args[position]
        if value in replaced:
            value = _find(value, replaced)
        if value is param or value is one:
            continue
        if one is not None:
            return None
        one = value
    return one


def _find(value: Value, replaced: dict[Value, Value]) -> Value:
    """The end of the chain of replacements, which gets shorter by being followed."""
    end = value
    while end in replaced:
        end = replaced[end]
    while value in replaced and replaced[value] is not end:
        value, replaced[value] = replaced[value], end
    return end


def _receivers(entering: Mapping[Block, list[Edge]]) -> dict[Value, list[tuple[Block, int]]]:
    """The parameters that receive each parameter, as (block, position)."""
    receivers: dict[Value, list[tuple[Block, int]]] = {}
    for block, edges in entering.items():
        for edge in edges:
            for position, arg in enumerate(edge.args):
                if type(arg) is Param:
                    receivers.setdefault(arg, []).append((block, position))
    return receivers
