"""Walking a function with sets of states: joined where nothing is lost by it, kept apart as far as a width allows.

A block that several ways enter keeps up to `width` states for each thing that may be held there; one more is
joined into the last. At width 1 that is a plain fixed-point analysis; wider, it tells paths apart;
concretely, loops are gone round as often as it takes. Subprograms are walked at each call with the state of
their caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from heapq import heappop, heappush
from typing import Final, Protocol, final

from ir.core import (
    Block,
    Branch,
    Call,
    Const,
    Edge,
    Function,
    Inst,
    Jump,
    MayGoto,
    Param,
    Return,
    Value,
    operands,
)
from ir.isa import Callee
from ir.object import POISON_HELPER
from ir.verify.abrupt import (
    check_global_call,
    check_throw,
    is_exception_callback,
    leave_packet_load,
    leave_tail_call,
)
from ir.verify.branch import fork
from ir.verify.callbacks import call_back, call_later, compare
from ir.verify.effects import functions_that_move_packets
from ir.verify.exits import check_exit, check_global_exit
from ir.verify.global_functions import arguments_of, check_call
from ir.verify.held import NOTHING_HELD
from ir.verify.helper_calls import call_helper, check_poison, find_helper
from ir.verify.indirect import asked_with_tables, call_any
from ir.verify.induction import Group
from ir.verify.kernel_locks import SAVED_BY_LOCK, save_interrupts, take_lock
from ir.verify.kfunc_calls import call_kfunc, find_kfunc, lock_kind
from ir.verify.outline import Outline
from ir.verify.refusal import Refused
from ir.verify.scalar import Scalar, join, meet, widen
from ir.verify.state import State, Trail, covers_state, enter, join_states, pointer_room
from ir.verify.steps import Steps
from ir.verify.subject import Subject
from ir.verify.termination import Visits
from ir.verify.unprivileged import check_comparison, mixes_pointers
from ir.verify.values import ANY, MAX_LENGTH, Area, Known, Pointer

MAX_DEPTH: Final = 8
_JOINS_BEFORE_WIDENING: Final = 2
_JOINS_WITH_THRESHOLDS: Final = 10
_MOST_LOSSY: Final = 6
_MOST_APART: Final = 200
_MOST_RECENT: Final = 16
# Facts that kept states may have together, some fifty bytes each: fewer in long programs, which take room themselves.
_MOST_FACTS, _LEAST_FACTS, _FACTS_PER_INSN = 1_000_000, 100_000, 6
# So many facts of a state are joined or compared in the time of a step, and so many states found to differ.
_FACTS_PER_STEP, _STATES_PER_STEP = 32, 8
# A block with one way in need not be rid of values that are no longer live, as long as they are few.
_MOST_DEAD: Final = 24

# By names of their own, for a member of an Enum is slow to find.
_SUBPROGRAM, _HELPER = Callee.SUBPROGRAM, Callee.HELPER

RESULT: Final = Param(0)
"""Stands for r0 in the state at a function's exit."""


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


class Witness(Protocol):
    """Who looks on while states are walked: `inst` None is the start of the visit's block."""

    def see(self, visit: Visit, inst: Inst | None, states: list[State]) -> None:
        """`states` are what holds after `inst`; they go on changing."""


