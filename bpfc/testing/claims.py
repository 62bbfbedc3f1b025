"""What *prove* claims, and whether a run agrees with it: the concrete in the abstract, at every instruction.

While a program is proved, a Claims keeps the states that each visit of a block went through; the last walk of
a visit counts. A run must be in one of the visits of each block it enters, and stay in one of them from
instruction to instruction: numbers in ranges with their known bits, pointers in their objects at their
offsets, slots of the stack holding what was stored there, sums and lengths as related.

    proof     visit ─► State at the start, what is known after each instruction
    first     Track: the same as comparisons to make, without those that were made before of the same numbers
    each run  enter, after, after ... each makes the comparisons of the tracks that agreed so far
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Final, NamedTuple, final

from bpfc.testing.spread import U64, Activation, Contradiction, Run, Thing
from ir.core import Atomic, Block, Call, Const, Edge, Inst, Store, Value
from ir.region import RegionKind
from ir.verify.arrivals import Visit
from ir.verify.scalar import Scalar
from ir.verify.state import State
from ir.verify.values import ANY, AreaKind, Known, Pointer, as_number

KINDS: Final = {
    AreaKind.FRAME: RegionKind.FRAME,
    AreaKind.PACKET: RegionKind.PACKET,
    AreaKind.MEMORY: RegionKind.MEMORY,
    AreaKind.MAP_VALUE: RegionKind.MAP_VALUE,
    AreaKind.CONTEXT: RegionKind.CONTEXT,
}

Problem = tuple[object, ...] | None
"""What is claimed and not so: a text and what stands in it, put together when it is told; None when all of it is so."""
Comparison = Callable[[Run, Activation], Problem]
Holds = Callable[[int], bool]
_FEW: Final = 3


class Claim(NamedTuple):
    """What holds of an instruction's result; `state` when it changed more than that."""

    known: Known
    alias: tuple[Value, int] | None
    state: State | None


@final
class Claims:
    """Witness of a proof, then watcher of runs."""

    def __init__(self) -> None:
        self.entries: dict[Block, dict[Visit, State]] = {}
        self.results: dict[Inst, dict[Visit, list[Claim]]] = {}
        self._tracks: dict[Block, _Tracks] = {}
        self._agreeing: dict[Activation, list[Track]] = {}

    def see(self, visit: Visit, inst: Inst | None, states: list[State]) -> None:
        """Note what a proof says."""
        if inst is None:
            self.entries.setdefault(visit.block, {})[visit] = states[0].copy()
            return
        if type(inst) is Const:
            return
        more = isinstance(inst, Store | Call | Atomic)
        self.results.setdefault(inst, {})[visit] = [
            Claim(state.known.get(inst, ANY), state.alias.get(inst), state.copy() if more else None)
            for state in states
        ]

    def enter(self, run: Run, here: Activation, block: Block) -> None:
        """Some visit of the block must allow all numbers as they are."""
        if here.caller is None and block is here.function.entry:
            self._agreeing.clear()
        every = self._tracks.get(block)
        if every is None:
            visits = self.entries.get(block, {})
            every = self._tracks[block] = _Tracks(visits, self.results)
        tracks = every.possible(here)
        if not every.all:
            said = f"block at {block.start} was proved never to be reached"
            raise Contradiction("unreached", said, block.start)
        before = self._agreeing.get(here, ())
        # With many tracks, to know where each came from costs more than it spares.
        previous = before[0] if len(before) == 1 and len(tracks) <= _FEW else None
        problem: Problem = ("{} is in no round", every.told_by)
        agreeing: list[Track] = []
        for track in tracks:
            found = track.entry(previous)(run, here)
            if found is None:
                agreeing.append(track)
            else:
                problem = found
        self._agreeing[here] = agreeing
        if not agreeing:
            raise Contradiction(
                "claim", f"at the start of block {block.start}: {_told(problem)}", block.start
            )

    def after(self, run: Run, here: Activation, inst: Inst) -> None:
        """Some of the visits must still allow what is there now."""
        if type(inst) is Const:
            return
        tracks = self._agreeing[here]
        if len(tracks) == 1 and tracks[0].after.get(inst) == ():
            return  # as for most
        problem: Problem = ("nothing was claimed",)
        agreeing: list[Track] = []
        for track in tracks:
            comparisons = track.after.get(inst)
            if comparisons is None:
                continue
            if not comparisons:
                agreeing.append(track)
            for compare in comparisons:
                found = compare(run, here)
                if found is None:
                    agreeing.append(track)
                    break
                problem = found
        if not agreeing:
            raise Contradiction("claim", f"after {inst.at}: {_told(problem)}", inst.at)
        self._agreeing[here] = agreeing

    def leave(self, run: Run, here: Activation, block: Block, edge: Edge) -> None:
        """Nothing to compare: the block that is entered says more."""


