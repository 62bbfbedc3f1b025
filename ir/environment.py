"""What a run of a program finds around it, for all that executes programs in Python: addresses, bounds, helpers.

    addresses     memory           the segments the caller gave, wherever it put them
                  STACK_BASE       frame n at STACK_BASE + n * 0x1000: 512 bytes, r10 points after them
                  FUNCTION_BASE    what a function pointer holds: FUNCTION_BASE + 8 * slot

Helpers are called with the machine that runs and r1..r5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from ir.object import Program, Reference

if TYPE_CHECKING:
    from ir.interpreter import Machine

STACK_BASE: Final = 0x5000_0000_0000_0000
FUNCTION_BASE: Final = 0x6000_0000_0000_0000
FRAME_SIZE: Final = 512
MAX_DEPTH: Final = 8
MAY_GOTO_BUDGET: Final = 0x80_0000  # BPF_MAX_LOOPS, per frame as the kernel keeps it
TAIL_CALL_LIMIT: Final = 33
DEFAULT_FUEL: Final = 1 << 26

Registers = list[int | None]
Helper = Callable[["Machine", int, int, int, int, int], int]
Trace = Callable[[int, Registers], None]


class TailCall(Exception):  # noqa: N818  # control flow, not an error
    """Raised by a helper to replace the running program (bpf_tail_call)."""

    def __init__(self, program: Program) -> None:
        super().__init__(program.name)
        self.program = program


@final
@dataclass(frozen=True)
class Environment:
    """What a program finds around it.

    `helpers` by number, `kfuncs` by name; a missing one traps when it is called. `resolve` gives the value
    of a wide load that refers to a map or variable. `flipped` are the slots of static branches in their
    second form. `fuel` bounds the jumps back. Without `strict`, registers start as 0 and calls leave r1-r5
    alone. `stack`: where the first frame is.
    """

    helpers: Mapping[int, Helper] = field(default_factory=dict)
    kfuncs: Mapping[str, Helper] = field(default_factory=dict)
    resolve: Callable[[Reference], int] | None = None
    flipped: frozenset[int] = frozenset()
    fuel: int = DEFAULT_FUEL
    strict: bool = True
    trace: Trace | None = None
    stack: int = STACK_BASE
