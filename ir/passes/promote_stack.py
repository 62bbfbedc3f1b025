"""`promote-stack`: turn stack slots that are only stored and loaded into values.

    v1 = frame                                 v1 = frame
    stx64 [v1 - 8], v0                         if jeq64 v2, 0: block 2 (v0) else block 1
    if jeq64 v2, 0: block 2 else block 1  ->   block 1:
    block 1:                                     jump block 2 (7)
      stx64 [v1 - 8], 7                        block 2 (v3):
      jump block 2                               v4 = ldx32 [v3 + 4]
    block 2:
      v3 = ldx64 [v1 - 8]
      v4 = ldx32 [v3 + 4]

A slot is up to 8 bytes of the frame, read and written in whole or in part. It stays in memory when an atomic operation or
a helper touches it, and so does the whole frame once its address goes anywhere else: into memory, to a subprogram, through
variable arithmetic. A slot holds 0 before its first store, as a frame starts zeroed.
Needs: no unreachable blocks. Keeps: blocks, effects, traps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

from ir.core import Block, Const, Function, Inst, Load, Module, Param, Store, Value, substitute
from ir.dominators import Dominators
from ir.explain import Notes
from ir.frame_uses import FRAME_SIZE, Range, find_frame_uses
from ir.passes.widths import Bits, Widths

MOST_FRONTIERS: Final = 8
"""Joins that a block may reach on average; only deeply nested loops have more, and they keep their stack."""


@final
@dataclass(frozen=True, slots=True)
class PromoteStack:
    """Promote in every function that has a frame."""

    name: ClassVar[str] = "promote-stack"
    summary: ClassVar[str] = "turn stack slots that are only stored and loaded into values"

    def run(self, module: Module, notes: Notes) -> bool:
        """Promote in every function."""
        return sum(promote_stack(function, module) for function in module.functions.values()) > 0


def promote_stack(function: Function, module: Module) -> bool:
    """Promote the slots of one function; whether there were any."""
    uses = find_frame_uses(function, module)
    slots = uses.slots()
    if not slots:
        return False
    numbers = {slot: number for number, slot in enumerate(dict.fromkeys(slots.values()))}
    parts = {
        part: Part.of(part, slot, numbers[slot], module.program.big_endian) for part, slot in slots.items()
    }
    accesses = {inst: parts[place] for inst, place in uses.accesses.items() if place in parts}
    return _Promotion(function, accesses, list(numbers), Widths(module.context)).run()


@final
@dataclass(frozen=True, slots=True)
class Part:
    """Where an access lies: in which slot, at which bit of the slot's value; `touched` and `rest` are bytes of the frame."""

    slot: int
    shift: int
    touched: int
    rest: int

    @staticmethod
    def of(place: Range, slot: Range, number: int, big_endian: bool) -> Part:
        """The part `place` of a slot."""
        below = slot.end - place.end if big_endian else place.start - slot.start
        touched = _bytes(place)
        return Part(number, 8 * below, touched, _bytes(slot) & ~touched)


def _bytes(place: Range) -> int:
    """The bytes of a range as a mask."""
    return ((1 << place.end - place.start) - 1) << place.start + FRAME_SIZE


