"""Rewritten programs as the functions that an object file has, each once.

program a   | main a | shared |          section xdp    main a
program b   | main b | shared |    ->            tc     main b
                                         .text          shared
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from errno import EINVAL
from typing import NamedTuple, final

from ir.bytecode import Rewritten
from ir.diagnostics import Diagnostic, UnsupportedError
from ir.functions import called_slot
from ir.isa import Insn
from ir.object import FunctionInfo, Object, Program


class Place(NamedTuple):
    """Where a function begins in the file: byte `offset` of `section`."""

    section: str
    offset: int


@final
@dataclass(frozen=True, slots=True)
class Rewriting:
    """A function rewritten. Slots count from its start.

    `moved` is the new slot of each old one, None where it was removed; `kept` has those whose instruction is the
    same still. `callees` are the functions that the instructions at new slots call or take the address of.
    """

    place: Place
    insns: tuple[Insn, ...]
    moved: tuple[int | None, ...]
    kept: Mapping[int, int]
    callees: Mapping[int, Place]

    @property
    def slots(self) -> int:
        """How many slots it has now."""
        return sum(insn.slots for insn in self.insns)


def collect_functions(source: Object, rewritten: Mapping[str, Rewritten]) -> dict[Place, Rewriting]:
    """Every function of the rewritten programs. Raises UnsupportedError when two want one function differently."""
    found: dict[Place, Rewriting] = {}
    for name, done in rewritten.items():
        program = source.programs[name]
        before = {info.name: info for info in program.functions}
        for info in done.program.functions:
            new = _rewriting(program, before[info.name], done, info)
            known = found.setdefault(new.place, new)
            if _without_distances(known) != _without_distances(new):
                said = f"function '{info.name}' came out differently for two programs"
                at = program.location(before[info.name].start)
                raise UnsupportedError([Diagnostic("cannot-emit", said, at, errno=EINVAL)])
    return found


def _rewriting(program: Program, before: FunctionInfo, done: Rewritten, after: FunctionInfo) -> Rewriting:
    new = done.program
    moved = tuple(
        None if slot is None else slot - after.start
        for slot in done.moved[before.start : before.start + before.slots]
    )
    insns: list[Insn] = []
    opcodes: dict[int, Insn] = {}
    callees: dict[int, Place] = {}
    places = {info.start: Place(info.section, info.offset) for info in new.functions}
    for slot, insn in zip(new.starts, new.insns, strict=False):
        if not after.start <= slot < after.start + after.slots:
            continue
        insns.append(insn)
        opcodes[slot - after.start] = insn
        called = called_slot(insn, slot)
        if called is not None:
            callees[slot - after.start] = places[called]
    kept: dict[int, int] = {}
    for slot, insn in zip(program.starts, program.insns, strict=False):
        at = moved[slot - before.start] if before.start <= slot < before.start + before.slots else None
        if at is not None and opcodes[at].opcode == insn.opcode and opcodes[at].dst == insn.dst:
            kept[slot - before.start] = at
    return Rewriting(Place(before.section, before.offset), tuple(insns), moved, kept, callees)


def _without_distances(function: Rewriting) -> tuple[object, ...]:
    """What must be the same wherever the function is called from: all but how far its callees are."""
    slot = 0
    insns: list[Insn] = []
    for insn in function.insns:
        insns.append(insn._replace(imm=0) if slot in function.callees else insn)
        slot += insn.slots
    return (insns, function.moved, sorted(function.callees.items()))
