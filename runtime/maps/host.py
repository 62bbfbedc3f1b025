"""The host's own map operations: the same native code that programs run, called through ctypes.

There is one image for each map type, compiled on first use and kept in the object cache.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, final

from backends import abi
from backends.maps.operation import SIGNATURES
from backends.maps.registry import host_module, host_symbol, operation_of
from backends.native_code import NativeCode
from backends.registry import host
from backends.target import Target
from ir.kinds import MapType
from runtime.cache import ObjectCache, toolchain
from runtime.linker import LinkedImage, link
from runtime.memory import Pool

NativeOperation = Callable[..., int]  # addresses and numbers in; -errno out when it failed
_TYPES: Final = {"ptr": ctypes.c_void_p, "i64": ctypes.c_int64}


class Operations(Protocol):
    """Native map operations, for maps in the byte order `order`. `run`: the address of their run state (cpu 0)."""

    order: Literal["little", "big"]
    run: int

    def of(self, type: MapType, name: str) -> NativeOperation:
        """Operation `name` (backends/maps/operation.py) for maps of `type`."""

    def given(self, data: bytes) -> int:
        """An address where the next operations find `data`, while the caller holds it."""

    def room(self, size: int) -> Room:
        """Memory that operations may write."""

    def close(self) -> None:
        """Free the code; closing twice is fine."""


@final
@dataclass(frozen=True, slots=True)
class Room:
    """Memory at `address`; `data` copies what is there. `owner` keeps it."""

    address: int
    size: int
    owner: object

    @property
    def data(self) -> bytes:
        # Safe because `owner` is the memory.
        return ctypes.string_at(self.address, self.size)


@final
class HostOperations:
    """Owns the images of the host's operations.

    `run` is the address of a run state for calls from the host (cpu 0).
    """

    order: Literal["little", "big"] = sys.byteorder

    def __init__(self, pool: Pool, cache: ObjectCache | None = None) -> None:
        self._pool, self._cache = pool, cache
        self._images: dict[MapType, LinkedImage] = {}
        self._functions: dict[tuple[MapType, str], NativeOperation] = {}
        self._lock = threading.Lock()
        self._run = (ctypes.c_uint64 * (abi.RUN_STATE_SIZE // 8))()
        self.run = ctypes.addressof(self._run)

    def of(self, type: MapType, name: str) -> NativeOperation:
        """Operation `name` (backends/maps/operation.py) for maps of `type`."""
        found = self._functions.get((type, name))
        if found is None:
            assert operation_of(type, name) is not None, (type, name)
            returns, params = SIGNATURES[name]
            # Safe because the prototype is the one that the operation was emitted with.
            prototype = ctypes.CFUNCTYPE(_TYPES[returns], *(_TYPES[kind] for kind, _ in params))
            function: NativeOperation = prototype(self._image(type).address_of(host_symbol(type, name)))
            found = self._functions[type, name] = function
        return found

    def given(self, data: bytes) -> int:
        """The bytes themselves."""
        # Safe because the callee reads exactly len(data) bytes while the caller holds `data`.
        return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0

    def room(self, size: int) -> Room:
        """A ctypes buffer."""
        buffer = ctypes.create_string_buffer(size)
        return Room(ctypes.addressof(buffer), size, buffer)

    def close(self) -> None:
        """Free the code; closing twice is fine."""
        self._functions.clear()
        for image in self._images.values():
            image.close()
        self._images.clear()

    def _image(self, type: MapType) -> LinkedImage:
        with self._lock:
            image = self._images.get(type)
            if image is None:
                image = self._images[type] = link(self._code(type), {}, self._pool)
            return image

    def _code(self, type: MapType) -> NativeCode:
        return operations_code(type, host(), self._cache)


def operations_code(type: MapType, target: Target, cache: ObjectCache | None) -> NativeCode:
    """The operations on all maps of a type, compiled for `target`."""
    return text_code(host_module(type), target, cache)


def text_code(text: str, target: Target, cache: ObjectCache | None) -> NativeCode:
    """LLVM IR compiled for any processor of `target`, or from the cache."""
    key = hashlib.sha256("\0".join((*toolchain(), target.name, text)).encode()).digest()
    code = cache.get(key) if cache is not None else None
    if code is None:
        from backends.maps.host_code import generate  # late: it needs llvmlite

        code = generate(text, target)
        if cache is not None:
            cache.put(key, code)
    return code
