"""The Platform of a foreign machine that Unicorn emulates."""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from errno import EFAULT
from typing import Final, final

from backends.divisions import DIVISIONS, divisions_text
from backends.maps.operation import SIGNATURES
from backends.maps.registry import host_symbol
from backends.target import Target
from ir.kinds import MapType
from runtime.arena import NARROW, WIDE
from runtime.cache import ObjectCache
from runtime.emulate.arguments import sizes_of
from runtime.emulate.machine import Machine
from runtime.linker import LinkedImage, link
from runtime.maps.host import HostOperations, NativeOperation, Operations, Room, operations_code, text_code
from runtime.memory import GRANULE, CodeBlock, Pool, SharedData
from runtime.patch import Patcher
from runtime.platform import Bridge, Function, Platform
from runtime.publish import Publisher
from runtime.space import Space

DEFAULT_STEPS: Final = 1 << 32
_SCRATCH: Final = 1 << 20
_LARGE: Final = 1 << 16


@final
class EmulatedPlatform:
    """Unicorn, on an arena of its own."""

    is_native = False

    def __init__(self, target: Target, limit: int = 0, counts: bool = False, is_shared: bool = False) -> None:
        self.target, self.is_shared = target, is_shared
        extent = WIDE if target.word == 8 else NARROW
        self.pool = Pool(poison=target.poison, shared=SharedData(), extent=extent)
        self.machine = Machine(target, self.pool, limit, counts)
        self.pool.watcher = self.machine
        self.space = emulated_space(self, self.machine.written)
        native = HostOperations(self.pool, ObjectCache.default())
        same = native.order == target.byte_order
        self.operations: Operations = native if same else EmulatedOperations(self)
        self._externals: dict[str, int] = {}
        self._divisions: LinkedImage | None = None
        self._is_open = True

    def callback(self, bridge: Bridge) -> int:
        return self.machine.bridge(bridge)

    def drop_callback(self, address: int) -> None:
        self.machine.drop(address)

    def external(self, symbol: str) -> int | None:
        if symbol not in self._externals:
            found = c_library(self.target).get(symbol)
            if found is None:
                return self._division(symbol)
            self._externals[symbol] = self.machine.bridge(found, _sizes(self.target, symbol))
        return self._externals[symbol]

    def _division(self, symbol: str) -> int | None:
        """A function that LLVM calls for what the machine lacks (backends/divisions)."""
        if self.target.word == 8 or symbol not in DIVISIONS:
            return None
        if self._divisions is None:
            code = text_code(divisions_text(), self.target, ObjectCache.default())
            self._divisions = link(code, {}, self.pool)
        return self._divisions.address_of(symbol)

    def function(self, address: int, *kinds: type) -> Function:
        sizes = sizes_of(self.target, kinds)
        return lambda *arguments: self.machine.call(address, arguments, sizes)

    def allocate(self, size: int) -> ctypes.Array[ctypes.c_uint8]:
        return allocated(self.pool, size)

    def steps(self) -> int | None:
        return self.machine.steps

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self.operations.close()
            if self._divisions is not None:
                self._divisions.close()
            self.machine.close()
            self.pool.close()


@final
class EmulatedOperations:
    """The target's own map operations, run by the emulator: for maps in the other byte order."""

    def __init__(self, platform: EmulatedPlatform) -> None:
        self._platform = platform
        self.order = platform.target.byte_order
        self._images: dict[MapType, LinkedImage] = {}
        self._functions: dict[tuple[MapType, str], NativeOperation] = {}
        self._scratch = platform.pool.allocate_data(_SCRATCH)
        self._used = 4096
        self.run = self._scratch.address  # the run state of calls from the host: zeros

    def of(self, type: MapType, name: str) -> NativeOperation:
        """Operation `name` for maps of `type`; results are signed."""
        found = self._functions.get((type, name))
        if found is None:
            image = self._images.get(type)
            if image is None:
                code = operations_code(type, self._platform.target, ObjectCache.default())
                image = self._images[type] = link(code, self._platform.external, self._platform.pool)
            call = self._platform.function(image.address_of(host_symbol(type, name)))
            is_signed = SIGNATURES[name][0] == "i64"
            found = self._functions[type, name] = _signed(call) if is_signed else call
        return found

    def given(self, data: bytes) -> int:
        """A copy in emulated memory, good for the next few operations."""
        room = self.room(len(data))
        ctypes.memmove(room.address, data, len(data))
        return room.address

    def room(self, size: int) -> Room:
        """A part of the scratch memory, which is used round and round; large ones get a block."""
        if size > _LARGE:
            block = self._platform.pool.allocate_data(size)
            return Room(block.address, size, block)
        if self._used + size > _SCRATCH:
            self._used = 4096
        place = self._scratch.address + self._used
        self._used += (size + 15) & -16
        return Room(place, size, self._scratch)

    def close(self) -> None:
        self._functions.clear()
        for image in self._images.values():
            image.close()
        self._images.clear()


