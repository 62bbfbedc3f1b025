"""What *prove* claims, and whether a run agrees with it: the concrete in the abstract, at every instruction.

While a program is proved, a Claims keeps the states that each visit of a block went through; the last walk of
a visit counts. A run must be in one of the visits of each block it enters, and stay in one of them from
instruction to instruction: numbers in ranges with their known bits, pointers in their objects at their
offsets, slots of the stack holding what was stored there, sums and lengths as related.
"""

from __future__ import annotations

from typing import Final, NamedTuple, final

from bpfc.testing.spread import U64, Activation, Contradiction, Run, Thing
from ir.core import Atomic, Block, Call, Const, Edge, Inst, Store, Value
from ir.region import RegionKind
from ir.verify.explore import Visit
from ir.verify.scalar import Scalar
from ir.verify.state import State
from ir.verify.values import ANY, AreaKind, Known, Pointer

KINDS: Final = {
    AreaKind.FRAME: RegionKind.FRAME,
    AreaKind.PACKET: RegionKind.PACKET,
    AreaKind.MEMORY: RegionKind.MEMORY,
    AreaKind.MAP_VALUE: RegionKind.MAP_VALUE,
    AreaKind.CONTEXT: RegionKind.CONTEXT,
}


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
        self._visits: list[Visit] = []

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
        entries = self.entries.get(block)
        if entries is None:
            raise Contradiction(
                "unreached", f"block at {block.start} was proved never to be reached", block.start
            )
        problem = ""
        self._visits = []
        for visit, state in entries.items():
            found = problem_of(run, here, state)
            if not found:
                self._visits.append(visit)
            problem = problem or found
        if not self._visits:
            raise Contradiction("claim", f"at the start of block {block.start}: {problem}", block.start)

    def after(self, run: Run, here: Activation, inst: Inst) -> None:
        """Some of the visits must still allow what is there now."""
        if type(inst) is Const:
            return
        claims = self.results.get(inst)
        if type(inst) is Call:
            # A subprogram's own blocks were entered meanwhile.
            self._visits = list(claims or ())
        problem = ""
        left: list[Visit] = []
        for visit in self._visits:
            for claim in claims.get(visit, ()) if claims is not None else ():
                found = _problem_after(run, here, inst, claim)
                if not found:
                    left.append(visit)
                    break
                problem = problem or found
        self._visits = left
        if not left:
            raise Contradiction("claim", f"after {inst.at}: {problem or 'nothing was claimed'}", inst.at)

    def leave(self, run: Run, here: Activation, block: Block, edge: Edge) -> None:
        """Nothing to compare: the block that is entered says more."""


def problem_of(run: Run, here: Activation, state: State) -> str:
    """What `state` says that is not so, '' when all of it is."""
    bound: dict[Value, int] = {}
    values = here.values
    if state.stack:
        problem = _stack_problem(run, here, state, bound)
        if problem:
            return problem
    if bound:
        values = {**values, **bound}
    for value, fact in state.known.items():
        number = values.get(value)
        if number is None:
            continue
        if type(fact) is Scalar:
            if not fact.contains(number):
                return f"{_name(value)} is {number:#x}, claimed {fact}"
        elif problem := _pointer_problem(run, here, state, values, number, fact):
            return f"{_name(value)}: {problem}"
    for value, alias in state.alias.items():
        if problem := _alias_problem(run, state, values, value, alias):
            return problem
    for (symbol, length), room in state.rooms.items():
        low, high = _measure(run, state, values, symbol), _length(run, state, values, length)
        if low is not None and high is not None and low + room > high:
            return f"{_name(symbol)} = {low} and {room} bytes more are claimed to be below {high}"
    return ""


def _problem_after(run: Run, here: Activation, inst: Inst, claim: Claim) -> str:
    if claim.state is not None:
        problem = problem_of(run, here, claim.state)
        if problem:
            return problem
    number = here.values.get(inst)
    if number is None:
        return ""
    known = claim.known
    if type(known) is Scalar:
        return "" if known.contains(number) else f"{number:#x}, claimed {known}"
    return _pointer_problem(run, here, claim.state, here.values, number, known)


def _stack_problem(run: Run, here: Activation, state: State, bound: dict[Value, int]) -> str:
    data = here.frame.data
    for offset, (size, value) in state.stack.items():
        found = int.from_bytes(data[offset : offset + size], run.order)
        if type(value) is Const:
            if found != value.value & (1 << 8 * size) - 1:
                return f"stack {offset - 512} holds {found:#x}, claimed {value.value:#x}"
            continue
        number = here.values.get(value)
        if number is None:
            bound[value] = found
        elif number != found:
            return f"stack {offset - 512} holds {found:#x}, claimed {_name(value)}, which is {number:#x}"
    return ""


def _pointer_problem(
    run: Run, here: Activation, state: State | None, values: dict[Value, int], number: int, fact: Pointer
) -> str:
    if not number and fact.is_nullable:
        return ""
    area = fact.area
    if area.kind is AreaKind.MAP:
        found = run.map_at(number)
        return "" if found is not None and found.name == area.name else f"{number:#x}, claimed {fact}"
    kind = KINDS.get(area.kind)
    if kind is None:
        return ""
    thing = _object_of(run, here, number, fact, kind)
    if thing is None:
        return f"{number:#x}, claimed {fact}"
    offset = number - thing.base & U64
    if fact.symbol is None:
        return "" if offset == fact.offset & U64 else f"offset {offset}, claimed {fact.offset}"
    if state is None:
        return ""
    base = _measure(run, state, values, fact.symbol)
    if base is None or (base + fact.offset - offset) & U64 == 0:
        return ""
    return f"offset {offset}, claimed {_name(fact.symbol)} = {base} plus {fact.offset}"


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
) -> str:
    symbol, step = alias
    number, root = values.get(value), values.get(symbol)
    if number is None:
        return ""
    if root is not None and root + step == number:
        return ""
    x, y = _measure(run, state, values, value), _measure(run, state, values, symbol)
    if x is None or y is None or y + step == x:
        return ""
    return f"{_name(value)} is {number:#x}, claimed {_name(symbol)} = {y:#x} plus {step}"


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


def _name(value: Value) -> str:
    at = getattr(value, "at", None)
    kind = type(value).__name__.lower()
    return f"{kind} at {at}" if at is not None else f"{kind} r{getattr(value, 'register', '?')}"
