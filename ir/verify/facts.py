"""What the fast analysis proved: accesses that need no check, loops that need no fuel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from ir.callees import callees_of, functions_taken
from ir.context import Argument
from ir.core import (
    Alu,
    Atomic,
    Block,
    Branch,
    Call,
    Const,
    Function,
    Inst,
    Load,
    Module,
    Param,
    Store,
    Value,
)
from ir.isa import Callee
from ir.region import RegionKind
from ir.regions import Regions
from ir.verify.cost import loops_without_fuel, order_callees_first
from ir.verify.effects import FRAME_SIZE, Effects, World
from ir.verify.meeting import join_states
from ir.verify.ranges import FunctionRanges
from ir.verify.refusal import Refused
from ir.verify.scalar import Scalar, between
from ir.verify.state import State, pointer_room
from ir.verify.trips import trip_bound
from ir.verify.values import ANY, MAX_LENGTH, AreaKind, Known, Pointer, start_of


@final
class Facts:
    """Filled by `analyze`, then only read."""

    def __init__(self) -> None:
        self.proved: set[Inst] = set()
        self.known: dict[Value, Known] = {}
        self.unreached: set[Block] = set()
        self.outcomes: dict[Branch, bool] = {}
        self.trips: dict[Block, int] = {}
        self.free: set[Block] = set()

    def is_proved(self, inst: Inst) -> bool:
        """Whether a load, store or atomic surely accesses memory that is there and may be accessed so."""
        return inst in self.proved

    def trip_bound(self, block: Block) -> int | None:
        """How often at most the back-edges to `block` are taken each time its loop is entered.

        None when unknown, or when the loop may run for so long that it should be watched all the same.
        """
        return self.trips[block] if block in self.free else None

    def value(self, value: Value) -> Known:
        """What is known of `value` wherever it is used; ANY when nothing."""
        return self.known.get(value, ANY)

    def is_never_zero(self, value: Value, bits: int) -> bool:
        """Whether the low `bits` (32 or 64) of `value` are surely not all 0."""
        known = self.value(value)
        if type(known) is not Scalar:
            return False
        return (known.half() if bits == 32 else known).umin > 0

    def outcome(self, branch: Branch) -> bool | None:
        """Whether a branch that is reached is always taken (True) or never (False)."""
        return self.outcomes.get(branch)

    def is_reached(self, block: Block) -> bool:
        """Whether control may get to `block`."""
        return block not in self.unreached


def analyze(module: Module, regions: Regions | None = None) -> Facts:
    """Prove what can be proved fast. `regions` are those that lowering uses."""
    regions = regions or Regions(module)
    world = World(module, regions)
    facts = _analyze(world)
    if world.has_wild_writes:
        facts = _analyze(World(module, regions, trusts_callees=False))
    return facts


def _analyze(world: World) -> Facts:
    facts = Facts()
    entries: dict[str, State | None] = {world.module.main.name: _main_entry(world)}
    callees_first = order_callees_first(world.module)
    for name in functions_taken(world.module):
        entries[name] = State()
    for name in reversed(callees_first):
        entry = entries.get(name)
        if entry is None:
            continue
        function = world.module.functions[name]
        if not _walk(world, function, entry, facts, entries):
            world.has_wild_writes = True
            for callee in callees_of(world.module, function):
                entries[callee] = State()
    facts.free = loops_without_fuel(world.module, facts.trips)
    return facts


def _main_entry(world: World) -> State:
    state = State()
    main = world.module.main
    if world.module.context.is_raw:
        memory, length = main.params
        state.limits = (length,)
        state.known[length] = between(64, 0, MAX_LENGTH)
        state.known[memory] = start_of(world.area(memory, AreaKind.MEMORY, length=length))
        return state
    context = world.module.context
    for param, argument in zip(main.params, context.arguments, strict=False):
        if argument is Argument.CONTEXT:
            state.known[param] = start_of(world.area(param, AreaKind.CONTEXT))
    for param, (size, is_nullable) in zip(main.params, context.pointees, strict=False):
        if size:
            state.known[param] = start_of(world.area(param, AreaKind.MEMORY, size=size), is_nullable)
    return state


def _walk(
    world: World, function: Function, entry: State, facts: Facts, entries: dict[str, State | None]
) -> bool:
    """Collect what every instruction tells with the state at the fixed point; False when none was found in time."""
    try:
        ranges = FunctionRanges(function, Effects(world, function), entry)
    except Refused:  # for loops too deep in each other
        return False
    collector = _Collector(world, ranges, facts, entries)
    if ranges.is_acyclic:
        ranges.sweep(collector)
    else:
        wild = world.has_wild_writes
        if not ranges.run():
            return False
        world.has_wild_writes = wild
        for block in ranges.order:
            if block in ranges.states:
                ranges.walk(block, collector)
    collector.end()
    return True


@final
class _Collector:
    """Watches the walk over a function's fixed point and keeps what it tells."""

    def __init__(
        self, world: World, ranges: FunctionRanges, facts: Facts, entries: dict[str, State | None]
    ) -> None:
        self.world, self._ranges, self._facts, self._entries = world, ranges, facts, entries

    def see(self, state: State, inst: Inst) -> None:
        kind = type(inst)
        if kind is Alu or kind is Const:
            return
        if isinstance(inst, Load | Store | Atomic):
            if _is_proved(self.world, self._ranges.effects, state, inst):
                self._facts.proved.add(inst)
        elif isinstance(inst, Call):
            _note_call(self.world, state, inst, self._entries)

    def leave(self, block: Block, state: State, ways: Sequence[State | None]) -> None:
        known, start = self._facts.known, self._ranges.states[block]
        for param in block.params:
            known[param] = start.of(param)
        found = state.known
        for inst in block.insts:
            known[inst] = found.get(inst, ANY)
        terminator = block.terminator
        if type(terminator) is Branch and (ways[0] is None) != (ways[1] is None):
            self._facts.outcomes[terminator] = ways[1] is None

    def end(self) -> None:
        """After the last block: what was never reached, and how often loops turn."""
        ranges, facts = self._ranges, self._facts
        for param in ranges.function.params:
            facts.known[param] = ranges.entry.of(param)
        facts.unreached.update(block for block in ranges.order if block not in ranges.states)
        for head, loop in ranges.loops.heads.items():
            if loop.is_natural and head in ranges.states:
                trips = trip_bound(ranges, loop)
                if trips is not None:
                    facts.trips[head] = trips


