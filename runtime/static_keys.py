"""Static keys: switches that bring branches into one of two forms, in one program or in all that use them.

    key    its static branches in each program, by instruction, and their sites in memory, copies included
    on     each branch is in the second-named form of its instruction: nop_or_goto jumps, goto_or_nop not

This is bookkeeping and writes no code: it tells the patcher which sites shall have which form, all of one
update at once. A branch that was deleted as dead code has no site; it can be switched and nothing happens.
What a branch was last told is remembered here, never read back from code. One lock (the owner's) orders
updates and unloading.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import final

from backends.native_code import Form, SiteKind
from ir.diagnostics import Diagnostic, Location, RejectedError
from ir.static_keys import Polarity
from runtime.linker import LinkedImage
from runtime.patch import Patcher, PatchPoint, patch_points, patcher


class State(Enum):
    """What a key's branches are."""

    OFF = "off"
    ON = "on"
    MIXED = "mixed"


@final
class Branches:
    """The static branches of one program, by instruction, and what each was last told.

    `first_forms` has every static branch of the program, also those that the compiler has deleted;
    `length` counts the program's instructions. An instruction's sites are those that have its number as their
    key, in every image of the program: an extension or a tracer is compiled anew for what it stands for.
    """

    def __init__(
        self,
        name: str,
        length: int,
        first_forms: Mapping[int, Form],
        image: LinkedImage | None,
        patcher: Patcher,
        polarity: Polarity = Polarity.FIRST_IS_OFF,
    ) -> None:
        self.name = name
        self.length = length
        self.is_open = True
        self._first_is_on = polarity is Polarity.FIRST_IS_ON
        self._forms = dict(first_forms)
        self._on = dict.fromkeys(first_forms, self._first_is_on)
        self._patcher = patcher
        self._prepared: dict[str | int, Together] = {}
        self._points: dict[int, list[PatchPoint]] = {insn: [] for insn in first_forms}
        if image is not None:
            self.add(image)

    @property
    def insns(self) -> tuple[int, ...]:
        """The static branches, as instruction numbers."""
        return tuple(sorted(self._forms))

    def points(self, insn: int) -> tuple[PatchPoint, ...]:
        """The sites of a static branch: none when it was deleted, several when it was copied."""
        return tuple(self._points[insn])

    def is_on(self, insn: int) -> bool:
        """What a static branch was last told."""
        return self._on[insn]

    def add(self, image: LinkedImage) -> None:
        """Take in an image of the program, whose sites are brought to what the branches were told."""
        points = patch_points(image, SiteKind.STATIC)
        told = [
            point for point in points if self._on.get(point.site.key, self._first_is_on) != self._first_is_on
        ]
        nops = [point for point in told if point.form is Form.JUMP]
        self._patcher.poke(nops, [point for point in told if point.form is Form.NOP])
        for point in points:
            self._points.setdefault(point.site.key, []).append(point)
        self._prepared.clear()

    def drop(self, image: LinkedImage) -> None:
        """Forget the sites of an image, which is about to be closed."""
        for insn, points in self._points.items():
            self._points[insn] = [point for point in points if point.block is not image.block]
        self._prepared.clear()

    def prepared(self, name: str, insns: Sequence[int]) -> Together:
        """The branches of the key `name`, to be switched together."""
        found = self._prepared.get(name)
        if found is None:
            found = self._prepared[name] = self._together(insns)
        return found

    def _together(self, insns: Iterable[int]) -> Together:
        wanted = tuple(insns)
        jumps_first, nops_first = (
            [point for insn in wanted if self._forms[insn] is form for point in self._points[insn]]
            for form in (Form.JUMP, Form.NOP)
        )
        on, off = (jumps_first, nops_first) if self._first_is_on else (nops_first, jumps_first)
        return Together(self, wanted, jumps_when_on=on, jumps_when_off=off)

    def alone(self, insn: int) -> Together:
        """One branch, to be switched by itself."""
        found = self._prepared.get(insn)
        if found is None:
            found = self._prepared[insn] = self._together((insn,))
        return found

    def record(self, insns: Iterable[int], on: bool) -> None:
        """Remember what branches were told."""
        self._on.update(dict.fromkeys(insns, on))

    def check(self, insn: int, on: int) -> None:
        """Refuse what BPF_STATIC_BRANCH_UPDATE refuses: EINVAL, ERANGE, EBADF."""
        if not self.is_open:
            raise _refused("closed", f"the program '{self.name}' was unloaded", errno.EBADF)
        if on not in (0, 1):
            raise _refused("bad-state", f"a static branch is switched to {on}, wanted 0 or 1", errno.EINVAL)
        at = Location(function=self.name, insn=insn)
        if not 0 <= insn < self.length:
            message = f"no instruction {insn} in a program of {self.length}"
            raise _refused("no-such-insn", message, errno.ERANGE, at)
        if insn not in self._forms:
            raise _refused("not-a-static-branch", "the instruction is not a static branch", errno.EINVAL, at)


@final
@dataclass(frozen=True, slots=True)
class Together:
    """Static branches of one program that are switched together, and their sites by when these are jumps."""

    branches: Branches
    insns: tuple[int, ...]
    jumps_when_on: Sequence[PatchPoint]
    jumps_when_off: Sequence[PatchPoint]


