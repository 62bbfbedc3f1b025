"""Instruction sets of running programs: where tracked instructions are, transformed and native.

tracked = InsnSet(2); tracked.update(0, Entry(5)); ...; tracked.freeze()
track(runtime["filter"], tracked)
tracked.entries[0].xlated_off, tracked.entries[0].jitted_off

The transformed program is the one without what read-only data rules out and without nops, as Linux makes it.
A native place is the first byte of code that is for the instruction, from the start of the image, or for the next
one of its block that left some; an instruction has none when that is nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from bpfc.symbols import line_marks
from ir.bytecode import Rewritten
from ir.diagnostics import DiagnosticError
from ir.explain import Notes
from ir.isa import Kind, row_of
from ir.lift import lift
from ir.object import Map, Program
from ir.passes.fold_rodata import FoldRodata
from ir.passes.hardwire_branches import hardwire_branches
from ir.passes.promote_stack import PromoteStack
from ir.static_keys import static_branches
from runtime.insn_set import DELETED, InsnSet
from runtime.maps.insn_array import InsnArrayView

if TYPE_CHECKING:
    from bpfc.running_program import RunningProgram


def transformed(program: Program, maps: Mapping[str, Map]) -> Rewritten:
    """The program without dead code and nops, and where its slots went. Raises RejectedError."""
    notes: Notes = []
    module = lift(program, maps)
    PromoteStack().run(module, notes)
    FoldRodata().run(module, notes)
    decided = {note.at.insn: note.is_taken for note in notes if note.at.insn is not None}
    return hardwire_branches(program, decided)


_LEAVES: Final = (Kind.JUMP, Kind.BRANCH, Kind.STATIC_BRANCH, Kind.MAY_GOTO, Kind.EXIT)


def bind_arrays(running: RunningProgram) -> None:
    """Make the instruction arrays that a program refers to its own. RejectedError as `track`."""
    maps = running.runtime.world.maps
    for name in sorted({reference.name for reference in running.program.references.values()}):
        view = maps.get(name)
        if isinstance(view, InsnArrayView):
            track(running, view.tracked)
            view.show()


def track(running: RunningProgram, tracked: InsnSet, is_key: bool = False) -> None:
    """Bind a set to a running program; `is_key`: it tracks static branches only.

    RejectedError: EINVAL, EBUSY, and EFAULT when a tracked instruction has no native place; then the set is free
    again.
    """
    program = running.program
    branches = static_branches(program)
    starts = set(program.starts[:-1])
    tracked.begin_load(program.starts[-1], starts.__contains__, branches if is_key else None)
    try:
        moved = transformed(program, running.runtime.world.declared).moved
        natives = _native_offsets(running)
    except DiagnosticError:
        tracked.abort_load()
        raise
    for slot in range(len(moved) - 1, -1, -1):
        if moved[slot] is None:
            tracked.remove(slot, 1)
        elif slot in branches and slot not in natives:
            _delete(tracked, slot)
    places = {new: natives[old] for old, new in enumerate(moved) if new is not None and old in natives}
    tracked.end_load(places.get)


def _delete(tracked: InsnSet, slot: int) -> None:
    """The instruction stays in the transformed program, but LLVM has found it dead."""
    for entry in tracked.entries:
        if entry.orig_off == slot:
            entry.xlated_off = DELETED


def _native_offsets(running: RunningProgram) -> dict[int, int]:
    """The native place of what has one, by slot; of what left no code itself, that of what comes next.

    A constant, or a copy, is code of who uses it: execution is there when it goes on behind.
    """
    found = _own_offsets(running)
    program = running.program
    following: int | None = None
    for slot, insn in reversed([*zip(program.starts, program.insns, strict=False)]):
        if row_of(insn).kind in _LEAVES:
            following = None
        following = found.get(slot, following)
        if following is not None:
            found[slot] = following
    return found


def _own_offsets(running: RunningProgram) -> dict[int, int]:
    """The first byte of code that is for an instruction, by slot."""
    image = running.image
    found = {
        info.start: image.address_of(info.name) - image.address
        for info in running.program.functions
        if any(symbol.name == info.name for symbol in image.functions)
    }
    are_words = image.target.flags is not None  # then code tests them, and lines tell where
    for slot in () if are_words else running.branches.insns:
        places = [point.address - image.address for point in running.branches.points(slot)]
        if places:
            found[slot] = min(places)
    for mark in line_marks(running):
        place = image.layout.sections[mark.section] + mark.offset
        if mark.slot >= 0 and mark.slot not in found:
            found[mark.slot] = place
    return found
