"""The runs under way in this process, by the address of their run state: a program of one object may run inside another's."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.execution import Execution


@cache
def runs() -> dict[int, Execution]:
    """Who is running: address of the run state -> what the host knows of the run. Whoever starts a run notes it here."""
    return {}