@final
class Key:
    """A named switch. Programs join it with their branches and leave it when they are unloaded."""

    def __init__(self, name: str, lock: threading.RLock, patcher: Patcher) -> None:
        self.name = name
        self._lock = lock
        self._patcher = patcher
        self._members: dict[Branches, tuple[int, ...]] = {}
        self._told: bool | None = None

    def __repr__(self) -> str:
        return f"<static key {self.name}: {self.state.value}>"

    @property
    def state(self) -> State:
        """Whether the key's branches are on; MIXED when they differ, as after one program was switched."""
        with self._lock:
            found = {branches.is_on(insn) for branches, insns in self._members.items() for insn in insns}
        if len(found) > 1:
            return State.MIXED
        return State.ON if True in found or (not found and self._told) else State.OFF

    @property
    def enabled(self) -> bool | None:
        """True, False, or None for mixed."""
        return {State.ON: True, State.OFF: False}.get(self.state)

    @property
    def sites(self) -> tuple[PatchPoint, ...]:
        """Every site of the key, in all programs."""
        with self._lock:
            return tuple(
                point
                for branches, insns in self._members.items()
                for insn in insns
                for point in branches.points(insn)
            )

    def enable(self, only: Branches | None = None) -> None:
        """Switch the key on, in all programs or in one."""
        self.switch(True, only)

    def disable(self, only: Branches | None = None) -> None:
        """Switch the key off, in all programs or in one."""
        self.switch(False, only)

    def switch(self, on: bool, only: Branches | None = None) -> None:
        """Bring all branches of the key to one state, all of them or none, published once.

        RejectedError: ENOENT when `only` does not use the key, else what the patcher refuses.
        """
        with self._lock:
            if only is not None and only not in self._members:
                raise _refused("key-not-used", f"'{only.name}' does not use '{self.name}'", errno.ENOENT)
            chosen = self._members if only is None else (only,)
            members = [branches.prepared(self.name, self._members[branches]) for branches in chosen]
            _apply(self._patcher, members, on)
            if only is None:
                self._told = on

    def join(self, branches: Branches, insns: Iterable[int]) -> None:
        """Add a program's branches, and bring them to the state that the key was told, if it was."""
        with self._lock:
            own = tuple(insns)
            if self._told is not None:
                _apply(self._patcher, [branches.prepared(self.name, own)], self._told)
            self._members[branches] = own

    def leave(self, branches: Branches) -> None:
        """Forget a program's branches; as they are, so they stay."""
        with self._lock:
            self._members.pop(branches, None)


@final
class StaticKeys(Mapping[str, Key]):
    """The keys of one started object, by name. Owns the lock of keys and of programs' static branches."""

    def __init__(self, names: Iterable[str] = (), changer: Patcher | None = None) -> None:
        self._lock = threading.RLock()
        self._patcher = changer or patcher()
        self._keys = {name: Key(name, self._lock, self._patcher) for name in names}

    def __getitem__(self, name: str) -> Key:
        return self._keys[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def load(
        self,
        name: str,
        length: int,
        first_forms: Mapping[int, Form],
        image: LinkedImage | None,
        keys: Mapping[str, Iterable[int]],
        polarity: Polarity = Polarity.FIRST_IS_OFF,
    ) -> Branches:
        """Take in a program that was just linked; `keys`: which of its static branches belong to which.

        Without an `image`, one that has none by itself: those that others run are added.
        """
        with self._lock:
            branches = Branches(name, length, first_forms, image, self._patcher, polarity)
            for key, insns in keys.items():
                self._keys[key].join(branches, insns)
            return branches

    def add_image(self, branches: Branches, image: LinkedImage) -> None:
        """Take in one more image of a program, which is brought to the state of the others."""
        with self._lock:
            branches.add(image)

    def drop_image(self, branches: Branches, image: LinkedImage) -> None:
        """Forget an image of a program; to be done before it is closed."""
        with self._lock:
            branches.drop(image)

    def unload(self, branches: Branches) -> None:
        """Forget a program; to be done before its image is closed. Twice is fine."""
        with self._lock:
            branches.is_open = False
            for key in self._keys.values():
                key.leave(branches)

    def update(self, branches: Branches | object, insn: int, on: int) -> None:
        """Switch one static branch of one program, as BPF_STATIC_BRANCH_UPDATE would.

        RejectedError: EINVAL, ERANGE, EBADF; UnsupportedError: EOPNOTSUPP.
        """
        if not isinstance(branches, Branches):
            raise _refused("not-a-program", f"{branches!r} is no program", errno.EINVAL)
        with self._lock:
            branches.check(insn, on)
            _apply(self._patcher, [branches.alone(insn)], bool(on))


def _apply(patcher: Patcher, members: Sequence[Together], on: bool) -> None:
    nops: list[PatchPoint] = []
    jumps: list[PatchPoint] = []
    for member in members:
        nops += member.jumps_when_off if on else member.jumps_when_on
        jumps += member.jumps_when_on if on else member.jumps_when_off
    patcher.poke(nops, jumps)
    for member in members:
        member.branches.record(member.insns, on)


def _refused(code: str, message: str, number: int, at: Location | None = None) -> RejectedError:
    return RejectedError([Diagnostic(code, message, at or Location(), errno=number)])