@final
class Explorer:
    """One attempt to prove a subject."""

    def __init__(
        self,
        subject: Subject,
        effort: Effort,
        outlines: dict[Function, Outline],
        witness: Witness | None = None,
    ) -> None:
        self.witness = witness
        self.subject = subject
        self.effort = effort
        self.outlines = outlines
        self.budget = effort.steps + effort.steps_per_insn * len(subject.program.insns)
        self.steps_left = self.budget
        self.states = 0
        self.facts = 0  # of states that are kept
        self.most_facts = max(_MOST_FACTS - _FACTS_PER_INSN * len(subject.program.insns), _LEAST_FACTS)
        self.has_rounds = False  # whether something is gone round
        self.called: list[Function] = []  # global functions, in the order in which they were come to
        self.through: dict[Call, dict[str, None]] = {}  # through registers: the functions that a call may run

    @cached_property
    def moving(self) -> frozenset[str]:
        """The functions during whose call the packet may move."""
        return functions_that_move_packets(self.subject.module)

    @property
    def is_spent(self) -> bool:
        """Whether it ended because there were too many states."""
        return self.steps_left < 0 or self.facts > self.most_facts

    def outline(self, function: Function) -> Outline:
        """The outline of a function, made when first asked for."""
        found = self.outlines.get(function)
        if found is None:
            asked = asked_with_tables if self.subject.program.tokens else operands
            found = self.outlines[function] = Outline(function, asked)
        return found

    def walk(self, function: Function, entry: State, frames: tuple[Area, ...]) -> list[State]:
        """The states in which `function` returns, r0 as RESULT. Raises Refused."""
        if len(frames) >= MAX_DEPTH:
            raise Refused("call-depth", f"calls nest more than {MAX_DEPTH} functions deep")
        return Walk(self, function, frames).run(entry)

    def spend(self, steps: int) -> None:
        """Take work that is no instruction from the budget, too. Raises Refused when nothing is left."""
        self.steps_left -= steps
        if self.steps_left < 0:
            raise Refused("too-complex", f"not proved within {self.budget} steps")

    def keep(self, facts: int) -> None:
        """Make room for a state with so many facts. Raises Refused when there is none."""
        self.facts += facts
        if self.facts > self.most_facts:
            raise Refused("too-complex", f"not proved with {self.most_facts} facts in mind")


