"""Walking a function from state to state, until nothing new arrives anywhere.

What is kept of what arrives at a block, ir/verify/arrivals.py decides. Subprograms are walked at each call with the state
of their caller.
"""

from __future__ import annotations

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
from ir.verify.arrivals import Arrivals, Effort, Visit, limit_states
from ir.verify.branch import fork
from ir.verify.callbacks import call_back, call_later, compare
from ir.verify.effects import functions_that_move_packets
from ir.verify.exits import check_exit, check_global_exit
from ir.verify.global_functions import arguments_of, check_call
from ir.verify.helper_calls import call_helper, check_poison, find_helper
from ir.verify.indirect import asked_with_tables, call_any
from ir.verify.kernel_locks import SAVED_BY_LOCK, save_interrupts, take_lock
from ir.verify.kfunc_calls import call_kfunc, find_kfunc, lock_kind
from ir.verify.meeting import covers_state
from ir.verify.outline import Outline
from ir.verify.refusal import Refused
from ir.verify.scalar import Scalar, meet
from ir.verify.state import State, Trail, pointer_room
from ir.verify.steps import Steps
from ir.verify.subject import Subject
from ir.verify.termination import Visits
from ir.verify.unprivileged import check_comparison
from ir.verify.values import ANY, Area, Known, Pointer

MAX_DEPTH: Final = 8
# Facts that kept states may have together, some fifty bytes each: fewer in long programs, which take room themselves.
_MOST_FACTS, _LEAST_FACTS, _FACTS_PER_INSN = 1_000_000, 100_000, 6

# By names of their own, for a member of an Enum is slow to find.
_SUBPROGRAM, _HELPER = Callee.SUBPROGRAM, Callee.HELPER

RESULT: Final = Param(0)
"""Stands for r0 in the state at a function's exit."""


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
        self.visits = Visits(explorer.subject.module, function, self.outline)
        self.arrivals = Arrivals(explorer, self.outline, self.visits)
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
                self.arrivals.forget(block)
        self.visits.check()
        self.arrivals.forget_all()
        return self.exits

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
                    states = limit_states(after, explorer.effort.width)
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
            self._go(block, terminator.edge, state)
            return
        if type(terminator) is not Branch:
            if type(terminator) is MayGoto:
                self.visits.note_may_goto(block)
            taken, other = block.edges()
            self._go(block, taken, state.copy())
            self._go(block, other, state)
            return
        if self.explorer.subject.unprivileged:
            check_comparison(state, terminator)
        trail = state.trail
        taken_way, other_way = fork(state, terminator, self.arrivals.groups)
        if taken_way is not None and other_way is not None:
            taken_way.trail = Trail(trail, terminator, True)
            other_way.trail = Trail(trail, terminator, False)
        if taken_way is not None:
            self._go(block, terminator.taken, taken_way)
        if other_way is not None:
            self._go(block, terminator.other, other_way)

    def _go(self, source: Block, edge: Edge, state: State) -> None:
        """Go on where `edge` leads, unless that is known."""
        visit = self.arrivals.arrive(source, edge, state)
        if visit is not None:
            self._schedule(visit)

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
        self.exits = limit_states(self.exits, self.explorer.effort.width)