@final
class _Tracks:
    """The tracks of a block; where they are many, by the number that some value has in each (the round of a loop)."""

    def __init__(self, visits: Mapping[Visit, State], results: dict[Inst, dict[Visit, list[Claim]]]) -> None:
        self.all = [Track(visit, state, results) for visit, state in visits.items()]
        self.told_by: Value | None = None
        self._with: dict[int, list[Track]] = {}
        self._others: list[Track] = []
        if len(self.all) > _FEW:
            numbers: dict[Value, set[int]] = {}
            for state in visits.values():
                for value, known in state.known.items():
                    if type(known) is Scalar and not known.mask:
                        numbers.setdefault(value, set()).add(known.value)
            self.told_by = max(numbers, key=lambda value: len(numbers[value]), default=None)
        for track, state in zip(self.all, visits.values(), strict=True):
            fact = state.known.get(self.told_by, ANY) if self.told_by is not None else ANY
            is_told = type(fact) is Scalar and not fact.mask
            (self._with.setdefault(as_number(fact).value, []) if is_told else self._others).append(track)

    def possible(self, here: Activation) -> list[Track]:
        """Those that allow the number of that value."""
        if self.told_by is None:
            return self.all
        number = here.values.get(self.told_by)
        return self.all if number is None else [*self._with.get(number, ()), *self._others]


@final
class Track:
    """What one visit of a block claims, as comparisons.

    `after`: of each instruction, one comparison for each state that there may be after it; none when one of them allows
    everything. What was compared since the block was entered (`compared`), of numbers and objects that are the same still,
    is not compared again: a store only changes the slots that it touches, and a call leaves the numbers.
    """

    def __init__(self, visit: Visit, entry: State, results: dict[Inst, dict[Visit, list[Claim]]]) -> None:
        self._visit, self._start, self._results = visit, entry, results
        self._entries: dict[Track | None, Comparison] = {}

    @cached_property
    def after(self) -> dict[Inst, tuple[Comparison, ...]]:
        """By instruction; nothing for those that the visit did not come to."""
        return self._all[0]

    @cached_property
    def compared(self) -> dict[Value, Known]:
        """At the end of the block."""
        return self._all[1]

    @cached_property
    def _all(self) -> tuple[dict[Inst, tuple[Comparison, ...]], dict[Value, Known]]:
        made = frozenset[Value](self._visit.block.insts)
        after: dict[Inst, tuple[Comparison, ...]] = {}
        compared = dict(self._start.known)
        before = self._start
        for inst in self._visit.block.insts:
            claims = self._results.get(inst, {}).get(self._visit)
            if not claims:  # never reached, so that whoever gets here contradicts
                continue
            if type(inst) is Call:  # it may move objects; numbers stay
                compared = {value: known for value, known in compared.items() if type(known) is Scalar}
            found = [_comparison(inst, claim, compared, before, made) for claim in claims]
            after[inst] = () if None in found else tuple(each for each in found if each is not None)
            if len(claims) > 1:
                compared.clear()
            elif claims[0].state is None:
                compared[inst] = claims[0].known
            else:
                before = claims[0].state
                compared.update(before.known)
        return after, compared

    def entry(self, previous: Track | None) -> Comparison:
        """The comparison on entering the block, from `previous` if that is known."""
        found = self._entries.get(previous)
        if found is None:
            compared: dict[Value, Known] = {}
            if previous is not None:
                params = self._visit.block.params
                compared = {
                    value: known
                    for value, known in previous.compared.items()
                    if value not in params and not (type(known) is Pointer and known.symbol is not None)
                }
            found = self._entries[previous] = _StateComparison(
                self._start, compared, None, frozenset()
            ).problem
        return found


def _comparison(
    inst: Inst, claim: Claim, compared: Mapping[Value, Known], before: State, made: frozenset[Value]
) -> Comparison | None:
    """The comparison after an instruction; None when it allows everything."""
    if claim.state is not None:
        stored = before if type(inst) is not Call else None
        return _StateComparison(claim.state, compared, stored, made).problem
    known = claim.known
    if type(known) is Pointer:
        return partial(_result_pointer_problem, inst, known)
    holds = _holds(known)
    return None if holds is None else partial(_result_problem, inst, known, holds)


