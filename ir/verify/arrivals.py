"""What states are kept at the blocks of a function, and what becomes of one more that arrives.

A block that several ways enter keeps up to `width` states for each thing that may be held there; one more is joined into
the last. At the head of a loop what grows again and again is widened, and counters are bounded by how often it can go
round; or its rounds are kept apart, concretely, as long as there are steps left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from ir.core import Block, Edge, Param
from ir.verify.held import NOTHING_HELD
from ir.verify.induction import Group
from ir.verify.meeting import covers_state, enter, join_states
from ir.verify.outline import Outline
from ir.verify.refusal import Refused
from ir.verify.scalar import Scalar, join, meet, widen
from ir.verify.state import State
from ir.verify.termination import Visits
from ir.verify.unprivileged import mixes_pointers
from ir.verify.values import MAX_LENGTH, Pointer

if TYPE_CHECKING:
    from ir.verify.explore import Explorer

_JOINS_BEFORE_WIDENING: Final = 2
_JOINS_WITH_THRESHOLDS: Final = 10
_MOST_LOSSY: Final = 6
_MOST_APART: Final = 200
_MOST_RECENT: Final = 16
# So many facts of a state are joined or compared in the time of a step, and so many states found to differ.
_FACTS_PER_STEP, _STATES_PER_STEP = 32, 8
# A block with one way in need not be rid of values that are no longer live, as long as they are few.
_MOST_DEAD: Final = 24


@final
@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try: states kept apart at a block, steps in all, and whether counters are bounded at once.

    `steps_per_insn` come on top, for each instruction of the program: long ones are gone through, too.
    """

    width: int
    steps: int
    clamps: bool
    steps_per_insn: int = 2


@final
@dataclass(eq=False, slots=True)
class Visit:
    """A state kept at a block. `base`: what arrived from outside of the loop; `joins`: how often it grew.

    `before`: the visit of a loop head that led here, if one. `clamped`: the counters of the loop that are
    bounded by how often it can go round. `round`: at the head of a loop whose rounds are kept apart, that of the loop
    around it and the number of this one. `number` orders visits by when they were made. `facts`: how many the state had
    when it was kept.
    """

    block: Block
    state: State
    base: State | None = None
    joins: int = 0
    is_pending: bool = False
    clamped: frozenset[Param] = frozenset()
    before: object = None
    round: object = None
    number: int = 0
    facts: int = 0


