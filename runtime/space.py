"""An address space that code runs in, and what all code in it shares: this process, or an emulated machine.

Functions of one space can call each other, so hooks lead from one object to another inside of one. Words that its code
reads are in its own byte order, which need not be ours.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from errno import EINVAL
from functools import cache, cached_property
from typing import TYPE_CHECKING, Final, final

from backends.registry import host
from backends.target import Target
from ir.diagnostics import Diagnostic, RejectedError
from runtime.memory import Pool, near_pool
from runtime.patch import Patcher, patcher

if TYPE_CHECKING:
    from runtime.hook import Hook
    from runtime.hook_space import HookSpace
    from runtime.native_entry import PointerEntry

_C_LIBRARY: Final = frozenset(
    {
        *("memcpy", "memmove", "memset", "memcmp", "bcmp", "clock_gettime", "getpid", "process_vm_readv"),
        *("pthread_setspecific", "sched_yield"),
    }
)


@final
class Space:
    """`pool` has room for what hooks need, `external` gives the addresses of C functions that code may call."""

    def __init__(
        self,
        target: Target,
        pool: Pool,
        make_patcher: Callable[[], Patcher],
        external: Callable[[str], int | None],
    ) -> None:
        self.target, self.pool = target, pool
        self._make_patcher, self._external = make_patcher, external
        # Hooks of native functions by the address of their first pointer: they go with the space.
        self.pointers: dict[int, tuple[Hook, PointerEntry]] = {}
        _timing().spaces.add(self)

    @cached_property
    def patcher(self) -> Patcher:
        """What changes code here."""
        return self._make_patcher()

    @cached_property
    def hooks(self) -> HookSpace:
        """What the images of hooks share. Callers hold `attach_lock`."""
        from runtime.hook_space import HookSpace  # late: most programs have none

        target = self.compile_target
        made = HookSpace(self.target, self.pool, self._external, target.cpu if target is not None else None)
        made.time_runs(_timing().holders > 0)
        return made

    @property
    def is_native(self) -> bool:
        """Whether it is this process."""
        return self is host_space()

    @property
    def compile_target(self) -> Target | None:
        """What to compile for: any processor of an emulated machine, None for just this one."""
        return None if self.is_native else self.target

    def require_same(self, other: Space, name: str, target: str) -> None:
        """Raise RejectedError (EINVAL) when `name`, which runs here, can't call `target` in `other`."""
        if other is not self:
            said = f"'{name}' runs on {self}, '{target}' runs on {other}"
            note = "start both on one machine (bpfc.emulate), or both without a target"
            raise RejectedError([Diagnostic("other-machine", said, notes=(note,), errno=EINVAL)])

    def __str__(self) -> str:
        return "this machine" if self.is_native else f"an emulated {self.target.name}"


@cache
def host_space() -> Space:
    """This process."""
    return Space(host(), near_pool(), patcher, library_function)


def library_function(symbol: str) -> int | None:
    """The address of a function of this process's C library that code may call; None for others."""
    if symbol not in _C_LIBRARY:
        return None
    # Safe because the C library stays loaded as long as the process lives.
    return ctypes.cast(getattr(ctypes.CDLL(None), symbol), ctypes.c_void_p).value


def time_runs(step: int) -> None:
    """One more (1) or one less (-1) who wants runs counted and timed, everywhere. Callers hold `attach_lock`."""
    timing = _timing()
    timing.holders += step
    for space in timing.spaces:
        if "hooks" in space.__dict__:
            space.hooks.time_runs(timing.holders > 0)


class _Timing:
    """Who wants runs timed, and where they are."""

    def __init__(self) -> None:
        self.holders = 0
        self.spaces: weakref.WeakSet[Space] = weakref.WeakSet()


@cache
def _timing() -> _Timing:
    return _Timing()
