"""What a started object lives in: its maps in memory, the helpers it calls, and the addresses of both for the linker."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, final

from ir.object import Map, Object
from backends.registry import host
from runtime.execution import Execution, Segment
from runtime.memory import Pool

HostHelper = Callable[[Execution, int, int, int, int, int], int]
_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, *[ctypes.c_uint64] * 5)


@final
class World:
    """Owns the maps and host callbacks of one started object."""

    def __init__(self, source: Object) -> None:
        self.declared: Mapping[str, Map] = source.maps
        self.pool = Pool(poison=host().poison)
        self.maps: dict[str, object] = {}
        self.overridden: frozenset[int] = frozenset()
        self._running: dict[int, Execution] = {}
        self._callbacks: dict[int, object] = {}
        self._closed = False

    def resolve(self, symbol: str) -> int | None:
        """The address of a symbol that compiled code leaves open, or None."""
        return None

    def segments(self) -> tuple[Segment, ...]:
        """Map memory that pointers of unknown origin may reach."""
        return ()

    @contextmanager
    def entered(self, execution: Execution) -> Iterator[None]:
        """While inside, host helpers find `execution` by the address of its run state."""
        self._running[execution.run_address] = execution
        try:
            yield
        finally:
            del self._running[execution.run_address]

    def close(self) -> None:
        """Free the maps; closing twice is fine."""
        self._closed = True
