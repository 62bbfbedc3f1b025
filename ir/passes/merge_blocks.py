"""`merge-blocks`: join a block to its only predecessor, and go past blocks that only jump on.

    block 0:                                    block 0:
      v1 = ldx8 [v0 + 0]                          v1 = ldx8 [v0 + 0]
      if jeq64 v1, 0: block 1 else block 2        if jeq64 v1, 0: block 2 (0) else block 1
    block 1:                             ->     block 1:
      jump block 3 (0)                            v2 = add64 v1, 1
    block 2:                                      jump block 2 (v2)
      v2 = add64 v1, 1                          block 2 (v3):
      jump block 3 (v2)                           return v3
    block 3 (v3):
      return v3

Needs: no unreachable blocks. Keeps: instructions, their order and identity, loop headers as blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ir.core import Block, Const, Edge, Function, Jump, Module, Value, operands
from ir.explain import Notes
from ir.rename import flatten, rename


@final
@dataclass(frozen=True, slots=True)
class MergeBlocks:
    """Forward empty blocks, then join chains."""

    name: ClassVar[str] = "merge-blocks"
    summary: ClassVar[str] = "join blocks that follow one another and skip empty ones"

    def run(self, module: Module, notes: Notes) -> bool:
        """Merge in every function."""
        return sum(merge_blocks(function) for function in module.functions.values()) > 0


def merge_blocks(function: Function) -> bool:
    """Merge in one function; whether anything changed."""
    forwarded = _forward(function)
    return _join(function) or forwarded


def _forward(function: Function) -> bool:
    """Lead edges past blocks that do nothing but jump; constants they pass on are made before."""
    skipped = _empty_blocks(function)
    if not skipped:
        return False
    for block in function.blocks:
        for edge in block.edges() if block not in skipped else ():
            while edge.block in skipped:
                passed: dict[Value, Value] = dict(zip(edge.block.params, edge.args, strict=True))
                for inst in edge.block.insts:
                    assert type(inst) is Const
                    passed[inst] = const = Const(inst.value, inst.at)
                    block.insts.append(const)
                onward = skipped[edge.block]
                edge.block = onward.block
                edge.args = [passed.get(arg, arg) for arg in onward.args]
    function.blocks = [block for block in function.blocks if block not in skipped]
    return True


def _empty_blocks(function: Function) -> dict[Block, Edge]:
    """Blocks that only pass values on and jump, with their edge; they head no loop, nobody else reads their values."""
    numbers = {block: number for number, block in enumerate(function.reverse_postorder())}
    empty = {
        block: block.terminator.edge
        for block in function.blocks[1:]
        if type(block.terminator) is Jump and all(type(inst) is Const for inst in block.insts)
    }
    owners: dict[Value, Block] = {value: block for block in empty for value in (*block.params, *block.insts)}
    for block in function.blocks:
        for successor in block.successors():
            if numbers[successor] <= numbers[block]:
                empty.pop(successor, None)
        if owners:
            for item in (*block.insts, block.terminator):
                for value in operands(item):
                    if value in owners and owners[value] is not block:
                        empty.pop(owners[value], None)
    return empty


def _join(function: Function) -> bool:
    """Append each block that has one edge in, from a jump, to the block that jumps."""
    entering: dict[Block, int] = {}
    for block in function.blocks:
        for successor in block.successors():
            entering[successor] = entering.get(successor, 0) + 1
    replaced: dict[Value, Value] = {}
    joined: set[Block] = set()
    for block in function.blocks:
        while block not in joined and type(block.terminator) is Jump:
            edge = block.terminator.edge
            if entering[edge.block] > 1 or edge.block is block:
                break
            for param, arg in zip(edge.block.params, edge.args, strict=True):
                replaced[param] = arg
            block.insts += edge.block.insts
            block.terminator = edge.block.terminator
            joined.add(edge.block)
    if joined:
        function.blocks = [block for block in function.blocks if block not in joined]
    if replaced:
        rename(function, flatten(replaced))
    return bool(joined)
