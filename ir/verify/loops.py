"""The loops of a function: heads, bodies, nesting, and the numbers that their tests compare with.

A back-edge goes to a block that stands no later in reverse postorder. Its target is a loop head; the loop is
natural when the head dominates where its back-edges come from, and only then is a bound given.
"""

from __future__ import annotations

from typing import Final, final

from ir.core import Alu, Block, Branch, Const, Param, Store, Value
from ir.dominators import Dominators
from ir.verify.flow import Flow
from ir.verify.refusal import Refused

_STEPS: Final = frozenset(("add", "sub", "rsh", "div", "and"))
_MAX_THRESHOLDS: Final = 24
# The blocks of all loops together: each is within so many, and some are within more.
_MOST_DEEP: Final = 8
_MOST_WITHIN: Final = 100_000
# Lengths that bound offsets; a range that grows past what its loop compares with stops at these first.
_COMMON: Final = (-(1 << 31), -1, 0, (1 << 31) - 1, (1 << 32) - 1, 1 << 40, (1 << 63) - 1)


@final
class Loop:
    """A loop: its head, every block in it, the sources of its back-edges."""

    __slots__ = ("_made", "blocks", "head", "is_natural", "latches", "parent")

    def __init__(self, head: Block, latches: list[Block], blocks: set[Block], is_natural: bool) -> None:
        self.head = head
        self.latches = latches
        self.blocks = blocks
        self.is_natural = is_natural
        self.parent: Loop | None = None
        self._made: set[Value] = set()

    def made(self) -> set[Value]:
        """The values that the loop makes."""
        if not self._made:
            for block in self.blocks:
                self._made.update(block.params)
                self._made.update(inst for inst in block.insts if type(inst) is not Const)
        return self._made

    def counters(self) -> frozenset[Value]:
        """Parameters of the head that some back-edge gives their own sum or difference with something."""
        found: set[Value] = set()
        for latch in self.latches:
            for edge in latch.edges():
                if edge.block is self.head:
                    pairs = zip(self.head.params, edge.args, strict=True)
                    found.update(param for param, arg in pairs if _is_step(arg, param))
        return frozenset(found)

    def stepped(self) -> frozenset[Value]:
        """What a constant is added to before a back-edge or a store: a counter may be kept on the stack meanwhile."""
        sums = [
            edge_arg
            for latch in self.latches
            for edge in latch.edges()
            if edge.block is self.head
            for edge_arg in edge.args
        ]
        sums += [inst.value for block in self.blocks for inst in block.insts if type(inst) is Store]
        return frozenset(
            value.x
            for value in sums
            if type(value) is Alu and type(value.y) is Const and value.row.name.startswith(("add", "sub"))
        )


@final
class Loops:
    """All loops of a function: `heads` maps each head to its loop, `innermost` each block to the closest.

    Raises Refused when loops are so deep in each other that to tell what is in each would take too long.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.number = flow.number
        self.heads: dict[Block, Loop] = {}
        self.innermost: dict[Block, Loop] = {}
        self._thresholds: dict[Block, tuple[int, ...]] = {}
        back = flow.back
        if not back:
            return
        self.dominators = dominators = Dominators(flow.function)
        room = _MOST_WITHIN + _MOST_DEEP * len(flow.order)
        for head in sorted(back, key=lambda block: self.number[block]):
            natural = dominators.dominates_span(head, dominators.span(back[head]))
            body = self._body(head, back[head])
            self.heads[head] = Loop(head, back[head], body, natural)
            room -= len(body)
            if room < 0:
                raise Refused("too-complex", f"'{flow.function.name}' has too many loops within loops")
        self._nest()

    def renewed(self, block: Block) -> set[Value]:
        """The values that are made anew after arriving at `block`: until then they stand for those of the last time."""
        loop = self.heads.get(block)
        return {*block.params, *loop.made()} if loop is not None else set(block.params)

    def thresholds(self, head: Block) -> tuple[int, ...]:
        """Numbers at which ranges that grow in the loop of `head` are likely to stop, sorted."""
        found = self._thresholds.get(head)
        if found is None:
            found = self._thresholds[head] = self._find_thresholds(head)
        return found

    def _find_thresholds(self, head: Block) -> tuple[int, ...]:
        numbers: set[int] = set()
        for block in sorted(self.heads[head].blocks, key=lambda block: self.number[block]):
            terminator = block.terminator
            if type(terminator) is not Branch or len(numbers) > _MAX_THRESHOLDS:
                continue
            for value in (terminator.x, terminator.y):
                if type(value) is Const:
                    number = value.value - (1 << 64) if value.value >> 63 else value.value
                    numbers.update((number - 1, number, number + 1))
        return tuple(sorted(numbers.union(_COMMON)))

    def _body(self, head: Block, latches: list[Block]) -> set[Block]:
        body = {head}
        work = list(latches)
        first = self.number[head]
        while work:
            block = work.pop()
            if block in body or self.number[block] < first:
                continue
            body.add(block)
            work += self.flow.entering[block]
        return body

    def _nest(self) -> None:
        for loop in self.heads.values():
            loop.parent = self.innermost.get(loop.head)
            for block in loop.blocks:
                self.innermost[block] = loop


def _is_step(arg: Value, param: Param) -> bool:
    return type(arg) is Alu and arg.row.name[:3] in _STEPS and param in (arg.x, arg.y)
