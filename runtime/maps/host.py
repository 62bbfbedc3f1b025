"""The host's own map operations: the same native code that programs run, called through ctypes.

There is one image for each map type, compiled on first use and kept in the object cache.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import threading
from collections.abc import Callable
from typing import Final, final

from backends import abi
from backends.maps.operation import SIGNATURES
from backends.maps.registry import host_module, host_symbol, operation_of
from backends.native_code import NativeCode
from ir.kinds import MapType
from runtime.cache import ObjectCache
from runtime.linker import LinkedImage, link
from runtime.memory import Pool

NativeOperation = Callable[..., int]  # addresses and numbers in; -errno out when it failed
_TYPES: Final = {"ptr": ctypes.c_void_p, "i64": ctypes.c_int64}


@final
class HostOperations:
    """Owns the images of the host's operations.

    `run` is the address of a run state for calls from the host (cpu 0).
    """

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
        from importlib.metadata import version  # late: 30 ms, and only objects with maps come here

        text = host_module(type)
        said = (version("llvmlite"), platform.machine(), platform.processor(), text)
        key = hashlib.sha256(repr(said).encode()).digest()
        code = self._cache.get(key) if self._cache is not None else None
        if code is None:
            from backends.maps.host_code import generate  # late: it needs llvmlite

            code = generate(text)
            if self._cache is not None:
                self._cache.put(key, code)
        return code