def _is_proved(world: World, effects: Effects, state: State, inst: Load | Store | Atomic) -> bool:
    writes = not isinstance(inst, Load)
    if not effects.is_inside(state, inst.base, inst.offset, inst.row.size, writes):
        return False
    pointer = state.of(inst.base)
    assert type(pointer) is Pointer
    if pointer.area is effects.frame:
        # Lowering makes the frame as large as it sees a need for; it must see this pointer.
        return world.regions.of(inst.base).kind is RegionKind.FRAME
    return True


def _note_call(world: World, state: State, call: Call, entries: dict[str, State | None]) -> None:
    """Join what the call passes into what is known at the entry of the functions that it may run."""
    if call.callee is Callee.SUBPROGRAM and isinstance(call.target, str):
        passed = State(state.packet, state.limits)
        for limit in state.limits:
            passed.known[limit] = state.of(limit)
        params = world.module.functions[call.target].params
        for param, arg in zip(params, call.args, strict=False):
            _pass_argument(world, state, passed, param, arg)
        entries[call.target] = _join_entries(entries.get(call.target), passed)


def _pass_argument(world: World, state: State, passed: State, param: Value, arg: Value) -> None:
    fact = state.of(arg)
    if type(fact) is not Pointer:
        passed.known[param] = fact
        return
    if fact.area.kind is AreaKind.FRAME:
        # Of another function's frame only what lies above the pointer counts as there.
        area = world.area(param, AreaKind.FRAME, "caller", FRAME_SIZE)
        room = fact.area.size - fact.span.smax
        area.size = min(area.size, room) if fact.span.smin >= 0 and not fact.is_nullable else 0
        passed.known[param] = start_of(area, fact.is_nullable)
        return
    room_below = pointer_room(state, fact)
    if room_below is not None and fact.area.length is not None:
        passed.rooms[param, fact.area.length] = room_below
    symbol = None if not fact.span.mask else param
    offset = fact.span.smin if not fact.span.mask else 0
    passed.known[param] = Pointer(fact.area, symbol, offset, fact.span, fact.is_nullable)


def _join_entries(old: State | None, new: State) -> State:
    return new if old is None else join_states(old, new, Param)