@final
class Arrivals:
    """The states that are kept in the walk through one call of a function.

    `groups`: the counters that move together, by each of them.
    """

    def __init__(self, explorer: Explorer, outline: Outline, visits: Visits) -> None:
        self.explorer, self.outline, self.visits = explorer, outline, visits
        self.groups: dict[Param, Group] = {}
        self._kept: dict[Block, dict[object, list[Visit]]] = {}
        self._recent: dict[Block, deque[Visit]] = {}  # where rounds of loops are kept apart

    def arrive(self, source: Block, edge: Edge, state: State) -> Visit | None:
        """Bring `state`, which may be changed, to where `edge` leads; what is to be walked now, None when nothing is new."""
        block, outline = edge.block, self.outline
        live = outline.live[block]
        if outline.ways_in[block] < 2:
            if block.params or len(state.known) > len(live) + _MOST_DEAD:
                state = enter(state, edge, live, outline.own(block), outline.slots_of(block))
            return Visit(block, state)
        own = outline.own(block)
        new = enter(state, edge, live, own, outline.slots_of(block))
        clamps, is_head = self.explorer.effort.clamps, block in outline.loops.heads
        is_back = is_head and outline.number[block] <= outline.number[source]
        if is_back:
            self.visits.note_step(block, state, edge)
            if clamps and not self._restrict(block, new):
                return None
        round_ = None if clamps else self._round(block, new, is_back)
        kept = self._kept.setdefault(block, {}).setdefault((_holding(new), round_), [])
        is_strict = self.explorer.subject.unprivileged
        unrolls = is_back and not clamps
        recent: Sequence[Visit] = () if clamps else self._recent.get(block, ())
        work = len(new.known) // _FACTS_PER_STEP + (len(kept) + len(recent)) // _STATES_PER_STEP
        if work:
            self.explorer.spend(work)
        for visit in (*kept, *recent) if recent else kept:
            if covers_state(visit.state, new, own) and not (is_strict and mixes_pointers(visit.state, new)):
                if unrolls and _is_before(visit, new) and not covers_state(new, visit.state, own):
                    continue
                if is_head:
                    self.visits.note_arrival(new.marks, visit, is_back)
                return None
        visit = self._place(block, new, kept, is_back)
        if not visit.joins:
            visit.round = round_
            if not clamps:
                self._recent.setdefault(block, deque(maxlen=_MOST_RECENT)).append(visit)
        if is_head:
            self.visits.note_arrival(new.marks, visit, is_back)
            visit.state.marks = frozenset((visit,))
        return visit

    def _round(self, block: Block, new: State, is_back: bool) -> object:
        """The rounds of the loops around `block` that `new` is of; they are kept apart where counters are not bounded."""
        loop = self.outline.loops.innermost.get(block)
        starts = loop is not None and loop.head is block and not is_back
        if starts:
            loop = loop.parent if loop is not None else None
        if loop is None:
            return (None, 0) if starts else None
        rounds = {_round_of(mark, loop.head) for mark in new.marks}
        found = rounds.pop() if len(rounds) == 1 else None
        if starts:
            return found, 0
        if is_back and isinstance(found, tuple):
            return found[0], found[1] + 1
        return found

    def _restrict(self, head: Block, new: State) -> bool:
        """On coming back to `head`, counters are within what was said there; False when that cannot be."""
        for mark in new.marks if len(new.marks) == 1 else ():
            if not isinstance(mark, Visit) or mark.block is not head:
                continue
            for param in mark.clamped:
                was, now = mark.state.known.get(param), new.known.get(param)
                if type(was) is Scalar and type(now) is Scalar:
                    both = meet(was, now)
                    if both is None:
                        return False
                    new.known[param] = both
                elif type(was) is Pointer and type(now) is Pointer and was.area is now.area:
                    both = meet(was.span, now.span)
                    if both is None:
                        return False
                    new.known[param] = Pointer(now.area, now.symbol, now.offset, both, now.is_nullable)
        return True

    def _place(self, block: Block, new: State, kept: list[Visit], is_back: bool) -> Visit:
        """Keep an arrival: by itself, or joined into one that is kept."""
        effort = self.explorer.effort
        into: Visit | None = None
        if is_back and effort.clamps:
            into = next((visit for visit in kept if visit in new.marks), None)
        if into is None and len(kept) < effort.width:
            return self._keep(block, new, kept, is_back)
        into = into or kept[-1]
        is_strict = self.explorer.subject.unprivileged
        loses = mixes_pointers if is_strict else loses_pointer
        if (is_strict or len(kept) < effort.width + _MOST_LOSSY) and loses(into.state, new):
            apart = next((visit for visit in kept if not loses(visit.state, new)), None)
            if apart is None:
                if len(kept) > _MOST_APART:
                    raise Refused("too-complex", f"more than {_MOST_APART} mixes of pointers and numbers")
                return self._keep(block, new, kept, is_back)
            into = apart
        self._grow(into, new, is_back)
        return into

    def _keep(self, block: Block, new: State, kept: list[Visit], is_back: bool) -> Visit:
        visit = Visit(block, new, None if is_back else new, number=self.explorer.states)
        if visit.base is not None and block in self.outline.loops.heads:
            visit.state = new.copy()
            self._clamp(visit)
        kept.append(visit)
        visit.facts = _MOST_DEAD + len(new.known) + len(new.stack) + len(new.rooms) + len(new.alias)
        self.explorer.keep(visit.facts)
        if new.marks:
            visit.before = min(new.marks, key=_number_of)
        return visit

    def _grow(self, visit: Visit, new: State, is_back: bool) -> None:
        """Join an arrival into a kept state; at the head of a loop, widen."""
        block, outline = visit.block, self.outline
        slot = outline.slots_of(block)
        old = visit.state
        state = join_states(old, new, slot)
        visit.joins += 1
        if block in outline.loops.heads:
            if not is_back and visit.base is not None:
                visit.base = join_states(visit.base, new, slot)
            if visit.joins >= _JOINS_BEFORE_WIDENING:
                few = visit.joins >= _JOINS_WITH_THRESHOLDS
                widen_state(old, state, (0, MAX_LENGTH) if few else outline.loops.thresholds(block))
        visit.state = state
        if block in outline.loops.heads:
            self._clamp(visit)

    def _clamp(self, visit: Visit) -> None:
        """Bound the counters of the loop that `visit` is at the head of, by how often it can go round."""
        induction = self.outline.inductions.get(visit.block)
        if induction is None or visit.base is None:
            return
        arrivals = induction.arrivals(visit.base)
        self.visits.note_arrivals(visit.block, arrivals)
        if not self.explorer.effort.clamps:
            return
        visit.state.exact = False
        group: Group = {}
        if arrivals is not None:
            group, visit.clamped = induction.clamp(visit.base, visit.state, arrivals)
        else:
            visit.clamped = frozenset()
        for param in induction.steps:
            self.groups[param] = _merge_groups(self.groups.get(param), group, param)

    def forget(self, block: Block) -> None:
        """Nothing arrives at `block` any more: what is kept there is not needed."""
        self._recent.pop(block, None)
        for visits in self._kept.pop(block, {}).values():
            for visit in visits:
                self.explorer.facts -= visit.facts

    def forget_all(self) -> None:
        """The walk is over."""
        for block in [*self._kept]:
            self.forget(block)


