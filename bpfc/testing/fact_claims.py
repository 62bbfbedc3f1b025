"""What the fast analysis claims, for lowering to leave out checks, compared with a run."""

from __future__ import annotations

from typing import final

from bpfc.testing.claims import KINDS
from bpfc.testing.spread import U64, Activation, Contradiction, Run
from ir.core import Atomic, Block, Branch, Edge, Function, Inst, Load, Store, Value
from ir.verify.facts import Facts
from ir.verify.flow import Flow
from ir.verify.loops import Loops
from ir.verify.scalar import Scalar
from ir.verify.values import AreaKind, Known


@final
class FactClaims:
    """Watches runs of the module that `facts` are about."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._loops: dict[Function, Loops] = {}

    def enter(self, run: Run, here: Activation, block: Block) -> None:
        """The block may be reached, and its parameters are as claimed."""
        if not self.facts.is_reached(block):
            raise Contradiction("unreached", f"block at {block.start} was not to be reached", block.start)
        for param in here.function.params if block is here.function.entry else block.params:
            self._check(run, param, here.values[param], block.start)

    def after(self, run: Run, here: Activation, inst: Inst) -> None:
        """The result is as claimed, and a proved access was to an object that is there."""
        number = here.values.get(inst)
        if number is not None:
            self._check(run, inst, number, inst.at)
        if isinstance(inst, Load | Store | Atomic) and self.facts.is_proved(inst):
            address = run.number(here, inst.base) + inst.offset & U64
            thing = run.thing_at(address)
            writes = type(inst) is not Load
            if (
                thing is None
                or not 0 <= address - thing.base <= len(thing.data) - inst.row.size
                or (writes and not thing.writable)
            ):
                raise Contradiction("fault", f"proved access at {inst.at} is outside: {address:#x}", inst.at)

    def leave(self, run: Run, here: Activation, block: Block, edge: Edge) -> None:
        """The way is possible, and a loop goes round no more often than it may."""
        terminator = block.terminator
        if type(terminator) is Branch and self.facts.outcome(terminator) not in (
            None,
            edge is terminator.taken,
        ):
            said = f"branch at {terminator.at} went the impossible way"
            raise Contradiction("claim", said, terminator.at)
        loops = self._loops_of(here.function)
        if loops.number[edge.block] > loops.number[block]:
            if edge.block in loops.heads:
                here.trips[edge.block] = 0
            return
        trips = here.trips[edge.block] = here.trips.get(edge.block, 0) + 1
        bound = self.facts.trips.get(edge.block)
        if bound is not None and trips > bound:
            said = f"{trips} trips to block at {edge.block.start}, bound {bound}"
            raise Contradiction("trips", said, edge.block.start)

    def _loops_of(self, function: Function) -> Loops:
        found = self._loops.get(function)
        if found is None:
            found = self._loops[function] = Loops(Flow(function))
        return found

    def _check(self, run: Run, value: Value, number: int, at: int) -> None:
        known = self.facts.value(value)
        if not _agrees(run, known, number):
            raise Contradiction("claim", f"value at {at} is {number:#x}, claimed {known}", at)


def _agrees(run: Run, known: Known, number: int) -> bool:
    """Whether the claim allows the number."""
    if isinstance(known, Scalar):
        return known.contains(number)
    if known.is_nullable and not number:
        return True
    if known.area.kind is AreaKind.MAP:
        return run.map_at(number) is not None
    kind, name = KINDS.get(known.area.kind), known.area.name
    for thing in run.things:
        if thing.kind is not kind or name not in ("", thing.name, "caller"):
            continue
        if name == "caller" or known.span.contains(number - thing.base & U64):
            return True
    return False
