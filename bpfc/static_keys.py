"""Static keys for users: of an object before it starts, and of one running program.

obj.keys["debug"].enable()              what is started afterwards begins with it on
rt.static_keys["debug"].enable()        on in all programs, at once      (runtime/static_keys)
rt["filter"].keys["debug"].disable()    off in this program alone
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, final

from backends.native_code import Form, SiteKind
from ir.object import Program
from ir.static_keys import StaticKeyTable, static_branches
from runtime.linker import LinkedImage
from runtime.patch import PatchPoint
from runtime.static_keys import Branches, Key, StaticKeys

if TYPE_CHECKING:
    from bpfc.loaded import Loaded
    from bpfc.running import Runtime


@final
class DeclaredKey:
    """A key of an object that is not started: `enabled` is its state at the start."""

    def __init__(self, loaded: Loaded, name: str, enabled: bool) -> None:
        self.loaded, self.name = loaded, name
        self.enabled = enabled
        self.is_told = False

    def enable(self) -> None:
        """Start with the key on."""
        self.switch(True)

    def disable(self) -> None:
        """Start with the key off."""
        self.switch(False)

    def switch(self, on: bool) -> None:
        """Start with the key in this state."""
        self.enabled, self.is_told = on, True

    @property
    def sites(self) -> tuple[tuple[str, int], ...]:
        """The key's static branches: (program, slot)."""
        return tuple(
            (program.name, slot)
            for program in self.loaded.programs.values()
            for slot in self.loaded.static_keys.of(program).get(self.name, ())
        )

    def __repr__(self) -> str:
        return f"<static key {self.name}: {'on' if self.enabled else 'off'} at the start>"


@final
class ProgramKey:
    """A key in one program only."""

    def __init__(self, key: Key, branches: Branches, slots: tuple[int, ...]) -> None:
        self.key, self.branches, self.slots = key, branches, slots
        self.name = key.name

    def enable(self) -> None:
        """Switch the key's branches of this program on."""
        self.key.enable(self.branches)

    def disable(self) -> None:
        """Switch the key's branches of this program off."""
        self.key.disable(self.branches)

    @property
    def enabled(self) -> bool | None:
        """True, False, or None when the branches differ."""
        found = {self.branches.is_on(slot) for slot in self.slots}
        return found.pop() if len(found) == 1 else None

    @property
    def sites(self) -> tuple[PatchPoint, ...]:
        """The key's sites in this program."""
        return tuple(point for slot in self.slots for point in self.branches.points(slot))


@final
class ProgramKeys(Mapping[str, ProgramKey]):
    """The keys that a program uses, by name."""

    def __init__(
        self, keys: Mapping[str, Key], branches: Branches, slots: Mapping[str, tuple[int, ...]]
    ) -> None:
        self._keys = {name: ProgramKey(keys[name], branches, where) for name, where in slots.items()}

    def __getitem__(self, name: str) -> ProgramKey:
        return self._keys[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def declared_keys(loaded: Loaded, table: StaticKeyTable) -> dict[str, DeclaredKey]:
    """The keys of an object, in the state that its polarity starts them in."""
    starts_on = table.polarity is table.polarity.FIRST_IS_ON
    return {name: DeclaredKey(loaded, name, starts_on) for name in table.names}


def start_keys(runtime: Runtime) -> StaticKeys:
    """The keys of a started object, told what the user told them before."""
    keys = StaticKeys(runtime.loaded.static_keys.names, runtime.world.space.patcher)
    for key in runtime.loaded.keys.values():
        if key.is_told:
            keys[key.name].switch(key.enabled)
    return keys


def has_branches(image: LinkedImage) -> bool:
    """Whether an image has sites that static keys switch."""
    return any(site.kind is SiteKind.STATIC for site in image.code.sites)


def take_branches(runtime: Runtime, program: Program, image: LinkedImage | None) -> Branches:
    """Take a program's static branches in, which brings them to the state of their keys.

    RejectedError, UnsupportedError (EOPNOTSUPP): as the patcher refuses.
    """
    forms = {slot: Form.JUMP if jumps else Form.NOP for slot, jumps in static_branches(program).items()}
    table = runtime.loaded.static_keys
    return runtime.static_keys.load(
        program.name, program.starts[-1], forms, image, table.of(program), table.polarity
    )