def limit_states(states: list[State], width: int) -> list[State]:
    """Join states that hold the same, until there are no more than the width allows."""
    if len(states) <= 1:
        return states
    groups: dict[object, list[State]] = {}
    for state in states:
        found = groups.setdefault(_holding(state), [])
        apart = len(found) < width + _MOST_LOSSY
        for position, other in enumerate(found):
            full = len(found) >= width
            if covers_state(other, state):
                break
            if full and not (apart and loses_pointer(other, state)):
                found[position] = join_states(other, state, lambda offset: Param(-1))
                break
        else:
            found.append(state)
    return [state for found in groups.values() for state in found]


def loses_pointer(a: State, b: State) -> bool:
    """Whether joining would forget what a pointer, here or in a stack slot, points into."""
    for value, known in a.known.items():
        other = b.known.get(value)
        if other is None or other is known:
            continue
        if type(known) is Pointer:
            if type(other) is Pointer:
                if known.area is not other.area and not known.area.is_like(other.area):
                    return True
            elif other.mask or other.value:
                return True
        elif type(other) is Pointer and (known.mask or known.value):
            return True
    for offset, (size, value) in a.stack.items():
        there = b.stack.get(offset)
        if there is None or there[0] != size or there[1] is value:
            continue
        x, y = a.of(value), b.of(there[1])
        if (type(x) is Pointer) != (type(y) is Pointer):
            return True
        if type(x) is Pointer and type(y) is Pointer and x.area is not y.area and not x.area.is_like(y.area):
            return True
    return False


def widen_state(old: State, state: State, thresholds: tuple[int, ...]) -> None:
    """Push on whatever of `state` is wider than `old`."""
    for value, fact in state.known.items():
        before = old.known.get(value)
        if before is None or before is fact:
            continue
        if type(before) is Scalar and type(fact) is Scalar:
            state.known[value] = widen(before, fact, thresholds)
        elif type(before) is Pointer and type(fact) is Pointer:
            span = widen(before.span, fact.span, thresholds)
            state.known[value] = Pointer(fact.area, fact.symbol, fact.offset, span, fact.is_nullable)
    for key, room in list(state.rooms.items()):
        if old.rooms.get(key) != room:
            del state.rooms[key]


def _merge_groups(old: Group | None, new: Group, param: Param) -> Group:
    """The counters that move with `param`, whichever way its loop was entered."""
    if old is None or old is new:
        return new
    return {each: (join(first, new[each][0]), step) for each, (first, step) in old.items() if each in new}


def _number_of(mark: object) -> int:
    assert isinstance(mark, Visit)
    return mark.number


def _round_of(mark: object, head: Block) -> object:
    """The round of the loop with that head that the visit `mark` is of, None when of none."""
    while isinstance(mark, Visit) and mark.block is not head:
        mark = mark.before
    return mark.round if isinstance(mark, Visit) else None


def _is_before(visit: Visit, state: State) -> bool:
    """Whether `state` comes of going on from `visit`."""
    mark: object = next(iter(state.marks)) if len(state.marks) == 1 else None
    while isinstance(mark, Visit):
        if mark is visit:
            return True
        mark = mark.before
    return False


def _holding(state: State) -> object:
    """States that differ in this are never joined."""
    held = state.held
    return None if held is NOTHING_HELD or held == NOTHING_HELD else held  # None is quick to hash
