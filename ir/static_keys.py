"""Static keys as objects declare them: which static branches belong to which key, and what their forms mean.

    .static_keys           | s32 branch | s32 target | u64 key + flags |      16 bytes a branch
                           flags: bit 0 inverse (a likely branch), bit 1 the first-named form is off
    KEY.static_branch      | u64 branch |                                      8 bytes a branch

Each field is relocated: against the section of the program, and the variable that is the key. clang writes the
distances of `.static_keys` as places in the section (BPF has no relative relocation), so what a field is
relocated to is where the branch is. Sources: the static-key patches of 2024 and 2025, which were never merged
and disagree about polarity; bit 1 is bpfc's, and says which one is meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from errno import EINVAL
from typing import Final, final

from ir.diagnostics import Diagnostic, Location, RejectedError
from ir.isa import NOP_FIRST, Kind, jump_distance, row_of
from ir.object import Object, Program, Relocation

SECTION: Final = ".static_keys"
SUFFIX: Final = ".static_branch"
KEYS: Final = ".data.static_keys"
_INVERSE, _FIRST_IS_OFF = 1, 2


class Polarity(Enum):
    """What the form that a branch is compiled in means; the posted designs disagree."""

    FIRST_IS_OFF = "the first-named form is off"  # the patches of 2024, and what bpfc's header makes
    FIRST_IS_ON = "the first-named form is on"  # the RFC of 2025


@final
@dataclass(frozen=True, slots=True)
class DeclaredBranch:
    """A static branch of a key: byte `offset` of the program section `section`."""

    section: str
    offset: int


@final
@dataclass(frozen=True, slots=True)
class StaticKeyTable:
    """The keys of an object by name: their branches, by place in the object or by program and slot."""

    branches: Mapping[str, tuple[DeclaredBranch, ...]] = field(default_factory=dict)
    slots: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    polarity: Polarity = Polarity.FIRST_IS_OFF

    @property
    def names(self) -> tuple[str, ...]:
        """The keys in order."""
        return tuple(sorted({*self.branches, *self.slots}))

    def of(self, program: Program) -> dict[str, tuple[int, ...]]:
        """The slots of each key's branches in a program; keys that it does not use are left out."""
        found: dict[str, tuple[int, ...]] = {}
        for name in self.names:
            places = (program.slot_of(one.section, one.offset) for one in self.branches.get(name, ()))
            slots = {slot for slot in places if slot is not None}
            slots.update(self.slots.get(name, {}).get(program.name, ()))
            if slots:
                found[name] = tuple(sorted(slots))
        return found


def static_branches(program: Program) -> dict[int, bool]:
    """The static branches of a program by slot: whether the first form is the jump."""
    return {
        slot: not insn.src & NOP_FIRST
        for slot, insn in zip(program.starts, program.insns, strict=False)
        if insn.src and row_of(insn).kind is Kind.STATIC_BRANCH
    }


def declare(programs: Iterable[Program], slots: Mapping[str, Mapping[str, Sequence[int]]]) -> StaticKeyTable:
    """Keys given by hand: the slots of each key's branches in each program. Raises RejectedError (EINVAL)."""
    by_name = {program.name: program for program in programs}
    problems: list[Diagnostic] = []
    for key, users in slots.items():
        for name, wanted in users.items():
            found = static_branches(by_name[name])
            problems += [
                _not_a_branch(key, Location(function=name, insn=slot)) for slot in wanted if slot not in found
            ]
    if problems:
        raise RejectedError(problems)
    table = {key: {name: tuple(wanted) for name, wanted in users.items()} for key, users in slots.items()}
    return StaticKeyTable(slots=table)


