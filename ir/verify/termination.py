"""Whether every loop ends: a graph of the visits to loop heads has no cycle but through bounded loops.

    visit of a head --(walked)--> visit of the same or another head, or one that covers what arrived there

The back-edges of a bounded loop are not taken for ever without entering it anew. Where a cycle is left without those of
loops that it does not enter anew, some states may come round again and again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, final

from ir.core import Block, Edge, Function, MayGoto, Module, Param, Value
from ir.verify.distance import halves, step_of
from ir.verify.iterations import is_iteration
from ir.verify.loops import Loop
from ir.verify.outline import Outline
from ir.verify.refusal import Refused
from ir.verify.scalar import Scalar
from ir.verify.state import State
from ir.verify.values import Pointer

_MOST_TRIPS: Final = 1 << 24
Ways = dict[object, dict[tuple[object, Block | None], None]]
"""From each visit, those that are come to next, in order; with the head when that is by a back-edge."""
_NO_PACE: Final = (1 << 70, -(1 << 70))


@final
class Visits:
    """The visits to the loop heads of one walk."""

    def __init__(self, module: Module, function: Function, outline: Outline) -> None:
        self.module, self.function = module, function
        self.outline = outline
        self._ways: Ways = {}
        self._arrivals: dict[Block, int | None] = {}
        self._paces: dict[Block, dict[Param, tuple[int, int] | None]] = {}
        self._spans: dict[Block, dict[Param, tuple[int, int]]] = {}
        self._may_goto: set[Block] = set()

    def note_arrival(self, marks: frozenset[object], visit: object, is_back: bool) -> None:
        """Control got from the visits `marks` to a head, in a state kept (or covered) as `visit`."""
        block: Block = visit.block  # type: ignore[attr-defined]  # a Visit; importing it would be circular
        self._ways.setdefault(visit, {})
        for mark in marks:
            self._ways.setdefault(mark, {})[visit, block if is_back else None] = None

    def note_arrivals(self, head: Block, arrivals: int | None) -> None:
        """Induction bounds how often a head is reached, or does not."""
        old = self._arrivals.get(head, 0)
        self._arrivals[head] = None if old is None or arrivals is None else max(old, arrivals)

    def note_may_goto(self, block: Block) -> None:
        """A loop through this block runs out of budget some time."""
        self._may_goto.add(block)

    def note_step(self, head: Block, state: State, edge: Edge) -> None:
        """A back-edge is taken: see by how much each parameter moves, and each stack slot."""
        paces = self._paces.setdefault(head, {})
        spans = self._spans.setdefault(head, {})
        pairs = [*zip(head.params, edge.args, strict=True)]
        for offset, symbol in self.outline.slots_made(head):
            stored = state.stack.get(offset)
            if stored is None:
                paces[symbol] = None
            else:
                pairs.append((symbol, stored[1]))
        for param, arg in pairs:
            known = paces.get(param, _NO_PACE)
            if known is None:
                continue
            step = step_of(state, arg, param)
            if step is None and halves(state, arg, param):
                # As if it went down a ladder of one rung for each bit.
                paces[param] = min(known[0], -1), max(known[1], -1)
                spans.setdefault(param, (0, 64))
                continue
            if step is None:
                paces[param] = None
                continue
            paces[param] = min(known[0], step), max(known[1], step)
            low, high = _span_before(state, param, arg, step)
            before = spans.get(param, (low, high))
            spans[param] = min(low, before[0]), max(high, before[1])

    def is_bounded(self, head: Block) -> bool:
        """Whether the back-edges to `head` are taken only so often each time its loop is entered."""
        loop = self.outline.loops.heads[head]
        if not loop.is_natural:
            return False
        arrivals = self._arrivals.get(head)
        if arrivals is not None and 0 < arrivals <= _MOST_TRIPS:
            return True
        for param, pace in self._paces.get(head, {}).items():
            if pace is None or not (pace[0] > 0 or pace[1] < 0):
                continue
            low, high = self._spans[head][param]
            if (high - low) // (pace[0] if pace[0] > 0 else -pace[1]) <= _MOST_TRIPS:
                return True
        return self._ends_by_itself(loop)

    def _ends_by_itself(self, loop: Loop) -> bool:
        """Whether each trip passes a may_goto or asks an iterator for its next element."""
        dominators = self.outline.loops.dominators
        latches = dominators.span(loop.latches)
        for block in loop.blocks:
            if not dominators.dominates_span(block, latches):
                continue
            if type(block.terminator) is MayGoto:
                return True
        return is_iteration(self.module, self.function, dominators, loop)

    def check(self) -> None:
        """Refuse when some loop may go on for ever."""
        bounded = {head for head in self.outline.loops.heads if self.is_bounded(head)}
        endless = find_endless(self._ways, bounded)
        if endless is None:
            return
        block: Block = endless.block  # type: ignore[attr-defined]  # as above
        said = "loop is not known to end: no counter bounds it"
        hint = "count up to a constant, or compare the counter with a bound that is known"
        refused = Refused("unbounded-loop", said, None, hint)
        latch = self.outline.loops.heads[block].latches[-1]
        refused.at, refused.function = latch.terminator.at, self.function.name
        raise refused


def _span_before(state: State, param: Param, arg: Value, step: int) -> tuple[int, int]:
    """The range of `param`, which is `arg` a `step` before: of both, what is better known."""
    before, after = state.of(param), state.of(arg)
    span = before.span if type(before) is Pointer else before
    assert type(span) is Scalar
    if type(after) is not Scalar:
        return span.umin, span.umax
    return max(span.umin, after.umin - step), min(span.umax, after.umax - step)


def find_endless(ways: Ways, bounded: set[Block]) -> object | None:
    """A visit that may be come to for ever, None when there is none.

    What is gone through for ever is strongly connected. It is not when it has back-edges to the head of a bounded loop that
    it never enters anew: these are not taken for ever, and what is left without them is looked at in turn.
    """
    work = [list(ways)]
    while work:
        for component in strong_components(ways, work.pop()):
            members = set(component)
            inside = [(source, way) for source in component for way in ways[source] if way[0] in members]
            entered = {visit.block for _, (visit, head) in inside if head is None}  # type: ignore[attr-defined]  # as above
            ended = {head for _, (_, head) in inside if head in bounded and head not in entered}
            if inside and not ended:
                return next(
                    (visit for _, (visit, head) in inside if head not in bounded and head), inside[0][0]
                )
            for source, way in inside:
                if way[1] in ended:
                    del ways[source][way]
            if inside:
                work.append(component)
    return None


def strong_components(ways: Ways, among: Sequence[object]) -> Iterator[list[object]]:
    """The strongly connected components of what of `ways` is `among` these (Tarjan's algorithm), in an order of its own."""
    members = set(among)
    number: dict[object, int] = {}
    low: dict[object, int] = {}
    path: list[object] = []
    place: dict[object, int] = {}  # of what is on the path, where
    for root in among:
        work = [(root, iter(ways[root]))] if root not in number else []
        while work:
            node, rest = work[-1]
            if node not in number:
                number[node] = low[node] = len(number)
                place[node] = len(path)
                path.append(node)
            for following, _ in rest:
                if following not in members:
                    continue
                if following not in number:
                    work.append((following, iter(ways[following])))
                    break
                if following in place:
                    low[node] = min(low[node], number[following])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    component = path[place[node] :]
                    del path[place[node] :]
                    for each in component:
                        del place[each]
                    yield component
