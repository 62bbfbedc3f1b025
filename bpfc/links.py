"""Links: what somebody attached, to look at and to undo."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Final, Self, final

from ir.kinds import AttachType
from runtime.hook import attach_lock

if TYPE_CHECKING:
    from bpfc.attachable import Attachable
    from bpfc.places import Place


class LinkKind(Enum):
    """How a program is attached."""

    FREPLACE = "freplace"
    FENTRY = "fentry"
    FEXIT = "fexit"
    FMOD_RET = "fmod_ret"
    FSESSION = "fsession"


ATTACH_TYPES: Final = {
    AttachType.TRACE_FENTRY: LinkKind.FENTRY,
    AttachType.TRACE_FEXIT: LinkKind.FEXIT,
    AttachType.MODIFY_RETURN: LinkKind.FMOD_RET,
    AttachType.TRACE_FSESSION: LinkKind.FSESSION,
}
"""How sections say that a program is attached to a function."""


def list_links() -> tuple[Link, ...]:
    """What is attached in this process now, in the order of attaching."""
    with attach_lock():
        return tuple(link for link in _links() if link.is_attached)


@cache
def _links() -> list[Link]:
    """The open links of this process; callers hold `attach_lock`."""
    return []


@final
class Link:
    """An attachment; a context manager. Closing it detaches, never fails, and twice is fine."""

    def __init__(
        self,
        kind: LinkKind,
        program: Attachable,
        target: str,
        function: str,
        detach: Callable[[], None],
        cookie: int = 0,
        place: Place | None = None,
    ) -> None:
        self.place = place  # where an extension can be traced
        self.kind, self.program, self.cookie = kind, program, cookie
        self.target, self.function = target, function
        self._detach: Callable[[], None] | None = detach
        with attach_lock():
            _links().append(self)

    @property
    def is_attached(self) -> bool:
        """Whether it was not closed yet."""
        return self._detach is not None

    def close(self) -> None:
        """Detach."""
        with attach_lock():
            detach, self._detach = self._detach, None
            if detach is not None:
                _links().remove(self)
                detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self.is_attached else ", detached"
        where = self.function if self.target == self.function else f"{self.target}:{self.function}"
        return f"<{self.kind.value} link of {self.program.program.name} to {where}{state}>"