@final
class _Promotion:
    """The promotion of one function: `slots` by number, and the part of one that each of `accesses` is about."""

    def __init__(
        self, function: Function, accesses: dict[Load | Store, Part], slots: list[Range], widths: Widths
    ) -> None:
        self.function, self.accesses, self.slots, self.widths = function, accesses, slots, widths
        self.tree = Dominators(function)
        self.entering = {
            block: [source for source, _ in edges] for block, edges in function.predecessors().items()
        }
        self.stored: dict[Block, int] = {}  # masks of bytes, as `live`
        self.live: dict[Block, int] = {}
        self.whole: set[Inst] = set()  # stores after which the rest of their slot is not loaded
        self.joined: dict[Block, list[tuple[int, Param]]] = {}
        self.replaced: dict[Value, Value] = {}
        self.zero: Const | None = None

    def run(self) -> bool:
        """Place parameters where different values meet, then put values in place of loads."""
        self._summarize()
        frontiers = self.tree.frontiers(self.entering, MOST_FRONTIERS * len(self.function.blocks))
        if frontiers is None:
            return False
        self._flow_live()
        self._find_whole()
        self._place_params(frontiers)
        states: dict[Block, dict[int, Value]] = {}
        for block in self.tree.preorder:
            parent = self.tree.parent.get(block)
            state = dict(states[parent]) if parent is not None else {}
            state.update(self.joined.get(block, ()))
            self._rename(block, state)
            states[block] = state
        if self.zero is not None:
            self.function.entry.insts.insert(0, self.zero)
        return True

    def _summarize(self) -> None:
        """The bytes that each block stores, and those that it loads before, so that they are live where it starts."""
        accesses = self.accesses
        for block in self.function.blocks:
            stored = loaded = 0
            for inst in block.insts:
                if type(inst) is Store and inst in accesses:
                    stored |= accesses[inst].touched
                elif type(inst) is Load and inst in accesses:
                    loaded |= accesses[inst].touched & ~stored
            self.stored[block], self.live[block] = stored, loaded

    def _flow_live(self) -> None:
        """Backward: the bytes whose content at the start of each block may be loaded."""
        live = self.live
        work = [block for block, mask in live.items() if mask]
        while work:
            block = work.pop()
            for before in self.entering[block]:
                more = live[block] & ~self.stored[before] & ~live[before]
                if more:
                    live[before] |= more
                    work.append(before)

    def _find_whole(self) -> None:
        accesses = self.accesses
        partial = {inst for inst, part in accesses.items() if part.rest and type(inst) is Store}
        for block in self.function.blocks if partial else ():
            live = 0
            for successor in block.successors():
                live |= self.live[successor]
            for inst in reversed(block.insts):
                if type(inst) is Load and inst in accesses:
                    live |= accesses[inst].touched
                elif type(inst) is Store and inst in accesses:
                    part = accesses[inst]
                    if not live & part.rest:
                        self.whole.add(inst)
                    live &= ~part.touched

    def _place_params(self, frontiers: dict[Block, list[Block]]) -> None:
        for number, slot in enumerate(self.slots):
            mask = _bytes(slot)
            work = [block for block, stored in self.stored.items() if stored & mask]
            placed: set[Block] = set()
            while work:
                for block in frontiers[work.pop()]:
                    if block not in placed and self.live[block] & mask:
                        placed.add(block)
                        self.joined.setdefault(block, []).append((number, Param(-1)))
                        work.append(block)

    def _rename(self, block: Block, state: dict[int, Value]) -> None:
        """Go through a block with the values of the slots at its start; `state` is left as at its end."""
        kept: list[Inst] = []
        accesses, replaced = self.accesses, self.replaced
        for inst in block.insts:
            if replaced and type(inst) is not Const:
                substitute(inst, replaced)
            if type(inst) is Store and inst in accesses:
                self._store(inst, state, kept)
            elif type(inst) is Load and inst in accesses:
                part = accesses[inst]
                bits = Bits(inst.at)
                value = bits.shift_right(state.get(part.slot) or self._zero(), part.shift)
                replaced[inst], made = self.widths.extend(value, 8 * inst.row.size, inst.row.signed, inst.at)
                kept += bits.made
                kept += made
            else:
                kept.append(inst)
        block.insts = kept
        block.params += [param for _, param in self.joined.get(block, ())]
        if replaced:
            substitute(block.terminator, replaced)
        for edge in block.edges():
            edge.args += [state.get(slot) or self._zero() for slot, _ in self.joined.get(edge.block, ())]

    def _store(self, store: Store, state: dict[int, Value], kept: list[Inst]) -> None:
        part = self.accesses[store]
        bits = Bits(store.at)
        value = bits.shift_left(store.value, part.shift)
        if part.rest and store not in self.whole:
            mask = ((1 << 8 * store.row.size) - 1) << part.shift
            value = bits.replace(state.get(part.slot) or self._zero(), value, mask)
        state[part.slot] = value
        kept += bits.made

    def _zero(self) -> Const:
        """What a slot holds before its first store; made in the entry."""
        if self.zero is None:
            self.zero = Const(0, self.function.entry.start)
        return self.zero
