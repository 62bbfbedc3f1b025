"""Dominators of a function's blocks: which block stands on every path to another.

Lengauer and Tarjan's algorithm with path compression (TOPLAS 1979), without recursion: a program may be a
chain of 10^5 blocks that all jump to one exit, where iterating over predecessors can take quadratic time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

from ir.core import Block, Function


@final
class Dominators:
    """The dominator tree of the reachable blocks: `parent` by block, and the tree in `preorder`."""

    def __init__(self, function: Function) -> None:
        self.parent: Mapping[Block, Block] = _immediate_dominators(function)
        children: dict[Block, list[Block]] = {function.entry: []}
        for block, parent in self.parent.items():
            children.setdefault(parent, []).append(block)
        self.preorder: list[Block] = []
        self._first: dict[Block, int] = {}
        self._last: dict[Block, int] = {}
        stack = [function.entry]
        while stack:
            block = stack.pop()
            if block in self._first:
                self._last[block] = len(self.preorder)
                continue
            self._first[block] = len(self.preorder)
            self.preorder.append(block)
            below = children.get(block)
            if below:
                stack.append(block)
                stack += below
            else:
                self._last[block] = len(self.preorder)

    def dominates(self, above: Block, below: Block) -> bool:
        """Whether every path to `below` passes `above` (a block dominates itself); both must be reachable."""
        return self._first[above] <= self._first[below] < self._last[above]

    def span(self, blocks: Iterable[Block]) -> tuple[int, int]:
        """The first and the last of `blocks` in preorder, for `dominates_span`."""
        places = [self._first[block] for block in blocks]
        return min(places), max(places)

    def dominates_span(self, above: Block, span: tuple[int, int]) -> bool:
        """Whether every path to each of some blocks, those of `span`, passes `above`."""
        return self._first[above] <= span[0] and span[1] < self._last[above]

    def frontiers(
        self, predecessors: Mapping[Block, list[Block]], limit: int
    ) -> dict[Block, list[Block]] | None:
        """For each block the joins just outside of what it dominates; None if there are more than `limit`."""
        found: dict[Block, list[Block]] = {block: [] for block in self.preorder}
        for block in self.preorder:
            if len(predecessors[block]) < 2:
                continue
            stop = self.parent.get(block)
            seen: set[Block] = set()
            if limit < 0:
                return None
            for before in predecessors[block]:
                while before is not stop and before not in seen:
                    seen.add(before)
                    found[before].append(block)
                    if before not in self.parent:
                        break
                    before = self.parent[before]
            limit -= len(seen)
        return found


def _immediate_dominators(function: Function) -> dict[Block, Block]:
    """Of every reachable block but the entry. Numbers below are depth-first preorder."""
    blocks, tree_parent, entering = _search(function)
    count = len(blocks)
    semi = list(range(count))
    idom = [0] * count
    label = list(range(count))
    ancestor = [-1] * count
    bucket: list[list[int]] = [[] for _ in range(count)]

    def evaluate(v: int) -> int:
        """The vertex with the least semidominator above `v` in the forest; halves the way up."""
        if ancestor[v] < 0:
            return v
        path = []
        while ancestor[ancestor[v]] >= 0:
            path.append(v)
            v = ancestor[v]
        for w in reversed(path):
            above = ancestor[w]
            if semi[label[above]] < semi[label[w]]:
                label[w] = label[above]
            ancestor[w] = ancestor[above]
        return label[path[0] if path else v]

    for w in range(count - 1, 0, -1):
        for v in entering[w]:
            semi[w] = min(semi[w], semi[evaluate(v)])
        bucket[semi[w]].append(w)
        above = tree_parent[w]
        ancestor[w] = above
        for v in bucket[above]:
            u = evaluate(v)
            idom[v] = u if semi[u] < semi[v] else above
        bucket[above].clear()
    for w in range(1, count):
        if idom[w] != semi[w]:
            idom[w] = idom[idom[w]]
    return {blocks[w]: blocks[idom[w]] for w in range(1, count)}


def _search(function: Function) -> tuple[list[Block], list[int], list[list[int]]]:
    """The blocks in depth-first preorder, the number of each one's tree parent, and of its predecessors."""
    numbers: dict[Block, int] = {}
    blocks: list[Block] = []
    parents: list[int] = []
    stack: list[tuple[Block, int]] = [(function.entry, 0)]
    while stack:
        block, parent = stack.pop()
        if block in numbers:
            continue
        numbers[block] = number = len(blocks)
        blocks.append(block)
        parents.append(parent)
        stack += [(successor, number) for successor in block.successors() if successor not in numbers]
    entering: list[list[int]] = [[] for _ in blocks]
    for block, number in numbers.items():
        for successor in block.successors():
            entering[numbers[successor]].append(number)
    return blocks, parents, entering