@final
class Walk:
    """The walk through one call of a function."""

    def __init__(self, explorer: Explorer, function: Function, frames: tuple[Area, ...]) -> None:
        self.explorer = explorer
        self.function = function
        self.main = explorer.subject.module.main
        self.frames = frames
        self.outline = explorer.outline(function)
        explorer.has_rounds |= bool(self.outline.loops.heads)
        self.steps = Steps(explorer.subject, function, frames)
        if function is not self.main:
            self.steps.leave_packet_load = partial(leave_packet_load, self)
        self.is_end = function is self.main or (
            not frames and is_exception_callback(explorer.subject, function)
        )
        self.groups: dict[Param, Group] = {}
        self.visits = Visits(explorer.subject.module, function, self.outline)
        self._kept: dict[Block, dict[object, list[Visit]]] = {}
        self._recent: dict[Block, deque[Visit]] = {}  # where rounds of loops are kept apart
        self._pending: dict[Block, list[Visit]] = {}
        self._queue: list[int] = []
        self.exits: list[State] = []

    def run(self, entry: State) -> list[State]:
        """Walk until nothing new arrives anywhere."""
        outline = self.outline
        self._schedule(Visit(outline.order[0], entry))
        while self._queue:
            block = outline.order[heappop(self._queue)]
            for visit in self._pending.pop(block, ()):
                visit.is_pending = False
                self._walk_block(block, visit)
            if outline.is_final(block):
                self._forget(block)
        self.visits.check()
        for block in [*self._kept]:
            self._forget(block)
        return self.exits

    def _forget(self, block: Block) -> None:
        """Nothing arrives at `block` any more: what is kept there is not needed."""
        self._recent.pop(block, None)
        for visits in self._kept.pop(block, {}).values():
            for visit in visits:
                self.explorer.facts -= visit.facts

    def _schedule(self, visit: Visit) -> None:
        if visit.is_pending:
            return
        visit.is_pending = True
        self.explorer.states += 1
        waiting = self._pending.setdefault(visit.block, [])
        if not waiting:
            heappush(self._queue, self.outline.number[visit.block])
        waiting.append(visit)

    def _walk_block(self, block: Block, visit: Visit) -> None:
        state, explorer = visit.state, self.explorer
        witness, steps, width, left = explorer.witness, self.steps, 1, explorer.steps_left
        # A state that no other way in is compared with is nobody else's.
        states = [state.copy() if self.outline.ways_in[block] > 1 else state]
        inst: object = None
        if witness is not None:
            witness.see(visit, None, states)
        try:
            for inst in block.insts:
                left -= width
                if left < 0:
                    explorer.steps_left = left
                    explorer.spend(0)
                if type(inst) is Call:
                    explorer.steps_left = left
                    after: list[State] = []
                    for state in states:
                        after += self._call(state, inst)
                    states = self._limit(after, inst)
                    width, left = len(states), explorer.steps_left
                elif type(inst) is not Const:
                    for state in states:
                        steps.apply(state, inst)
                if witness is not None:
                    witness.see(visit, inst, states)
            inst, explorer.steps_left = block.terminator, left
            for state in states:
                self._leave(block, state)
        except Refused as refused:
            explorer.steps_left = min(left, explorer.steps_left)
            if refused.at < 0:
                refused.at = getattr(inst, "at", -1)
                refused.function = self.function.name
                refused.state = state
            raise

    def _leave(self, block: Block, state: State) -> None:
        """Follow every way out of a block; the last may have the state itself."""
        terminator = block.terminator
        if type(terminator) is Return:
            self.leave(state, terminator.value)
            return
        if type(terminator) is Jump:
            self._arrive(block, terminator.edge, state)
            return
        if type(terminator) is not Branch:
            if type(terminator) is MayGoto:
                self.visits.note_may_goto(block)
            taken, other = block.edges()
            self._arrive(block, taken, state.copy())
            self._arrive(block, other, state)
            return
        if self.explorer.subject.unprivileged:
            check_comparison(state, terminator)
        trail = state.trail
        taken_way, other_way = fork(state, terminator, self.groups)
        if taken_way is not None and other_way is not None:
            taken_way.trail = Trail(trail, terminator, True)
            other_way.trail = Trail(trail, terminator, False)
        if taken_way is not None:
            self._arrive(block, terminator.taken, taken_way)
        if other_way is not None:
            self._arrive(block, terminator.other, other_way)

    def _arrive(self, source: Block, edge: Edge, state: State) -> None:
        """Bring `state`, which is the walk's to change, to where `edge` leads."""
        block, outline = edge.block, self.outline
        live = outline.live[block]
        if outline.ways_in[block] < 2:
            if block.params or len(state.known) > len(live) + _MOST_DEAD:
                state = enter(state, edge, live, outline.own(block), outline.slots_of(block))
            self._schedule(Visit(block, state))
            return
        own = outline.own(block)
        new = enter(state, edge, live, own, outline.slots_of(block))
        clamps, is_head = self.explorer.effort.clamps, block in outline.loops.heads
        is_back = is_head and outline.number[block] <= outline.number[source]
        if is_back:
            self.visits.note_step(block, state, edge)
            if clamps and not self._restrict(block, new):
                return
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
                return
        visit = self._place(block, new, kept, is_back)
        if not visit.joins:
            visit.round = round_
            if not clamps:
                self._recent.setdefault(block, deque(maxlen=_MOST_RECENT)).append(visit)
        if is_head:
            self.visits.note_arrival(new.marks, visit, is_back)
            visit.state.marks = frozenset((visit,))
        self._schedule(visit)

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

    def _call(self, state: State, call: Call) -> list[State]:
        subject = self.explorer.subject
        callee = call.callee
        if callee is _SUBPROGRAM and isinstance(call.target, str):
            return self._call_subprogram(state, call, subject.module.functions[call.target])
        if call.target == POISON_HELPER and call.at in subject.program.poisoned:
            check_poison(subject, call)
            state.known[call] = ANY
            return [state]
        if callee is _HELPER:
            helper = find_helper(subject, state.held, call)
            passed = call_helper(self.steps, state, call, helper)
            if helper.name == "tail_call" and self.function is not self.main:
                leave_tail_call(self, state)
            return call_back(self, state, call, helper, passed) if passed.function else [state]
        if callee is Callee.KFUNC:
            kfunc = find_kfunc(subject, state.held, call)
            passed = call_kfunc(self.steps, state, call, kfunc)
            if passed.function:
                (compare if passed.root is not None else call_later)(self, state, call, passed)
            if "trylock" in kfunc.flags and passed.locked is not None:
                refused, locked = take_lock(state, call, passed.locked, lock_kind(kfunc))
                if len(kfunc.parameters) > 1:
                    save_interrupts(self.steps, locked, call, call.args[1], SAVED_BY_LOCK)
                return [refused, locked]
            if "throws" in kfunc.flags:
                check_throw(self, state, call)
                return []
            return [state]
        return call_any(self, state, call)

    def _call_subprogram(self, state: State, call: Call, function: Function) -> list[State]:
        arguments = arguments_of(self.explorer.subject, function)
        if arguments is not None:
            check_global_call(self.explorer.subject, state, function)
            check_call(self.steps, state, call, function.name, arguments)
            if function not in self.explorer.called:
                self.explorer.called.append(function)
            if function.name in self.explorer.moving:
                state.forget_packets(self.explorer.subject.lost(call.at))
            return [state]
        return [self.resume(call, done) for done in self.enter_function(state, function, list(call.args))]

    def enter_function(self, state: State, function: Function, args: list[Value | Known]) -> list[State]:
        """Walk a function called from here with `args` for its parameters, in order; the states in which it returns."""
        inner = State(state.packet, state.limits)
        inner.held, inner.outer, inner.trail, inner.exact = state.held, state, state.trail, state.exact
        for limit in state.limits:
            inner.known[limit] = state.of(limit)
        for position, param in enumerate(function.params):
            arg: Value | Known = args[position] if position < len(args) else ANY
            known = arg if isinstance(arg, Scalar | Pointer) else state.of(arg)
            inner.known[param] = known
            if type(known) is Scalar and arg is not known and arg in args[:position]:
                inner.alias[param] = function.params[args.index(arg)], 0  # one value, twice
            if type(known) is Pointer and known.symbol is not None and known.area.length is not None:
                room = state.rooms.get((known.symbol, known.area.length))
                if room is not None:
                    inner.rooms[known.symbol, known.area.length] = room
        return self.explorer.walk(function, inner, (self.steps.frame, *self.frames))

    def resume(self, call: Call | None, done: State) -> State:
        """The caller's state after a function returned in state `done`."""
        assert done.outer is not None
        state = done.outer.copy()
        for symbol in done.lent:
            state.lent.pop(symbol, None)
        state.held, state.trail, state.exact = done.held, done.trail, done.exact
        if done.packet is not state.packet:
            state.packet = None
        else:
            for limit in state.limits:
                # What the function found of lengths holds on: it may be what it was called for.
                state.known[limit] = meet(state.number(limit), done.number(limit)) or state.number(limit)
        if call is not None:
            known = done.of(RESULT)
            room = pointer_room(done, known) if type(known) is Pointer else None
            if type(known) is Pointer and known.symbol is not None:
                known = Pointer(known.area, call, 0, known.span, known.is_nullable)
                if room is not None and known.area.length is not None:
                    state.rooms[call, known.area.length] = room
            state.known[call] = known
            state.alias.pop(call, None)
        return state

    def leave(self, state: State, value: Value) -> None:
        """Keep what the caller needs of the state at an exit."""
        known = state.of(value)
        module = self.explorer.subject.module
        if self.is_end and module.context.is_main:
            check_exit(self.explorer.subject, state, value)
        elif not self.frames and arguments_of(self.explorer.subject, self.function) is not None:
            check_global_exit(state, value)
        elif type(known) is Pointer and known.area is self.steps.frame:
            raise Refused("stack-escape", "a function returns a pointer into its own stack frame", value)
        if state.held.objects_in(self.steps.frame, 0, 1 << 16):
            objects = [found for found in state.held.objects if found.frame is self.steps.frame]
            if any(found.is_owned for found in objects):
                raise Refused(
                    "reference-leak", f"exit with a {objects[0].kind} that holds a reference", value
                )
            state.held = state.held.with_objects(state.held.objects - set(objects))
        state.give_back()
        left = State(state.packet, state.limits)
        left.lent = state.lent
        left.held, left.outer, left.trail, left.exact = state.held, state.outer, state.trail, state.exact
        left.known = {limit: state.of(limit) for limit in state.limits}
        left.known[RESULT] = known
        left.rooms = state.rooms
        for kept in self.exits:
            if covers_state(kept, left):
                return
        self.exits.append(left)
        self.exits = self._limit(self.exits, None)

    def _limit(self, states: list[State], at: object) -> list[State]:
        """Join states that hold the same, until there are no more than the width allows."""
        if len(states) <= 1:
            return states
        groups: dict[object, list[State]] = {}
        for state in states:
            found = groups.setdefault(_holding(state), [])
            apart = len(found) < self.explorer.effort.width + _MOST_LOSSY
            for position, other in enumerate(found):
                full = len(found) >= self.explorer.effort.width
                if covers_state(other, state):
                    break
                if full and not (apart and loses_pointer(other, state)):
                    found[position] = join_states(other, state, lambda offset: Param(-1))
                    break
            else:
                found.append(state)
        return [state for found in groups.values() for state in found]

    def active(self) -> Iterator[Visit]:
        """Every state kept at a block."""
        for by_held in self._kept.values():
            for visits in by_held.values():
                yield from visits


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
