"""Where code runs: on this machine, or in an emulator that sees the same memory at the same addresses.

A Platform has the memory for code and maps, gives addresses to Python functions that code calls, and makes an
address of code callable. What uses one does not know which it is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol, final

from backends.registry import host
from backends.target import Target
from runtime.cache import ObjectCache
from runtime.memory import Pool, near_pool
from runtime.space import Space, host_space, library_function

if TYPE_CHECKING:
    from runtime.maps.host import Operations

Function = Callable[..., int]
Bridge = Callable[[int, int, int, int, int, int], int]  # run, r1..r5 -> r0
CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, *[ctypes.c_uint64] * 5)


class Platform(Protocol):
    """Runs code of `target` that is linked into `pool`. `is_shared`: closed by who made it, not by what uses it."""

    target: Target
    pool: Pool
    space: Space
    is_native: bool
    is_shared: bool

    @property
    def operations(self) -> Operations:
        """The native operations of maps."""

    def callback(self, bridge: Bridge) -> int:
        """An address that code can call; the function runs in Python."""

    def external(self, symbol: str) -> int | None:
        """The address of a function of the C library that code may call; None for others."""

    def drop_callback(self, address: int) -> None:
        """Undo `callback`; code that calls it no longer runs."""

    def function(self, address: int, *kinds: type) -> Function:
        """The code at `address` as a function of ctypes' argument types, with a u64 result."""

    def allocate(self, size: int) -> ctypes.Array[ctypes.c_uint8]:
        """Zeroed memory that code can reach, for as long as the platform is open or the array kept."""

    def steps(self) -> int | None:
        """How many machine instructions the last call of a function ran, where that is counted."""

    def close(self) -> None:
        """Free everything; closing twice is fine."""


@final
class HostPlatform:
    """This machine. All objects share the process's pool, so that what runs in another's place is near it."""

    is_native = True
    is_shared = False

    def __init__(self) -> None:
        self.target = host()
        self.pool = near_pool()
        self.space = host_space()
        self._made: dict[int, object] = {}

    @cached_property
    def operations(self) -> Operations:
        from runtime.maps.host import HostOperations  # late: a program without maps needs none

        return HostOperations(self.pool, ObjectCache.default())

    def callback(self, bridge: Bridge) -> int:
        made = CALLBACK(bridge)
        # Safe because the callback is kept alive in _made as long as code can call it.
        address = ctypes.cast(made, ctypes.c_void_p).value or 0
        self._made[address] = made
        return address

    def external(self, symbol: str) -> int | None:
        return library_function(symbol)

    def drop_callback(self, address: int) -> None:
        self._made.pop(address, None)

    def function(self, address: int, *kinds: type) -> Function:
        # Safe because callers pass entries of images that they keep open.
        native: Function = ctypes.CFUNCTYPE(ctypes.c_uint64, *kinds)(address)
        return native

    def allocate(self, size: int) -> ctypes.Array[ctypes.c_uint8]:
        return (ctypes.c_uint8 * size)()

    def steps(self) -> int | None:
        return None

    def close(self) -> None:
        if "operations" in self.__dict__:
            self.operations.close()
