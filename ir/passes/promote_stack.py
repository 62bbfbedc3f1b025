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

A slot is a range of bytes that every access covers exactly. It stays in memory when an atomic operation or a
helper touches it, and so does the whole frame once its address goes anywhere else: into memory, to a
subprogram, through variable arithmetic. A slot holds 0 before its first store, as a frame starts zeroed.
Needs: no unreachable blocks. Keeps: blocks, effects, traps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

from ir.core import Block, Const, Function, Inst, Load, Module, Param, Store, Value, substitute
from ir.dominators import Dominators
from ir.explain import Notes
from ir.frame_uses import find_frame_uses
from ir.passes.widths import Widths

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
    slots = {slot: number for number, slot in enumerate(uses.slots())}
    if not slots:
        return False
    accesses = {inst: slots[place] for inst, place in uses.accesses.items() if place in slots}
    promotion = _Promotion(function, accesses, Widths(module.context))
    return promotion.run()


@final
class _Promotion:
    """The promotion of one function. Slots are numbers, `accesses` say which one an instruction is about."""

    def __init__(self, function: Function, accesses: dict[Load | Store, int], widths: Widths) -> None:
        self.function, self.accesses, self.widths = function, accesses, widths
        self.tree = Dominators(function)
        self.entering = {
            block: [source for source, _ in edges] for block, edges in function.predecessors().items()
        }
        self.stored: dict[Block, int] = {}  # masks of slots
        self.loaded: dict[Block, int] = {}  # before they are stored
        self.joined: dict[Block, list[tuple[int, Param]]] = {}
        self.replaced: dict[Value, Value] = {}
        self.zero: Const | None = None

    def run(self) -> bool:
        """Place parameters where different values meet, then put values in place of loads."""
        self._summarize()
        frontiers = self.tree.frontiers(self.entering, MOST_FRONTIERS * len(self.function.blocks))
        if frontiers is None:
            return False
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
        accesses = self.accesses
        for block in self.function.blocks:
            stored = loaded = 0
            for inst in block.insts:
                if type(inst) is Store and inst in accesses:
                    stored |= 1 << accesses[inst]
                elif type(inst) is Load and inst in accesses:
                    loaded |= 1 << accesses[inst] & ~stored
            self.stored[block], self.loaded[block] = stored, loaded

    def _live(self) -> dict[Block, int]:
        """The slots whose content at the start of each block may be loaded."""
        live = dict(self.loaded)
        work = [block for block, mask in live.items() if mask]
        while work:
            block = work.pop()
            for before in self.entering[block]:
                more = live[block] & ~self.stored[before] & ~live[before]
                if more:
                    live[before] |= more
                    work.append(before)
        return live

    def _place_params(self, frontiers: dict[Block, list[Block]]) -> None:
        live = self._live()
        count = 1 + max(self.accesses.values(), default=-1)
        stores: list[list[Block]] = [[] for _ in range(count)]
        for block, mask in self.stored.items():
            while mask:
                low = mask & -mask
                stores[low.bit_length() - 1].append(block)
                mask ^= low
        for slot, work in enumerate(stores):
            placed: set[Block] = set()
            while work:
                for block in frontiers[work.pop()]:
                    if block not in placed and live[block] >> slot & 1:
                        placed.add(block)
                        self.joined.setdefault(block, []).append((slot, Param(-1)))
                        work.append(block)

    def _rename(self, block: Block, state: dict[int, Value]) -> None:
        """Go through a block with the values of the slots at its start; `state` is left as at its end."""
        kept: list[Inst] = []
        accesses, replaced = self.accesses, self.replaced
        for inst in block.insts:
            if replaced:
                substitute(inst, replaced)
            if type(inst) is Store and inst in accesses:
                state[accesses[inst]] = inst.value
            elif type(inst) is Load and inst in accesses:
                value = state.get(accesses[inst]) or self._zero()
                replaced[inst], made = self.widths.extend(value, 8 * inst.row.size, inst.row.signed, inst.at)
                kept += made
            else:
                kept.append(inst)
        block.insts = kept
        block.params += [param for _, param in self.joined.get(block, ())]
        if replaced:
            substitute(block.terminator, replaced)
        for edge in block.edges():
            edge.args += [state.get(slot) or self._zero() for slot, _ in self.joined.get(edge.block, ())]

    def _zero(self) -> Const:
        """What a slot holds before its first store; made in the entry."""
        if self.zero is None:
            self.zero = Const(0, self.function.entry.start)
        return self.zero
