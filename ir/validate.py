"""Validation: our own IR is well-formed. What it finds is the fault of lifting or of a pass.

Checked are the shape (entry first and free, terminators, no block out of reach, edges that lead into the
function and pass what is wanted), that every value is made once and on every path to its uses, that rows
fit what they stand in, and that calls fit the functions they name. The time is linear in the size of the
function.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ir.core import (
    Address,
    Alu,
    Atomic,
    Block,
    Branch,
    Call,
    Function,
    Inst,
    Load,
    Module,
    PacketLoad,
    Param,
    StaticBranch,
    Store,
    Terminator,
    Value,
    operands,
)
from ir.dominators import Dominators
from ir.isa import Callee, Kind
from ir.object import ReferenceKind
from ir.text import has_result

_KINDS: Final = {
    Alu: Kind.ALU,
    Load: Kind.LOAD,
    Store: Kind.STORE,
    Atomic: Kind.ATOMIC,
    PacketLoad: Kind.PACKET,
    Branch: Kind.BRANCH,
    StaticBranch: Kind.STATIC_BRANCH,
}


def validate(module: Module, when: str = "") -> None:
    """Assert that every function of `module` is well-formed; `when` says after what."""
    for function in module.functions.values():
        problem = next(find_problems(function, module), None)
        assert problem is None, f"{when + ': ' if when else ''}function '{function.name}': {problem}"


def find_problems(function: Function, module: Module | None = None) -> Iterator[str]:
    """What is wrong with a function, in words; calls are checked where `module` is given."""
    shape = list(_shape_problems(function))
    yield from shape
    if shape:
        return
    yield from _value_problems(function)
    for block in function.blocks:
        for item in (*block.insts, block.terminator):
            yield from _row_problems(item)
            if module is not None and isinstance(item, Call | Address):
                yield from _call_problems(item, module)


def _shape_problems(function: Function) -> Iterator[str]:
    blocks = function.blocks
    if not blocks:
        yield "has no blocks"
        return
    numbers = {block: number for number, block in enumerate(blocks)}
    if len(numbers) < len(blocks):
        yield "a block stands in it twice"
    if blocks[0].params:
        yield "the entry has parameters"
    for number, block in enumerate(blocks):
        if not hasattr(block, "terminator"):
            yield f"block {number} has no terminator"
            return
        for edge in block.edges():
            if edge.block not in numbers:
                yield f"block {number} leads to a block that is not in the function"
                return
            if edge.block is blocks[0]:
                yield f"block {number} leads to the entry"
            if len(edge.args) != len(edge.block.params):
                said = f"passes {len(edge.args)} values to block {numbers[edge.block]}"
                yield f"block {number} {said}, which has {len(edge.block.params)} parameters"
    reached = set(function.reverse_postorder())
    yield from (f"block {number} is unreachable" for block, number in numbers.items() if block not in reached)


def _value_problems(function: Function) -> Iterator[str]:
    """Values made twice, or read where they may not have been made."""
    numbers = {block: number for number, block in enumerate(function.blocks)}
    made: dict[Value, tuple[Block, int]] = {}
    values: list[tuple[Value, Block, int]] = [(param, function.entry, -1) for param in function.params]
    for block in function.blocks:
        values += [(param, block, -1) for param in block.params]
        values += [(inst, block, position) for position, inst in enumerate(block.insts)]
    for value, block, position in values:
        if value in made:
            yield f"block {numbers[block]}: a value is made twice"
        made[value] = block, position
    tree = Dominators(function)
    for block in function.blocks:
        for position, item in enumerate((*block.insts, block.terminator)):
            for value in operands(item):
                said = f"block {numbers[block]}, item {position}: reads a value that"
                if value not in made:
                    yield f"{said} is made nowhere"
                    continue
                home, place = made[value]
                if not isinstance(value, Param) and not has_result(value):
                    yield f"{said} is none"
                elif home is block and place >= position:
                    yield f"{said} is made after it"
                elif not tree.dominates(home, block):
                    yield f"{said} block {numbers[home]} makes, which does not dominate it"


def _row_problems(item: Inst | Terminator) -> Iterator[str]:
    wanted = _KINDS.get(type(item))
    if wanted is not None and item.row.kind is not wanted:  # type: ignore[union-attr]  # these types have a row
        yield f"'{item.row.name}' stands in a {type(item).__name__}"  # type: ignore[union-attr]  # as above


def _call_problems(item: Call | Address, module: Module) -> Iterator[str]:
    match item:
        case Address(reference):
            if reference.kind is ReferenceKind.FUNCTION and reference.name not in module.functions:
                yield f"takes the address of '{reference.name}', which is not there"
        case Call(Callee.SUBPROGRAM, str(target), args):
            callee = module.functions.get(target)
            if callee is None:
                yield f"calls '{target}', which is not there"
            elif len(callee.params) != len(args):
                yield f"passes {len(args)} values to '{target}', which has {len(callee.params)} parameters"
        case Call(args=args):
            if len(args) > 5:
                yield f"a call has {len(args)} arguments"
