"""`remove-dead-code`: remove instructions and parameters nothing needs, and functions nothing calls.

    block 2 (v4, v5):                          block 2 (v4):
      v6 = add64 v4, 8                    ->     return v4
      return v4

Needed are effects, branches, and what those read, across edges too: a counter that only counts itself goes. A
load stays unless it is certain not to trap: it reads its own frame or a global variable in bounds; with
`{verified=true}`, every load is taken to be in bounds.

Keeps: blocks, edges, effects, traps. Needs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

from ir.callees import callees_of
from ir.core import (
    Address,
    Alu,
    Branch,
    Const,
    Frame,
    Function,
    Load,
    Module,
    Param,
    Return,
    Value,
    operands,
)
from ir.explain import Notes
from ir.object import ReferenceKind
from ir.regions import constant_step
from ir.rename import drop_params

FRAME_SIZE = 512
_PURE = (Const, Alu, Frame, Address)


@final
@dataclass(frozen=True, slots=True)
class RemoveDeadCode:
    """Remove what is not needed."""

    verified: bool = False
    name: ClassVar[str] = "remove-dead-code"
    summary: ClassVar[str] = "remove unused instructions, parameters and functions"

    def run(self, module: Module, notes: Notes) -> bool:
        """Sweep every function, then the functions themselves."""

        def may_go(load: Load) -> bool:
            return not load.row.imm and (self.verified or is_in_bounds(load, module))

        changed = sum(sweep(function, may_go) for function in module.functions.values()) > 0
        return remove_functions(module) or changed


def sweep(function: Function, may_go: Callable[[Load], bool]) -> bool:
    """Remove what has no effect and is not needed: instructions, loads that `may_go`, parameters."""
    incoming: dict[Value, list[Value]] = {}
    live: set[Value] = set()
    work: list[Value] = []
    for block in function.blocks:
        for inst in block.insts:
            if type(inst) not in _PURE and not (type(inst) is Load and may_go(inst)):
                live.add(inst)
                work += operands(inst)
        terminator = block.terminator
        if type(terminator) is Branch:
            work += (terminator.x, terminator.y)
        elif type(terminator) is Return:
            work.append(terminator.value)
        for edge in block.edges():
            for param, arg in zip(edge.block.params, edge.args, strict=True):
                incoming.setdefault(param, []).append(arg)
    while work:
        value = work.pop()
        if value in live:
            continue
        live.add(value)
        if type(value) is Alu:
            work += (value.x, value.y)
        elif type(value) is Param:
            work += incoming.get(value, ())
        elif type(value) is not Const:
            work += operands(value)
    return _keep(function, live)


def is_in_bounds(load: Load, module: Module) -> bool:
    """Whether a load certainly reads inside its function's frame or a global variable's map."""
    root, offset = load.base, load.offset
    while isinstance(root, Alu):
        step = constant_step(root)
        if step is None:
            return False
        root, amount = step
        offset += amount
    if isinstance(root, Frame):
        return -FRAME_SIZE <= offset <= -load.row.size
    if isinstance(root, Address) and root.reference.kind is ReferenceKind.MAP_VALUE:
        map_ = module.maps.get(root.reference.name)
        start = root.reference.offset + offset
        return map_ is not None and 0 <= start <= map_.value_size - load.row.size
    return False


def remove_functions(module: Module) -> bool:
    """Remove the functions that main does not reach by calls, by their address or through tables."""
    main = module.main.name
    seen = {main}
    work = [main]
    while work:
        for name in callees_of(module, module.functions[work.pop()]):
            if name in module.functions and name not in seen:
                seen.add(name)
                work.append(name)
    dead = [name for name in module.functions if name not in seen]
    for name in dead:
        del module.functions[name]
    return bool(dead)


def _keep(function: Function, live: set[Value]) -> bool:
    changed = False
    dead: set[Value] = set()
    for block in function.blocks:
        if not live.issuperset(block.insts):
            block.insts = [inst for inst in block.insts if inst in live]
            changed = True
        if not live.issuperset(block.params):
            dead.update(param for param in block.params if param not in live)
    if dead:
        drop_params(function, dead)
    return changed or bool(dead)