def read_static_keys(object: Object) -> StaticKeyTable:
    """The keys that the sections of an object declare. Raises RejectedError (EINVAL) for what is not a branch."""
    if not any(map(_is_about_keys, object.data)) and not any(m.section == KEYS for m in object.maps.values()):
        return StaticKeyTable()
    by_place = {(one.section, one.offset): one for one in object.relocations}
    problems: list[Diagnostic] = []
    entries = [*_table_entries(object, by_place, problems), *_list_entries(object, by_place, problems)]
    names = [symbol.name for symbol in object.symbols if symbol.section == KEYS]
    branches: dict[str, list[DeclaredBranch]] = {name: [] for name in names}
    for key, branch, target, _ in entries:
        problem = _problem(object, key, branch, target)
        if problem is not None:
            problems.append(problem)
        branches.setdefault(key, []).append(branch)
    polarities = {polarity for *_, polarity in entries}
    if len(polarities) > 1:
        said = "static branches of both polarities in one object"
        problems.append(Diagnostic("mixed-polarity", said, Location(file=object.name), errno=EINVAL))
    if problems:
        raise RejectedError(problems)
    polarity = polarities.pop() if polarities else Polarity.FIRST_IS_OFF
    return StaticKeyTable({name: tuple(found) for name, found in branches.items()}, polarity=polarity)


def _is_about_keys(section: str) -> bool:
    return section == SECTION or section.endswith(SUFFIX)


_Entry = tuple[str, DeclaredBranch, int | None, Polarity]
_Places = Mapping[tuple[str, int], Relocation]


def _table_entries(object: Object, by_place: _Places, problems: list[Diagnostic]) -> Iterator[_Entry]:
    """The entries of `.static_keys`."""
    data = object.data.get(SECTION, b"")
    if len(data) % 16:
        said = f"{len(data)} bytes are no whole number of 16-byte entries"
        problems.append(_bad(said, SECTION, 0))
        return
    keys = {(symbol.section, symbol.offset): symbol.name for symbol in object.symbols if symbol.section}
    for at in range(0, len(data), 16):
        branch, target, key = (by_place.get((SECTION, at + part)) for part in (0, 4, 8))
        if branch is None or target is None or key is None or not branch.target or not key.target:
            problems.append(_bad("an entry does not name a branch, a target and a key", SECTION, at))
            continue
        flags = key.target_offset & 7
        name = keys.get((key.target, key.target_offset - flags), "")
        if not name or flags > _INVERSE | _FIRST_IS_OFF:
            problems.append(_bad("an entry does not name a key", SECTION, at))
            continue
        polarity = Polarity.FIRST_IS_OFF if flags & _FIRST_IS_OFF else Polarity.FIRST_IS_ON
        yield name, DeclaredBranch(branch.target, branch.target_offset), target.target_offset, polarity


def _list_entries(object: Object, by_place: _Places, problems: list[Diagnostic]) -> Iterator[_Entry]:
    """The entries of sections called KEY.static_branch."""
    for section, data in object.data.items():
        name = section.removesuffix(SUFFIX)
        if name == section or not name:
            continue
        for at in range(0, len(data), 8):
            branch = by_place.get((section, at))
            if branch is None or not branch.target:
                problems.append(_bad("an entry does not name a branch", section, at))
                continue
            place = DeclaredBranch(branch.target, branch.target_offset)
            yield name.lstrip("."), place, None, Polarity.FIRST_IS_OFF


def _problem(object: Object, key: str, branch: DeclaredBranch, target: int | None) -> Diagnostic | None:
    """What is wrong with a declared branch; one in a function that no program calls is left alone."""
    for program in object.programs.values():
        slot = program.slot_of(branch.section, branch.offset)
        if slot is None:
            continue
        insn = program.insns[program.starts.index(slot)] if slot in program.starts else None
        if branch.offset % 8 or insn is None or row_of(insn).kind is not Kind.STATIC_BRANCH:
            return _not_a_branch(key, program.location(slot))
        goes = branch.offset + 8 * (1 + jump_distance(row_of(insn), insn))
        if target is not None and goes != target:
            said = f"a branch of static key '{key}' goes to byte {goes:#x}, declared is {target:#x}"
            return Diagnostic("bad-static-branch", said, program.location(slot), errno=EINVAL)
        return None
    return None


def _not_a_branch(key: str, at: Location) -> Diagnostic:
    said = f"static key '{key}' names an instruction that is no static branch"
    return Diagnostic("not-a-static-branch", said, at, errno=EINVAL)


def _bad(said: str, section: str, offset: int) -> Diagnostic:
    return Diagnostic("bad-static-key", said, Location(section=section, offset=offset), errno=EINVAL)
