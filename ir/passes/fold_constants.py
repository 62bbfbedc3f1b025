"""`fold-constants`: operations on constants become their result, those that change nothing their operand.

    v1 = const 6                     v1 = const 6
    v2 = const 7                     v2 = const 7
    v3 = mul64 v1, v2          ->    v3 = const 42
    v4 = add64 v0, 0
    v5 = load u8 [v4 + 2]            v5 = load u8 [v0 + 2]
    v6 = mov32 v5
    store u8 [v0 + 3] = v6           store u8 [v0 + 3] = v5

Needs: no unreachable blocks. Keeps: blocks, edges, effects. Leaves what became unused to remove-dead-code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

from ir.algebra import Integers
from ir.core import Alu, Const, Function, Inst, Module, Value, substitute
from ir.explain import Notes
from ir.isa import ROW_BY_NAME, compute
from ir.passes.laws import OPERAND, laws_of
from ir.passes.widths import Widths

_LEFT: Final = ROW_BY_NAME["lsh64 imm"].meaning
_RIGHT: Final = ROW_BY_NAME["rsh64 imm"].meaning
_SIGNED_RIGHT: Final = ROW_BY_NAME["arsh64 imm"].meaning
_MOVE: Final = ROW_BY_NAME["mov32 reg"].meaning

Better = tuple[Value, list[Inst]]
"""What stands for an instruction, and the new instructions that takes."""


@final
@dataclass(frozen=True, slots=True)
class FoldConstants:
    """Fold constant operations and algebraic identities, in one sweep over each function."""

    name: ClassVar[str] = "fold-constants"
    summary: ClassVar[str] = "compute constant operations and drop those that change nothing"

    def run(self, module: Module, notes: Notes) -> bool:
        """Fold in every function."""
        folder = _Folder(Integers(module.program.big_endian), Widths(module.context))
        return sum(map(folder.run, module.functions.values())) > 0


@final
@dataclass(frozen=True, slots=True)
class _Folder:
    """Folds functions of one program."""

    algebra: Integers
    widths: Widths

    def run(self, function: Function) -> bool:
        """Fold in one function; whether anything changed."""
        replaced: dict[Value, Value] = {}
        for block in function.reverse_postorder():  # definitions come before their uses: one sweep does
            kept: list[Inst] = []
            for inst in block.insts:
                if type(inst) is Const:
                    kept.append(inst)
                    continue
                if replaced:
                    substitute(inst, replaced)
                better = self._fold(inst) if type(inst) is Alu else None
                if better is None:
                    kept.append(inst)
                else:
                    replaced[inst] = better[0]
                    kept += better[1]
            if replaced:
                block.insts = kept
                substitute(block.terminator, replaced)
        return bool(replaced)

    def _fold(self, alu: Alu) -> Better | None:
        row, x, y = alu.row, alu.x, alu.y
        if type(x) is Const and type(y) is Const:
            const = Const(compute(row, self.algebra, x.value, y.value), alu.at)
            return const, [const]
        if type(y) is Const:
            if row.meaning is _RIGHT or row.meaning is _SIGNED_RIGHT:
                shifted = self._fold_shifts(alu, x, y.value)
                if shifted is not None:
                    return shifted
            laws = laws_of(row, self.algebra.big_endian)
            return self._apply(laws.right.get(y.value & (1 << row.bits) - 1), alu, x)
        if type(x) is Const:
            laws = laws_of(row, self.algebra.big_endian)
            return self._apply(laws.left.get(x.value & (1 << row.bits) - 1), alu, y)
        if x is y:
            return self._apply(laws_of(row, self.algebra.big_endian).same, alu, x)
        return None

    def _apply(self, law: int | None, alu: Alu, other: Value) -> Better | None:
        """The result that a law gives, `other` being the operand it may be."""
        if law is None:
            return None
        if law != OPERAND:
            const = Const(law, alu.at)
            return const, [const]
        if alu.row.meaning is _MOVE and self.widths.of(other) > alu.row.bits:
            return None
        return self.widths.extend(other, alu.row.bits, False, alu.at)

    def _fold_shifts(self, alu: Alu, x: Value, count: int) -> Better | None:
        """A shift to the left and back by the same count: how clang extends narrow integers before cpu v3."""
        if alu.row.bits != 64 or type(x) is not Alu or x.row.bits != 64 or x.row.meaning is not _LEFT:
            return None
        bits = 64 - (count & 63)
        if bits not in (8, 16, 32) or type(x.y) is not Const or x.y.value & 63 != count & 63:
            return None
        return self.widths.extend(x.x, bits, alu.row.meaning is _SIGNED_RIGHT, alu.at)
