"""What is attached to functions, and what excludes what: one state for each function, counts for each program.

IDLE --trace--> TRACED (n programs)        IDLE --extend--> EXTENDED        everything else: EBUSY
a program is extended (n functions of it)  or  in tail-call tables (n times), never both

`attach_lock` comes before all other locks (an image's compilation, CODE_LOCK): who attaches or detaches holds it.
"""

from __future__ import annotations

import threading
from errno import EBUSY
from functools import cache
from typing import TYPE_CHECKING, Protocol, final

from backends.native_code import SiteKind
from ir.diagnostics import Diagnostic, Location, RejectedError
from runtime.linker import LinkedImage
from runtime.patch import EntryHook, PatchPoint, patch_points
from runtime.space import Space

if TYPE_CHECKING:
    from runtime.trampoline import Trampoline


@cache
def attach_lock() -> threading.RLock:
    """The lock of everything that is attached in this process."""
    return threading.RLock()


class Entry(Protocol):
    """A place through which a function is entered, and which can be sent elsewhere."""

    @property
    def body(self) -> int:
        """Where the function itself runs, whatever its entry does."""

    def arm(self, target: int, *, is_direct: bool = False) -> None: ...

    def disarm(self) -> None: ...


@final
class Hook:
    """What is attached to one function."""

    def __init__(self, name: str, entry: Entry, space: Space) -> None:
        self.name, self.space = name, space
        self.entry = entry
        self.extension: object | None = None  # what replaces the function
        self.trampoline: Trampoline | None = None

    @property
    def is_extended(self) -> bool:
        """Whether an extension runs in the function's place."""
        return self.extension is not None

    @property
    def is_traced(self) -> bool:
        """Whether programs run around the function."""
        return self.trampoline is not None and bool(self.trampoline.links)

    @property
    def is_idle(self) -> bool:
        """Whether the function runs undisturbed."""
        return not (self.is_extended or self.is_traced)

    def require_extendable(self) -> None:
        """Raise RejectedError (EBUSY) unless an extension may be attached."""
        if self.is_extended:
            raise _busy(self.name, "an extension replaces it already; detach that first")
        if self.is_traced:
            raise _busy(self.name, "programs trace it; detach them first")

    def require_traceable(self) -> None:
        """Raise RejectedError (EBUSY) when an extension replaces the function."""
        if self.is_extended:
            raise _busy(self.name, "an extension replaces it; trace the extension, or detach it first")


@final
class ProgramHooks:
    """The hooks of one program's functions, and what else its state depends on."""

    def __init__(self, name: str, image: LinkedImage, space: Space) -> None:
        self.name, self.space = name, space
        self._image = image
        self._points: dict[str, PatchPoint] = {
            point.function: point for point in patch_points(image, SiteKind.ENTRY)
        }
        self._hooks: dict[str, Hook] = {}
        self.extended = 0
        self.tables = 0

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions that can be hooked."""
        return tuple(self._points)

    @property
    def main_is_hooked(self) -> bool:
        """Whether something is attached to the program's own entry."""
        hook = self._hooks.get(self.name)
        return hook is not None and not hook.is_idle

    @property
    def is_idle(self) -> bool:
        """Whether nothing is attached to any function."""
        return all(hook.is_idle for hook in self._hooks.values())

    def hook(self, function: str) -> Hook:
        """The hook of a function that has an entry slot."""
        found = self._hooks.get(function)
        if found is None:
            entry = EntryHook(self._image, self._points[function], self.space.patcher)
            found = self._hooks[function] = Hook(function, entry, self.space)
        return found

    def body(self, function: str) -> int:
        """Where a function starts for callers elsewhere, behind its entry slot if it has one."""
        point = self._points.get(function)
        if point is None:
            return self._image.address_of(function)
        return self._image.address + self._image.layout.bodies[point.site.function]

    def join_table(self) -> None:
        """Note one more tail-call table that holds the program. RejectedError (EBUSY) while it is extended."""
        with attach_lock():
            if self.extended:
                raise _busy(self.name, "an extension replaces a function of it, so no table may hold it")
            self.tables += 1

    def leave_table(self) -> None:
        """Note one table less."""
        with attach_lock():
            self.tables -= 1

    def require_no_table(self) -> None:
        """Raise RejectedError (EBUSY) while a tail-call table holds the program."""
        if self.tables:
            raise _busy(self.name, f"{self.tables} tail-call table entries hold it; take it out first")


def _busy(name: str, why: str) -> RejectedError:
    message = f"'{name}' is busy: {why}"
    return RejectedError([Diagnostic("attach-busy", message, Location(function=name), errno=EBUSY)])
