"""Rewriting the instructions of a program: remove some, put others in their place, keep everything else true.

    slot 0  if r1 == 0 goto +2          slot 0  if r1 == 0 goto +1
         1  goto +0              ->          1  r0 = 1
         2  r0 = 1                           2  exit
         3  exit

Jumps, calls and function addresses find their targets again; function info, C lines, references and CO-RE
records move along, and `moved` tells where each slot went, for whoever tracks slots from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar, final

from ir.diagnostics import Diagnostic, RejectedError, SourceLine
from ir.functions import called_slot
from ir.isa import S16, Insn, Kind, Row, jump_distance, row_of
from ir.object import FunctionInfo, Program, Reference, ReferenceKind

ERANGE: Final = 34
_JUMPS: Final = (Kind.JUMP, Kind.BRANCH, Kind.STATIC_BRANCH, Kind.MAY_GOTO)

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class Rewritten:
    """A program after rewriting. `moved` is the new slot of each old one, None where it was removed."""

    program: Program
    moved: tuple[int | None, ...]

    def then(self, later: Rewritten) -> Rewritten:
        """This rewriting and another of its result, as one."""
        moved = tuple(None if slot is None else later.moved[slot] for slot in self.moved)
        return Rewritten(later.program, moved)


def unchanged(program: Program) -> Rewritten:
    """No rewriting."""
    return Rewritten(program, tuple(range(program.starts[-1])))


def rewrite(program: Program, replacements: Mapping[int, Sequence[Insn]]) -> Rewritten:
    """`program` with the instructions at the slots of `replacements` replaced by those given; () removes one.

    A slot that was replaced is where its first replacement stands; a jump to a removed slot goes on to what
    follows. The last replacement equal to the instruction it replaces is that one: it keeps its target and the
    records about it. Jumps of other replacements are taken as they stand. Raises RejectedError when a distance no
    longer fits.
    """
    return _Rewriter(program, replacements).run()


@final
class _Rewriter:
    """Lays the instructions out anew, then points them at one another again."""

    def __init__(self, program: Program, replacements: Mapping[int, Sequence[Insn]]) -> None:
        self.program, self.replacements = program, replacements
        self.position: dict[int, int] = {}  # of each instruction by its old slot; removed: of what follows
        at = 0
        for slot, insn in zip(program.starts, program.insns, strict=False):
            self.position[slot] = at
            at += _slots(replacements[slot]) if slot in replacements else insn.slots
        self.position[program.starts[-1]] = at

    def run(self) -> Rewritten:
        """The new program, and where its slots went."""
        program = self.program
        insns: list[Insn] = []
        moved: list[int | None] = []
        kept: dict[int, int] = {}  # the new slot of each instruction that is still there
        for slot, insn in zip(program.starts, program.insns, strict=False):
            new = self.replacements.get(slot, (insn,))
            at = self.position[slot]
            moved += [at if new else None] * insn.slots
            itself = max((number for number, each in enumerate(new) if each == insn), default=-1)
            for number, each in enumerate(new):
                if number == itself:
                    kept[slot] = at
                insns.append(self._retarget(each, slot, at) if number == itself else each)
                at += each.slots
            if insn.slots == 2 and slot in kept:
                moved[-1] = kept[slot] + 1
        changed = replace(
            program,
            insns=tuple(insns),
            functions=tuple(self._functions()),
            references={slot: self._reference(what) for slot, what in _move(program.references, kept)},
            core=dict(_move(program.core, kept)),
            lines=self._lines(),
            poisoned=dict(_move(program.poisoned, kept)),
            tokens={token: self.position[start] for token, start in program.tokens.items()},
        )
        return Rewritten(changed, tuple(moved))

    def _retarget(self, insn: Insn, slot: int, at: int) -> Insn:
        """`insn`, which stood at `slot` and now stands at `at`, with the distance to what it names."""
        row = row_of(insn)
        target = slot + 1 + jump_distance(row, insn) if row.kind in _JUMPS else called_slot(insn, slot)
        if target is None:
            return insn
        distance = self.position[target] - at - 1
        if row.kind is Kind.WIDE:
            return insn._replace(imm=distance & 0xFFFF_FFFF)
        if row.offset is not S16:
            return insn._replace(imm=distance)
        if distance not in S16:
            raise RejectedError([self._too_far(row, slot, distance)])
        return insn._replace(offset=distance)

    def _too_far(self, row: Row, slot: int, distance: int) -> Diagnostic:
        said = f"'{row.name}' would have to jump {distance} slots, it reaches {S16.start} to {S16.stop - 1}"
        return Diagnostic("jump-out-of-range", said, self.program.location(slot), errno=ERANGE)

    def _functions(self) -> Iterable[FunctionInfo]:
        for info in self.program.functions:
            start, end = self.position[info.start], self.position[info.start + info.slots]
            if start < end:
                yield replace(info, start=start, slots=end - start)

    def _reference(self, reference: Reference) -> Reference:
        if reference.kind is not ReferenceKind.FUNCTION:
            return reference
        return replace(reference, offset=self.position[reference.offset])

    def _lines(self) -> dict[int, SourceLine]:
        """The C lines; one whose instruction is gone moves to the next, unless that begins another."""
        program = self.program
        begins = {info.start for info in program.functions}
        lines: dict[int, SourceLine] = {}
        waiting: SourceLine | None = None
        for slot in program.starts[:-1]:
            waiting = program.lines.get(slot, None if slot in begins else waiting)
            if waiting is not None and self.replacements.get(slot, True):
                lines[self.position[slot]] = waiting
                waiting = None
        return lines


def _move(records: Mapping[int, T], kept: Mapping[int, int]) -> Iterable[tuple[int, T]]:
    """Records by slot, by their new slot; those of instructions that are gone are gone too."""
    return ((kept[slot], record) for slot, record in records.items() if slot in kept)


def _slots(insns: Sequence[Insn]) -> int:
    return sum(insn.slots for insn in insns)
