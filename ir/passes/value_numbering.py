"""`value-numbering`: use a value that every path here has computed before, instead of computing it again.

    v1 = add64 v0, 14                    v1 = add64 v0, 14
    if jgt64 v1, v9: block 2 else ...    if jgt64 v1, v9: block 2 else ...
    block 1:                      ->     block 1:
      v2 = add64 v0, 14                    v3 = ldx16 [v1 + 2]
      v3 = ldx16 [v2 + 2]

Only operations without memory are compared: arithmetic and addresses. Constants stay where they are used.
Needs: no unreachable blocks. Keeps: blocks, edges, effects.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, final

from ir.core import Address, Alu, Block, Const, Function, Inst, Module, Value, substitute
from ir.dominators import Dominators
from ir.explain import Notes
from ir.passes.laws import laws_of


@final
@dataclass(frozen=True, slots=True)
class ValueNumbering:
    """Number the values of each function along its dominator tree."""

    name: ClassVar[str] = "value-numbering"
    summary: ClassVar[str] = "compute each value once where one place dominates the others"

    def run(self, module: Module, notes: Notes) -> bool:
        """Number every function."""
        return sum(map(number_values, module.functions.values())) > 0


def number_values(function: Function) -> bool:
    """Replace what was computed before in one function; whether anything changed."""
    tree = Dominators(function)
    known: dict[Hashable, tuple[Value, Block]] = {}
    replaced: dict[Value, Value] = {}
    for block in tree.preorder:  # so that a value whose block does not dominate this one is of no more use
        kept: list[Inst] = []
        for inst in block.insts:
            if replaced:
                substitute(inst, replaced)
            key = _key(inst)
            if key is None:
                kept.append(inst)
                continue
            found = known.get(key)
            if found is None and type(inst) is Alu and laws_of(inst.row, False).is_commutative:
                found = known.get((inst.row.meaning, inst.row.bits, _operand(inst.y), _operand(inst.x)))
            if found is not None and tree.dominates(found[1], block):
                replaced[inst] = found[0]
            else:
                known[key] = inst, block
                kept.append(inst)
        if replaced:
            block.insts = kept
            substitute(block.terminator, replaced)
    return bool(replaced)


def _key(inst: Inst) -> Hashable:
    """What instructions that compute the same have in common; None when nothing can replace `inst`."""
    if type(inst) is Alu:
        return inst.row.meaning, inst.row.bits, _operand(inst.x), _operand(inst.y)
    if type(inst) is Address:
        return inst.reference
    return None


def _operand(value: Value) -> Value | int:
    return value.value if type(value) is Const else value
