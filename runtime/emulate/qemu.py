"""The Platform of a machine that qemu-user runs: a process that maps our memory at our addresses.

    this process                          qemu-user
    code, data: files in memory   =====   the same files, mapped at the same addresses
    requests, answers             <---->  a small program of our own linker (backends/user_mode)

qemu sees no stores to code that it has translated, so what was changed is mapped again before the next call.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import threading
from collections import deque
from errno import EBADF, ENOMEM
from heapq import heappop, heappush
from shutil import which
from typing import Final, final

from backends.native_code import NativeCode
from backends.target import Target, UserMode
from ir.diagnostics import Diagnostic, TrapError, UnsupportedError
from runtime.cache import ObjectCache
from runtime.emulate.platform import allocated, c_library, emulated_space
from runtime.layout import layout_of
from runtime.maps.host import HostOperations, Operations
from runtime.memory import Pool, SharedData
from runtime.platform import Bridge, Function
from runtime.region import PAGE
from runtime.relocate import place, relocate

_BASE: Final = 0x1000_0000
_HEADERS: Final = 0x1000
_STUB: Final = 0x100
_STACK_SIZE: Final = 1 << 20
_FORMAT: Final = "<8Q"
_READ_EXECUTE, _READ_WRITE, _SHARED_FIXED = 5, 3, 0x11
_MASK: Final = (1 << 64) - 1
_AT_FDCWD: Final = -100


@final
class QemuPlatform:
    """qemu-user on an arena of its own. One thread at a time calls into it."""

    is_native = False

    def __init__(self, target: Target, is_shared: bool = False) -> None:
        assert target.user_mode is not None, "asked for a target that qemu-user runs"
        program = qemu_of(target.user_mode)
        self.target, self._user, self.is_shared = target, target.user_mode, is_shared
        self._shared = SharedData()
        self.pool = Pool(poison=target.poison, shared=self._shared)
        self.operations: Operations = HostOperations(self.pool, ObjectCache.default())
        self._bridges: dict[int, Bridge] = {}
        self._gone: deque[tuple[int, int]] = deque()
        self._far: dict[
            int, tuple[int, int]
        ] = {}  # outside of the arena: (their descriptor, size) by address
        self._externals: dict[str, int] = {}
        self._lock = threading.RLock()
        image, self._thunks = executable(target)
        self._free = list(range(len(self._thunks)))
        self._failure: BaseException | None = None
        self._process = _started(program, image, (self.pool.region.file, self._shared.file))
        data = self.pool.address + self.pool.extent.code
        self._map(data, self.pool.extent.size - self.pool.extent.code, _READ_WRITE, self._shared.file, 0)
        self._mirrored = 0
        self._stack = self.pool.allocate_data(_STACK_SIZE)
        self._ask(2, self._stack.address + _STACK_SIZE)
        self._changed = True
        self._map_code(self.pool.address, self.pool.extent.code)
        self.pool.watcher = self
        self.space = emulated_space(self, self._map_code)

    def callback(self, bridge: Bridge) -> int:
        if not self._free:
            said = f"an emulated machine has no more than {len(self._thunks)} functions of ours"
            raise UnsupportedError([Diagnostic("too-many-callbacks", said, errno=ENOMEM)])
        number = heappop(self._free)
        self._bridges[number] = bridge
        return self._thunks[number]

    def drop_callback(self, address: int) -> None:
        number = self._thunks.index(address)
        if self._bridges.pop(number, None) is not None:
            heappush(self._free, number)

    def external(self, symbol: str) -> int | None:
        if symbol not in self._externals:
            found = c_library(self.target).get(symbol)
            if found is None:
                return None
            self._externals[symbol] = self.callback(found)
        return self._externals[symbol]

    def function(self, address: int, *kinds: type) -> Function:
        def call(*arguments: int) -> int:
            with self._lock:
                self._refresh()
                return self._ask(1, address, *arguments)

        return call

    def allocate(self, size: int) -> ctypes.Array[ctypes.c_uint8]:
        return allocated(self.pool, size)

    def steps(self) -> int | None:
        return None

    def close(self) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self.operations.close()
            self.pool.close()

    def written(self, address: int, size: int) -> None:
        """Code was written: map it again before the next call."""
        self._changed = True
        if self._place_of(address) is not None:
            self._map_code(address, size)

    def mapped(self, address: int, size: int, alias: int, file: int, *, is_code: bool) -> None:
        """See memory outside of the arena."""
        self._unmap_gone()
        path = f"/proc/{os.getpid()}/fd/{file}".encode() + b"\0"
        with self.pool.allocate_data(len(path)) as block:
            block.view[: len(path)] = path
            theirs = self._ask(0, self._user.openat, _AT_FDCWD, block.address, os.O_RDWR, 0)
        if theirs >= 1 << 63:
            said = f"{self._user.program} can't open memory of ours"
            raise UnsupportedError([Diagnostic("mapping-refused", said, errno=(1 << 64) - theirs)])
        self._far[address] = (theirs, size)
        self._map(address, size, _READ_EXECUTE if is_code else _READ_WRITE, theirs, 0)

    def unmapped(self, address: int, size: int) -> None:
        """See it no longer, from the next call on: finalizers come here, at any time."""
        self._gone.append((address, size))

    def _unmap_gone(self) -> None:
        while self._gone:
            address, size = self._gone.popleft()
            self._ask(0, self._user.munmap, address, size)
            self._ask(0, self._user.close, self._far.pop(address)[0])

    def _place_of(self, address: int) -> tuple[int, int, int] | None:
        """Memory outside of the arena that an address is in: start, size, descriptor over there."""
        for start, (file, size) in self._far.items():
            if start <= address < start + size:
                return start, size, file
        return None

    def _refresh(self) -> None:
        """Let the other side see what was written and mirrored here."""
        self._unmap_gone()
        for start, size, offset in self._shared.mirrors[self._mirrored :]:
            self._map(start, size, _READ_WRITE, self._shared.file, offset)
        self._mirrored = len(self._shared.mirrors)
        if self._changed:
            self._changed = False
            self._map_code(self.pool.address, self.pool.extent.code)

    def _map_code(self, address: int, size: int) -> None:
        """Map code again, which makes qemu drop what it translated of it."""
        place = self._place_of(address)
        if place is not None:
            self._map(place[0], place[1], _READ_EXECUTE, place[2], 0)
            return
        start = address // PAGE * PAGE
        size = -(-(address + size - start) // PAGE) * PAGE
        self._map(start, size, _READ_EXECUTE, self.pool.region.file, start - self.pool.address)

    def _map(self, address: int, size: int, protection: int, file: int, offset: int) -> None:
        found = self._ask(0, self._user.mmap, address, size, protection, _SHARED_FIXED, file, offset)
        if found != address:
            said = f"{self._user.program} maps {size} bytes at {found:#x}, wanted {address:#x}"
            raise UnsupportedError([Diagnostic("mapping-refused", said)])

    def _ask(self, *request: int) -> int:
        """Send a request, and answer the functions of ours that code calls until it is done."""
        with self._lock:
            self._send(*request)
            while True:
                what, *rest = self._receive()
                if what == 0:
                    failure, self._failure = self._failure, None
                    if failure is not None:
                        raise failure
                    return rest[0]
                self._answer(self._bridges[what - 1], rest[:6])

    def _answer(self, bridge: Bridge, arguments: list[int]) -> None:
        """Let a function of ours answer; what it raises comes out when the code that called it has ended."""
        result = 0
        try:
            result = bridge(*arguments) & _MASK
        except BaseException as error:  # noqa: BLE001  # the other side waits for an answer
            self._failure = self._failure or error
        self._refresh()
        self._send(3, result)

    def _send(self, *words: int) -> None:
        assert self._process.stdin is not None
        if self._process.stdin.closed or self._process.poll() is not None:
            said = f"{self._user.program} is not running any more"
            raise UnsupportedError([Diagnostic("closed", said, errno=EBADF)])
        padded = [word & _MASK for word in words] + [0] * (8 - len(words))
        self._process.stdin.write(struct.pack(_FORMAT, *padded))
        self._process.stdin.flush()

    def _receive(self) -> tuple[int, ...]:
        assert self._process.stdout is not None
        answer = self._process.stdout.read(64)
        if len(answer) < 64:
            code = self._process.wait()
            raise TrapError([Diagnostic("emulation-failed", f"{self._user.program} ended with {code}")])
        return struct.unpack(_FORMAT, answer)


def _started(program: str, image: bytes, files: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """qemu-user running an executable, which lies in memory: whoever is killed leaves no file behind."""
    with os.fdopen(os.memfd_create("bpfc-serve", os.MFD_CLOEXEC), "wb") as file:
        file.write(image)
        file.flush()
        serve = file.fileno()
        return subprocess.Popen(
            [program, f"/proc/self/fd/{serve}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(serve, *files),
        )


def qemu_of(user: UserMode) -> str:
    """The path of qemu-user. UnsupportedError, naming the package, when it is not installed."""
    for name in (user.program, f"{user.program}-static"):
        found = which(name)
        if found is not None:
            return found
    note = "apt install qemu-user"
    said = f"{user.program} is not installed"
    raise UnsupportedError([Diagnostic("no-emulator", said, notes=(note,))])


def executable(target: Target) -> tuple[bytes, list[int]]:
    """The serving program as a static ELF executable, and the addresses of its thunks."""
    user = target.user_mode
    assert user is not None
    code = _code(target)
    layout = layout_of(code, target)
    start = _BASE + _HEADERS
    symbols = {"syscall": start, "enter": start + len(user.syscall)}
    stub = (user.syscall + user.enter).ljust(_STUB, b"\0")
    at = start + len(stub)
    addresses = (at, at + layout.code_size)
    placement = place(code, layout, addresses, symbols.get, {}, target.table_base)
    linked = relocate(code, target, layout, placement)
    named = {symbol.name: placement.symbols[number] for number, symbol in enumerate(code.symbols)}
    size = _HEADERS + len(stub) + len(linked.code)
    order = "<" if target.byte_order == "little" else ">"
    identity = b"\x7fELF\2" + (b"\1" if order == "<" else b"\2") + b"\1" + bytes(9)
    fields = (2, target.machine, 1, named["_start"], 64, 0, user.flags, 64, 56, 1, 64, 0, 0)
    header = identity + struct.pack(order + "2HI3QI6H", *fields)
    segment = struct.pack(order + "2I6Q", 1, 7, 0, _BASE, _BASE, size, size, _HEADERS)
    image = (header + segment).ljust(_HEADERS, b"\0") + stub + linked.code
    thunks = {name: address for name, address in named.items() if name.startswith("thunk.")}
    return image, [thunks[f"thunk.{number}"] for number in range(len(thunks))]


def _code(target: Target) -> NativeCode:
    import hashlib

    from backends.user_mode import generate, user_mode_text

    cache = ObjectCache.default()
    key = hashlib.sha256(repr((target.name, user_mode_text(target))).encode()).digest()
    code = cache.get(key)
    if code is None:
        code = generate(target)
        cache.put(key, code)
    return code
