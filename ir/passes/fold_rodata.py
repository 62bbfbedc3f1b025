"""`fold-rodata`: replace what read-only data makes constant, and remove what it makes unreachable.

    v1 = address map-value .rodata + 4
    v2 = ldx32 [v1 + 0]                                  v2 = const 0
    if jeq64 v2, 0: block 2 (1) else block 1      ->     jump block 2
    block 1:                                             block 2:
      v3 = call helper 999                                 v4 = const 1
      jump block 2 (v3)                                    return v4
    block 2 (v4):
      return v4

Loads from frozen maps are folded as `ir/constants.py` says, every decided branch is noted with the bytes that
decided it. Needs: nothing. Keeps: static branches, may_goto, effects on the paths that remain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, final

from ir.constants import Constants
from ir.core import Alu, Branch, Const, Function, Inst, Jump, Load, Module, Value
from ir.explain import Decision, Notes, ReadOnlyLoad
from ir.object import Map
from ir.passes.prune_branches import remove_unreachable
from ir.rename import drop_params, rename

MOST_REASONS: Final = 16
Reasons = frozenset[ReadOnlyLoad]


@final
@dataclass(frozen=True, slots=True)
class FoldRodata:
    """Propagate constants, those of read-only maps included, along the paths that can be taken."""

    name: ClassVar[str] = "fold-rodata"
    summary: ClassVar[str] = "fold loads from frozen maps and remove the branches they decide"

    def run(self, module: Module, notes: Notes) -> bool:
        """Fold in every function."""
        return sum(fold_rodata(function, module.maps, notes) for function in module.functions.values()) > 0


def fold_rodata(function: Function, maps: Mapping[str, Map], notes: Notes) -> bool:
    """Fold in one function; whether anything changed."""
    constants = Constants(function, maps)
    decided = [
        (block, block.terminator, is_taken)
        for block in function.blocks
        if type(block.terminator) is Branch and constants.is_reached(block)
        if (is_taken := constants.decision(block.terminator)) is not None
    ]
    if decided:
        reasons = _find_reasons(function, constants) if constants.has_folded_load else {}
        for block, branch, is_taken in decided:
            loads = reasons.get(branch.x, frozenset()) | reasons.get(branch.y, frozenset())
            because = tuple(sorted(loads, key=lambda load: (load.map, load.offset, load.size)))
            notes.append(Decision(function.location(branch.at), is_taken, because))
            block.terminator = Jump(branch.taken if is_taken else branch.other, branch.at)
        remove_unreachable(function)
    return _replace(function, constants) or bool(decided)


def _find_reasons(function: Function, constants: Constants) -> dict[Value, Reasons]:
    """The read-only loads that each constant value comes from, at most MOST_REASONS of them."""
    reasons: dict[Value, Reasons] = {}
    entering = function.predecessors()
    none: Reasons = frozenset()

    def note(value: Value, *parts: Reasons) -> None:
        together = none.union(*parts)
        if together:
            few = sorted(together, key=lambda load: (load.map, load.offset))[:MOST_REASONS]
            reasons[value] = next((part for part in parts if len(part) == len(few)), frozenset(few))

    for block in function.reverse_postorder():
        if not constants.is_reached(block):
            continue
        for position, param in enumerate(block.params):
            if param in constants.facts:
                args = [edge.args[position] for _, edge in entering[block] if edge in constants.taken]
                note(param, *(reasons.get(arg, none) for arg in args))
        for inst in block.insts:
            value = constants.facts.get(inst)
            if type(inst) is Load and type(value) is int:
                place = constants.place_of(inst)
                assert place is not None
                at = function.location(inst.at)
                note(inst, frozenset((ReadOnlyLoad(place.map, place.offset, inst.row.size, value, at),)))
            elif type(inst) is Alu and value is not None:
                note(inst, reasons.get(inst.x, none), reasons.get(inst.y, none))
    return reasons


def _replace(function: Function, constants: Constants) -> bool:
    """Put constants in place of the instructions and parameters that are some."""
    replaced: dict[Value, Value] = {}
    facts = constants.facts
    if not facts:
        return False
    for block in function.blocks:
        kept: list[Inst] = []
        for param in block.params:
            value = facts.get(param)
            if type(value) is int:
                replaced[param] = const = Const(value, block.start)
                kept.append(const)
        for inst in block.insts:
            value = None if type(inst) is Const else facts.get(inst)
            if type(value) is int:
                replaced[inst] = const = Const(value, inst.at)
                kept.append(const)
            else:
                kept.append(inst)
        block.insts = kept
    if replaced:
        drop_params(function, replaced)
        rename(function, replaced)
    return bool(replaced)