def _result_problem(inst: Inst, known: Scalar, holds: Holds, run: Run, here: Activation) -> Problem:
    number = here.values[inst]
    return None if holds(number) else ("{:#x}, claimed {}", number, known)


def _result_pointer_problem(inst: Inst, known: Pointer, run: Run, here: Activation) -> Problem:
    return _pointer_problem(run, here, None, here.values, here.values[inst], known)


def _holds(fact: Scalar) -> Holds | None:
    """Whether a number is in the set, as `Scalar.contains` has it; None when every number is."""
    if fact is ANY:
        return None
    low, high, value, smin, smax = fact.umin, fact.umax, fact.value, fact.smin, fact.smax
    if low == high:
        return low.__eq__
    sign, sure = 1 << (fact.bits - 1), ~fact.mask & (1 << fact.bits) - 1
    if fact.low is not None or (smin < 0 <= smax and (smin, smax) != (-sign, sign - 1)):
        return (
            fact.contains
        )  # the signed range says more than the unsigned one, or the low half more than the whole
    if low >= sign or high < sign or (smin, smax) == (-sign, sign - 1):
        return lambda number: low <= number <= high and not (number ^ value) & sure
    return fact.contains


@final
class _StateComparison:
    """Everything that a state claims but `compared`. After a store, in what was the state `before`, slots that it did not
    touch are as they were.

    `made` are the values that the block makes: what names one in `compared` may be about an earlier one.
    """

    def __init__(
        self, state: State, compared: Mapping[Value, Known], before: State | None, made: frozenset[Value]
    ) -> None:
        self.state, self._is_store = state, before is not None
        self.numbers: list[tuple[Value, Scalar, Holds]] = []
        self.pointers: list[tuple[Value, Pointer]] = []
        for value, fact in state.known.items():
            if compared.get(value) is fact and not (
                type(fact) is Pointer and fact.symbol is not None and fact.symbol in made
            ):
                continue
            if type(fact) is Pointer:
                self.pointers.append((value, fact))
            elif (holds := _holds(fact)) is not None:
                self.numbers.append((value, fact, holds))
        slots, rooms, aliases = (
            (before.stack, before.rooms, before.alias) if before is not None else ({}, {}, {})
        )
        self.slots = [(offset, *slot) for offset, slot in state.stack.items()]
        self.new_slots = [
            (offset, *slot) for offset, slot in state.stack.items() if slots.get(offset) != slot
        ]
        self.rooms = [
            (*key, room)
            for key, room in state.rooms.items()
            if rooms.get(key) != room or not made.isdisjoint(key)
        ]
        self.aliases = [
            (value, alias)
            for value, alias in state.alias.items()
            if aliases.get(value) != alias or value in made or alias[0] in made
        ]

    def problem(self, run: Run, here: Activation) -> Problem:
        """What of it is not so."""
        values, state = here.values, self.state
        for value, fact, holds in self.numbers:
            number = values.get(value)
            if number is not None and not holds(number):
                return "{} is {:#x}, claimed {}", value, number, fact
        slots = self.slots
        if self._is_store and slots:
            thing, low, high = run.written
            if thing is not here.frame:
                low = high = 0
            slots = [slot for slot in slots if slot[0] < high and low < slot[0] + slot[1]]
            slots += [slot for slot in self.new_slots if slot not in slots]
        if slots:
            problem, bound = _slots_problem(run, here, state, slots)
            if problem is not None:
                return problem
            if bound:
                values = {**values, **bound}
        for value, pointer in self.pointers:
            number = values.get(value)
            if number is not None:
                problem = _pointer_problem(run, here, state, values, number, pointer)
                if problem is not None:
                    return f"{{}}: {problem[0]}", value, *problem[1:]
        for value, alias in self.aliases:
            problem = _alias_problem(run, state, values, value, alias)
            if problem is not None:
                return problem
        for symbol, length, room in self.rooms:
            low_, high_ = _measure(run, state, values, symbol), _length(run, state, values, length)
            if low_ is not None and high_ is not None and low_ + room > high_:
                return "{} = {} and {} bytes more are claimed to be below {}", symbol, low_, room, high_
        return None


