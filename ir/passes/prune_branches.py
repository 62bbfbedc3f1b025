"""`prune-branches`: make decided branches jumps, and remove the blocks that no path reaches any more.

    v1 = const 1                                     v1 = const 1
    if jeq64 v1, 0: block 4 () else block 2 ()   ->  jump block 2 ()
    block 4: ...

Decided are comparisons of two constants, of a value with itself (x > x), with a constant that nothing passes
(x < 0), and those with both ways the same. Static branches and may_goto never are. Parameters left with one
value give way to it, which may decide more branches: at most `max` rounds.

Keeps: instructions and their order. Needs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ir.algebra import Integers
from ir.core import Branch, Const, Edge, Function, Jump, Module
from ir.explain import Notes
from ir.isa import compute
from ir.passes.laws import laws_of
from ir.rename import remove_trivial_params


@final
@dataclass(frozen=True, slots=True)
class PruneBranches:
    """Decide what is decidable, in at most `max` rounds."""

    max: int = 3
    name: ClassVar[str] = "prune-branches"
    summary: ClassVar[str] = "turn decided branches into jumps and remove unreachable blocks"

    def run(self, module: Module, notes: Notes) -> bool:
        """Prune every function."""
        return sum(map(self._prune, module.functions.values())) > 0

    def _prune(self, function: Function) -> bool:
        changed = False
        for _ in range(self.max):
            if not decide_branches(function):
                break
            changed = True
            remove_unreachable(function)
            if not remove_trivial_params(function):
                break
        return changed


def decide_branches(function: Function) -> bool:
    """Turn decided branches into jumps."""
    algebra = Integers(function.program.big_endian)
    changed = False
    for block in function.blocks:
        branch = block.terminator
        if type(branch) is not Branch:
            continue
        edge = _decided(branch, algebra)
        if edge is not None:
            block.terminator = Jump(edge, branch.at)
            changed = True
    return changed


def remove_unreachable(function: Function) -> bool:
    """Remove the blocks that no path from the entry reaches."""
    seen = {function.entry}
    work = [function.entry]
    while work:
        for block in work.pop().successors():
            if block not in seen:
                seen.add(block)
                work.append(block)
    if len(seen) == len(function.blocks):
        return False
    function.blocks = [block for block in function.blocks if block in seen]
    return True


def _decided(branch: Branch, algebra: Integers) -> Edge | None:
    """The way a branch always goes, or None."""
    row, x, y, taken, other = branch.row, branch.x, branch.y, branch.taken, branch.other
    if taken.block is other.block and all(a is b for a, b in zip(taken.args, other.args, strict=True)):
        return other
    holds: int | None = None
    if type(y) is Const:
        if type(x) is Const:
            holds = compute(row, algebra, x.value, y.value)
        else:
            holds = laws_of(row, algebra.big_endian).right.get(y.value & (1 << row.bits) - 1)
    elif type(x) is Const:
        holds = laws_of(row, algebra.big_endian).left.get(x.value & (1 << row.bits) - 1)
    elif x is y:
        holds = laws_of(row, algebra.big_endian).same
    return None if holds is None else taken if holds else other