def _signed(call: Function) -> NativeOperation:
    def operation(*arguments: int) -> int:
        result = call(*arguments)
        return result - (1 << 64) if result >> 63 else result

    return operation


def allocated(pool: Pool, size: int) -> ctypes.Array[ctypes.c_uint8]:
    """Zeroed memory of a pool, which gets it back when nobody has the array any more."""
    block = pool.allocate_data(size)
    # Safe because the block's memory is given back only after the array, which keeps a view of it, is gone.
    return (ctypes.c_uint8 * size).from_buffer(block.view)


def emulated_space(platform: Platform, forget: Callable[[int, int], None]) -> Space:
    """The space of an emulated machine; `forget` makes it fetch the code in a range (address, size) anew."""
    target = platform.target

    def make_patcher() -> Patcher:
        return Patcher(Publisher(target, system=_Emulator(platform, forget)))

    return Space(target, platform.pool, make_patcher, platform.external)


@final
class _Emulator:
    """An emulated machine, for its Publisher: one thread, so there is nothing to wait for."""

    refusal = ""

    def __init__(self, platform: Platform, forget: Callable[[int, int], None]) -> None:
        self._platform, self._forget = platform, forget

    def canary_block(self) -> CodeBlock:
        return self._platform.pool.allocate_code(GRANULE)

    def call(self, address: int) -> int:
        return self._platform.function(address)()

    def fetch_anew(self, block: CodeBlock) -> None:
        self._forget(block.address, block.size)

    def settle(self, blocks: Iterable[CodeBlock]) -> None:
        pass


def _sizes(target: Target, symbol: str) -> tuple[int, ...]:
    """The sizes of the arguments of a function of the C library."""
    word = target.word
    known = {"memset": (word, 4, word), "clock_gettime": (4, word), "getpid": (), "process_vm_readv": ()}
    return known.get(symbol, (word, word, word))


def c_library(target: Target) -> Mapping[str, Callable[..., int]]:
    """What LLVM and native helpers call of the C library, on memory that both sides see."""

    # Safe, all of these, because compiled code checked what it passes, as for the C library's own functions.
    def memcpy(to: int, source: int, size: int, *_: int) -> int:
        ctypes.memmove(to, source, size)
        return to

    def memset(to: int, byte: int, size: int, *_: int) -> int:
        ctypes.memset(to, byte & 0xFF, size)
        return to

    def memcmp(a: int, b: int, size: int, *_: int) -> int:
        x, y = ctypes.string_at(a, size), ctypes.string_at(b, size)
        return (x > y) - (x < y)

    def clock_gettime(clock: int, place: int, *_: int) -> int:
        now = time.clock_gettime_ns(clock & 0xFFFF_FFFF)
        order = "<" if target.byte_order == "little" else ">"
        ctypes.memmove(place, struct.pack(order + "2Q", *divmod(now, 1_000_000_000)), 16)
        return 0

    def getpid(*_: int) -> int:
        return 1

    def process_vm_readv(*_: int) -> int:
        return -EFAULT

    return {
        "memcpy": memcpy,
        "memmove": memcpy,
        "memset": memset,
        "memcmp": memcmp,
        "bcmp": memcmp,
        "clock_gettime": clock_gettime,
        "getpid": getpid,
        "process_vm_readv": process_vm_readv,
    }