def _slots_problem(
    run: Run, here: Activation, state: State, slots: list[tuple[int, int, Value]]
) -> tuple[Problem, dict[Value, int]]:
    """What of the stack is not as claimed; the numbers of symbols that only stand for what is there."""
    data, values, order = here.frame.data, here.values, run.order
    bound: dict[Value, int] = {}
    for offset, size, value in slots:
        found = int.from_bytes(data[offset : offset + size], order)
        number = value.value & (1 << 8 * size) - 1 if type(value) is Const else values.get(value)
        if number is None:
            bound[value] = found
            fact = state.known.get(value, ANY)
            if type(fact) is Scalar:
                problem: Problem = None if fact.contains(found) else ("{:#x}, claimed {}", found, fact)
            else:
                problem = _pointer_problem(run, here, state, {**values, value: found}, found, fact)
            if problem is not None:
                return (f"stack {{}} holds {problem[0]}", offset - 512, *problem[1:]), bound
        elif number != found:
            said = "stack {} holds {:#x}, claimed {}, which is {:#x}"
            return (said, offset - 512, found, value, number), bound
    return None, bound


def _pointer_problem(
    run: Run, here: Activation, state: State | None, values: dict[Value, int], number: int, fact: Pointer
) -> Problem:
    if not number and fact.is_nullable:
        return None
    area = fact.area
    if area.kind is AreaKind.MAP:
        found = run.map_at(number)
        is_so = found is not None and found.name == area.name
        return None if is_so else ("{:#x}, claimed {}", number, fact)
    kind = KINDS.get(area.kind)
    if kind is None:
        return None
    thing = _object_of(run, here, number, fact, kind)
    if thing is None:
        return "{:#x}, claimed {}", number, fact
    offset = number - thing.base & U64
    if fact.symbol is None:
        return None if offset == fact.offset & U64 else ("offset {}, claimed {}", offset, fact.offset)
    if state is None:
        return None
    base = _measure(run, state, values, fact.symbol)
    if base is None or (base + fact.offset - offset) & U64 == 0:
        return None
    return "offset {}, claimed {} = {} plus {}", offset, fact.symbol, base, fact.offset


def _object_of(run: Run, here: Activation, number: int, fact: Pointer, kind: RegionKind) -> Thing | None:
    """The object of the claimed area that `number` lies in, at an offset that is claimed."""
    area = fact.area
    near = run.thing_at(number)
    for thing in (near,) if near is not None and near.kind is kind else run.things:
        if thing.kind is not kind or not fact.span.contains(number - thing.base & U64):
            continue
        if kind is RegionKind.FRAME and thing.name != area.name:
            continue
        if kind is RegionKind.MAP_VALUE and thing.name != area.name:
            continue
        if kind is RegionKind.PACKET and thing is not run.main:
            continue
        return thing
    return None


def _alias_problem(
    run: Run, state: State, values: dict[Value, int], value: Value, alias: tuple[Value, int]
) -> Problem:
    symbol, step = alias
    number, root = values.get(value), values.get(symbol)
    if number is None:
        return None
    if root is not None and root + step == number:
        return None
    x, y = _measure(run, state, values, value), _measure(run, state, values, symbol)
    if x is None or y is None or y + step == x:
        return None
    return "{} is {:#x}, claimed {} = {:#x} plus {}", value, number, symbol, y, step


def _measure(run: Run, state: State, values: dict[Value, int], symbol: Value) -> int | None:
    """The number that a symbol stands for: of a pointer its offset; None when that cannot be told."""
    if type(symbol) is Const:
        return symbol.value
    number = values.get(symbol)
    if number is None:
        return _length(run, state, values, symbol)
    fact = state.known.get(symbol)
    if type(fact) is Scalar and fact is not ANY:
        return number
    thing = run.thing_at(number)
    if type(fact) is Pointer:
        return number - thing.base if thing is not None and thing.kind is KINDS.get(fact.area.kind) else None
    return None if thing is not None else number


def _length(run: Run, state: State, values: dict[Value, int], symbol: Value) -> int | None:
    """The length that a symbol stands for."""
    if symbol in values:
        return values[symbol]
    packet = state.packet
    if packet is not None and packet.length is symbol:
        return len(run.main.data)
    if packet is not None and packet.meta is not None and packet.meta.length is symbol:
        return 0
    params = run.module.main.params
    if run.module.context.is_raw and symbol is params[1]:
        return len(run.main.data)
    return None


def _told(problem: Problem) -> str:
    assert problem is not None
    text, *named = problem
    assert isinstance(text, str)
    return text.format(*(_name(each) if isinstance(each, Value) else each for each in named))


def _name(value: Value) -> str:
    at = getattr(value, "at", None)
    kind = type(value).__name__.lower()
    return f"{kind} at {at}" if at is not None else f"{kind} r{getattr(value, 'register', '?')}"
