"""Ranges: a fast forward analysis that proves accesses in bounds, whether or not a program is safe.

Blocks are visited in reverse postorder and the states of all ways into one are joined; loop heads are
widened, then narrowed. A last pass checks that what was found is a fixed point, so a fault in the iteration
costs proofs, never soundness.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from heapq import heappop, heappush
from typing import Final, Protocol, final

from ir.core import (
    Block,
    Branch,
    Edge,
    Function,
    Inst,
    Param,
    Value,
)
from ir.verify.branch import fork
from ir.verify.effects import Effects
from ir.verify.flow import Flow
from ir.verify.induction import Group, Induction
from ir.verify.liveness import live_values
from ir.verify.loops import Loop, Loops
from ir.verify.meeting import covers_state, enter, join_states
from ir.verify.scalar import Scalar, widen
from ir.verify.state import State
from ir.verify.values import MAX_LENGTH, Known, Pointer

_VISITS_BEFORE_WIDENING: Final = 2
_VISITS_WITH_THRESHOLDS: Final = 10
_VISITS_PER_BLOCK: Final = 60


class Watch(Protocol):
    """Sees each instruction with the state before it, and each block with the state and the ways it ends with."""

    def see(self, state: State, inst: Inst) -> None: ...

    def leave(self, block: Block, state: State, ways: Sequence[State | None]) -> None: ...


@final
class FunctionRanges:
    """The analysis of one function from one entry state.

    `states` holds the state at the start of each block reached.
    """

    def __init__(self, function: Function, effects: Effects, entry: State) -> None:
        self.function = function
        self.effects = effects
        self.entry = entry
        self.flow = flow = Flow(function)
        self.order, self.number = flow.order, flow.number
        self.live = live_values(flow)
        self.loops = Loops(flow)
        self.inductions: dict[Block, Induction] = {}
        self.arrivals: dict[Block, int] = {}
        self.groups: dict[Param, Group] = {}
        for head, loop in self.loops.heads.items():
            self._keep_counters(loop)
            if loop.is_natural:
                self.inductions[head] = Induction(loop, self.loops.dominators)
        self.states: dict[Block, State] = {}
        self.visits: dict[Block, int] = {}
        self._out: dict[Block, list[State | None]] = {}
        self._made_from: dict[
            Block, tuple[State, int]
        ] = {}  # what `_out` was made from: a state, and `_turn`
        self._arrived: dict[Edge, tuple[State | None, int, State]] = {}  # what `enter` made, and of what
        self._turn = 0  # counts changes of `groups`, which branches ask
        self._entering: dict[Block, list[tuple[Block, int, Edge]]] = {block: [] for block in self.order}
        self._slots: dict[tuple[Block, int], Param] = {}
        self._own: dict[Block, set[Value]] = {block: self.loops.renewed(block) for block in self.order}
        for block in self.order:
            for position, edge in enumerate(block.edges()):
                self._entering[edge.block].append((block, position, edge))

    @property
    def is_acyclic(self) -> bool:
        """Whether every edge leads forward."""
        return not self.loops.heads

    def sweep(self, watch: Watch) -> None:
        """Of an acyclic function: walk each block once, after all before it, which gives the fixed point."""
        for block in self.order:
            state = self._joined(block)
            if state is not None:
                self.states[block] = state
                self._out[block] = self.walk(block, watch)

    def run(self) -> bool:
        """Find a fixed point; False when the budget ran out (then nothing may be concluded)."""
        if not self._iterate():
            return False
        widened = dict(self.states)
        if self.loops.heads:
            self._narrow()
        if self._is_fixed_point():
            return True
        self.states = widened
        return self._is_fixed_point()

    def out_states(self, block: Block) -> list[State | None]:
        """The states on each way out of `block`, None where it is never gone."""
        state = self.states[block].copy()
        for inst in block.insts:
            self.effects.apply(state, inst)
        return self._ways_out(block, state)

    def _leave(self, block: Block) -> None:
        """Bring `_out` of a reached block up to date."""
        made_from = (self.states[block], self._turn)
        if self._made_from.get(block) != made_from:
            self._made_from[block] = made_from
            self._out[block] = self.out_states(block)

    def walk(self, block: Block, watch: Watch) -> list[State | None]:
        """As `out_states`, with somebody watching."""
        state = self.states[block].copy()
        for inst in block.insts:
            watch.see(state, inst)
            self.effects.apply(state, inst)
        ways = self._ways_out(block, state.copy())
        watch.leave(block, state, ways)
        return ways

    def _ways_out(self, block: Block, state: State) -> list[State | None]:
        """The states on each way out; `state` becomes one of them."""
        terminator = block.terminator
        if type(terminator) is Branch:
            return [*fork(state, terminator, self.groups)]
        return [state] * len(block.edges())

    def _keep_counters(self, loop: Loop) -> None:
        """Keep what a loop counts with alive throughout it: bounding its trips needs it before the step."""
        counters = loop.counters()
        for block in loop.blocks if counters else ():
            if block is not loop.head:
                self.live[block] |= counters

    def _iterate(self) -> bool:
        self.states[self.order[0]] = self.entry
        queue = [0]
        queued = {0}
        budget = _VISITS_PER_BLOCK * len(self.order)
        while queue:
            number = heappop(queue)
            queued.discard(number)
            block = self.order[number]
            budget -= 1
            if budget < 0:
                return False
            self.visits[block] = self.visits.get(block, 0) + 1
            self._leave(block)
            for successor in dict.fromkeys(self.flow.successors[block]):
                if self._arrive(successor) and self.number[successor] not in queued:
                    queued.add(self.number[successor])
                    heappush(queue, self.number[successor])
        return True

    def _arrive(self, block: Block) -> bool:
        """Bring the state at the start of `block` up to date; whether it has to be walked (again)."""
        state = self._joined(block)
        if state is None:
            return False
        old = self.states.get(block)
        if old is not None:
            if covers_state(old, state):
                return False
            if block in self.loops.heads:
                state = self._widened(block, old, state)
        self.states[block] = state
        return True

    def _joined(self, block: Block) -> State | None:
        induction = self.inductions.get(block)
        if induction is None:
            return self._join(block, self._entering[block])
        loop = induction.loop
        entry = self._join(block, [way for way in self._entering[block] if way[0] not in loop.blocks])
        if entry is None:
            return None
        arrivals = induction.arrivals(entry)
        state = self._join(block, self._entering[block])
        assert state is not None
        if arrivals is None:
            self.arrivals.pop(block, None)
            for param in induction.steps:
                self._group(param, None)
            return state
        self.arrivals[block] = arrivals
        state = state.copy()
        group, _ = induction.clamp(entry, state, arrivals)
        for param in induction.steps:
            self._group(param, group if param in group else None)
        return state

    def _group(self, param: Param, group: Group | None) -> None:
        if self.groups.get(param) == group:
            return
        self._turn += 1
        if group is None:
            del self.groups[param]
        else:
            self.groups[param] = group

    def _join(self, block: Block, ways: list[tuple[Block, int, Edge]]) -> State | None:
        joined: State | None = self.entry if block is self.order[0] else None
        slot = partial(self._slot, block)
        for previous, position, edge in ways:
            out = self._out.get(previous)
            state = out[position] if out is not None else None
            if state is None:
                continue
            own = self._own[block]
            made_from, size, arrived = self._arrived.get(edge, (None, 0, state))
            if made_from is not state or size != len(own):
                arrived = enter(state, edge, self.live[block], own, slot)
                self._arrived[edge] = (state, len(own), arrived)
            joined = arrived if joined is None else join_states(joined, arrived, slot)
        return joined

    def _slot(self, block: Block, offset: int) -> Param:
        """What stands for the value that the ways into `block` keep at a stack offset."""
        symbol = self._slots.get((block, offset))
        if symbol is None:
            symbol = self._slots[block, offset] = Param(-1)
            self._own[block].add(symbol)
        return symbol

    def _widened(self, block: Block, old: State, new: State) -> State:
        visits = self.visits.get(block, 0)
        state = join_states(old, new, partial(self._slot, block))
        if visits < _VISITS_BEFORE_WIDENING:
            return state
        thresholds = self.loops.thresholds(block) if visits < _VISITS_WITH_THRESHOLDS else (0, MAX_LENGTH)
        steps = self.inductions[block].steps if block in self.arrivals else {}
        for value, fact in state.known.items():
            if value not in steps:
                state.known[value] = _widen(old.known.get(value), fact, thresholds)
        for key, room in list(state.rooms.items()):
            if old.rooms.get(key) != room:
                del state.rooms[key]
        return state

    def _narrow(self) -> None:
        """Two passes without widening: each state is recomputed from the ways in."""
        for _ in range(2):
            for block in self.order:
                state = self._joined(block)
                if state is None:
                    self.states.pop(block, None)
                    self._out.pop(block, None)
                    self._made_from.pop(block, None)
                    continue
                old = self.states.get(block)
                if old is None or not old.says_same(state):
                    self.states[block] = state
                self._leave(block)

    def _is_fixed_point(self) -> bool:
        for block in self.order:
            if block in self.states:
                self._leave(block)
            else:
                self._out.pop(block, None)
                self._made_from.pop(block, None)
        groups, arrivals = dict(self.groups), dict(self.arrivals)
        if self.order[0] not in self.states or not covers_state(self.states[self.order[0]], self.entry):
            return False
        for block in self.order:
            state = self._joined(block)
            if state is None:
                continue
            if block not in self.states or not covers_state(self.states[block], state):
                return False
        return groups == self.groups and arrivals == self.arrivals


def _widen(old: Known | None, new: Known, thresholds: tuple[int, ...]) -> Known:
    if old is None or old is new:
        return new
    if type(old) is Scalar and type(new) is Scalar:
        return widen(old, new, thresholds)
    if type(old) is Pointer and type(new) is Pointer and old.area is new.area:
        span = widen(old.span, new.span, thresholds)
        return Pointer(new.area, new.symbol, new.offset, span, new.is_nullable)
    return new
