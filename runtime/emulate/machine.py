"""A Unicorn machine that sees an arena of ours at the addresses it has in this process.

    guest address = host address
    | code: the writable alias of the region, guest may read and execute | data: shared, guest may read and write |
    | page of returns: entry 0 ends a call, each other one is a Python function that code may call                |

So pointers mean the same on both sides: contexts, packets, maps and what helpers are given need no copying. Unicorn
does not see our stores to code that it has translated: `written` tells it.
"""

from __future__ import annotations

import ctypes
import struct
import threading
import weakref
from collections import deque
from collections.abc import Callable
from errno import EBADF, ENOMEM
from heapq import heappop, heappush
from typing import Any, Final, final

import unicorn

from backends.target import Emulation, Target
from ir.diagnostics import Diagnostic, TrapError, UnsupportedError
from runtime.emulate.arguments import Places, places, usual_sizes
from runtime.memory import DataBlock, Pool

_UNICORN: Final[Any] = unicorn  # it has no types
_STACK_SIZE: Final = 1 << 20
_RETURNS: Final = 4096
_THREAD_SIZE: Final = 4096
_MASK: Final = (1 << 64) - 1

_DATA, _CODE = 0x93, 0x9B  # access rights of segments: read and write, read and execute

Bridge = Callable[..., int]


@final
class Machine:
    """A processor of `target` on the memory of `pool`. One thread at a time calls into it; calls may nest.

    `limit`: machine instructions that a call may run, 0 for any number; `counts`: whether they are counted.
    """

    def __init__(self, target: Target, pool: Pool, limit: int, counts: bool) -> None:
        emulation = target.emulation
        if emulation is None:
            said = f"Unicorn has no {target.name} that works"
            raise UnsupportedError([Diagnostic("no-emulator", said)])
        self.target, self.limit = target, limit
        architecture = getattr(_UNICORN, f"UC_ARCH_{emulation.architecture}")
        self._uc: Any = _UNICORN.Uc(architecture, getattr(_UNICORN, f"UC_MODE_{emulation.mode}"))
        # Not alive from when Unicorn frees the machine: as Python ends it does, whoever still holds it.
        self._life = weakref.finalize(self._uc, lambda: None)
        constants = getattr(_UNICORN, f"{emulation.prefix.lower()}_const")
        self._register: Callable[[str], int] = lambda name: int(
            getattr(constants, f"UC_{emulation.prefix}_REG_{name.upper()}")
        )
        readable = _UNICORN.UC_PROT_READ
        # Safe because the pool is unmapped only after this machine is closed.
        extent, data = pool.extent, pool.address + pool.extent.code
        self._uc.mem_map_ptr(pool.address, extent.code, readable | _UNICORN.UC_PROT_EXEC, pool.region.alias)
        self._uc.mem_map_ptr(data, extent.size - extent.code, readable | _UNICORN.UC_PROT_WRITE, data)
        self._stack: DataBlock = pool.allocate_data(_STACK_SIZE)
        self._returns = pool.allocate_code(_RETURNS)
        ret = target.calling.ret
        self._step = len(ret)
        self._returns.write(0, ret * (_RETURNS // len(ret)))
        self._gone: deque[tuple[int, int]] = deque()
        self._bridges: dict[int, tuple[Bridge, Places]] = {}
        self._places: dict[tuple[int, ...], Places] = {}
        self._free = list(range(1, _RETURNS // self._step))
        for name, value in emulation.state:
            self._uc.reg_write(self._register(name), value)
        self._set_thread_pointer(pool.allocate_data(_THREAD_SIZE), emulation)
        arguments = [self._register(name) for name in target.calling.arguments]
        self._arguments: Final = arguments
        self._result = self._register(target.calling.result)
        high = target.calling.result_high
        self._result_high = self._register(high) if high else None
        self._sp = self._register(target.calling.stack)
        self._link = self._register(target.calling.link) if target.calling.link else None
        first = self._returns.address
        self._uc.hook_add(_UNICORN.UC_HOOK_CODE, self._called, begin=first, end=first + _RETURNS - 1)
        self.steps: int | None = None
        if counts:
            self.steps = 0
            self._uc.hook_add(_UNICORN.UC_HOOK_CODE, self._count)
        self._lock = threading.RLock()
        self._depth = 0
        self._has_returned = False
        self._failure: BaseException | None = None

    def bridge(self, function: Bridge, sizes: tuple[int, ...] | None = None) -> int:
        """An address that code can call with the arguments of `function`, of these sizes in bytes.

        By default they are a helper's: the run state and five u64.
        """
        if not self._free:
            said = f"an emulated machine has no more than {len(self._bridges)} functions of ours"
            raise UnsupportedError([Diagnostic("too-many-callbacks", said, errno=ENOMEM)])
        number = heappop(self._free)
        self._bridges[number] = (
            function,
            self._places_of(usual_sizes(self.target, 6) if sizes is None else sizes),
        )
        return self._returns.address + number * self._step

    def _places_of(self, sizes: tuple[int, ...]) -> Places:
        found = self._places.get(sizes)
        if found is None:
            found = self._places[sizes] = places(self.target, sizes)
        return found

    def drop(self, address: int) -> None:
        """Undo `bridge`."""
        number = (address - self._returns.address) // self._step
        if self._bridges.pop(number, None) is not None:
            heappush(self._free, number)

    def call(self, address: int, arguments: tuple[int, ...], sizes: tuple[int, ...] = ()) -> int:
        """Run the function at `address` until it returns. TrapError past the limit, or at what a processor refuses.

        `sizes` are those of the arguments in bytes; by default they are a program's.
        """
        with self._lock:
            self._require_open()
            self._unmap_gone()
            saved = self._uc.context_save() if self._depth else None
            top = self._uc.reg_read(self._sp) - 4096 if saved else self._stack.address + _STACK_SIZE
            self._depth += 1
            try:
                sizes = sizes or usual_sizes(self.target, len(arguments))
                return self._call(address, arguments, self._places_of(sizes), top & -16)
            finally:
                self._depth -= 1
                if saved is not None:
                    self._uc.context_restore(saved)

    def written(self, address: int, size: int) -> None:
        """Code there was changed or replaced: translate it anew."""
        with self._lock:
            if self._life.alive:
                self._uc.ctl_remove_cache(address, address + size)

    def mapped(self, address: int, size: int, alias: int, file: int, *, is_code: bool) -> None:
        """See memory outside of the arena."""
        readable = _UNICORN.UC_PROT_READ
        protection = readable | (_UNICORN.UC_PROT_EXEC if is_code else _UNICORN.UC_PROT_WRITE)
        with self._lock:
            self._unmap_gone()
            # Safe because what is gone is unmapped before the next call.
            self._uc.mem_map_ptr(address, size, protection, alias)

    def unmapped(self, address: int, size: int) -> None:
        """See it no longer, from the next call on: finalizers come here, at any time."""
        self._gone.append((address, size))

    def _unmap_gone(self) -> None:
        while self._gone:
            self._uc.mem_unmap(*self._gone.popleft())

    def close(self) -> None:
        """Give the memory up; closing twice is fine."""
        self._stack.close()
        self._thread.close()
        self._uc = None

    def _require_open(self) -> None:
        if self._uc is None:
            said = f"the emulated {self.target.name} was closed"
            raise UnsupportedError([Diagnostic("closed", said, errno=EBADF)])

    def _call(self, address: int, arguments: tuple[int, ...], given: Places, top: int) -> int:
        uc, finish, word = self._uc, self._returns.address, self.target.word
        top = (top - given.stack & -16) - self.target.calling.save_area
        for units, value in zip(given.units, arguments, strict=True):
            for number, unit in enumerate(units):
                part = value >> 8 * word * number & (1 << 8 * word) - 1
                if unit >= 0:
                    uc.reg_write(self._arguments[unit], part)
                else:
                    self._put(top + self.target.calling.save_area - 1 - unit, part)
        if self._link is None:
            top -= word
            self._put(top, finish)
        else:
            uc.reg_write(self._link, finish)
        uc.reg_write(self._sp, top)
        if self._depth == 1 and self.steps is not None:
            self.steps = 0
        self._has_returned = False
        try:
            uc.emu_start(address, 0, count=self.limit)
        except _UNICORN.UcError as error:
            raise TrapError(
                [Diagnostic("emulation-failed", f"{self.target.name} stopped: {error}")]
            ) from None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if not self._has_returned:
            said = f"the run took more than {self.limit} machine instructions"
            raise TrapError([Diagnostic("step-limit", said)])
        self._has_returned = False
        return self._returned()

    def _put(self, place: int, value: int) -> None:
        """A word of the stack."""
        # Safe because the stack is a block of ours, and calls nest only as far as it has room.
        ctypes.memmove(place, value.to_bytes(self.target.word, self.target.byte_order), self.target.word)

    def _returned(self) -> int:
        """The result of the function that has ended, as u64."""
        low = int(self._uc.reg_read(self._result)) & _MASK
        if self._result_high is None:
            return low
        return low | int(self._uc.reg_read(self._result_high)) << 32

    def _return(self, result: int) -> None:
        """Let code find the result of a function of ours."""
        if self._result_high is not None:
            self._uc.reg_write(self._result_high, result >> 32 & 0xFFFF_FFFF)
            result &= 0xFFFF_FFFF
        self._uc.reg_write(self._result, result & _MASK)

    def _called(self, uc: Any, address: int, size: int, _: object) -> None:
        """Code arrived at a return: the end of a call, or a Python function."""
        number = (address - self._returns.address) // self._step
        if number == 0:
            self._has_returned = True
            uc.emu_stop()
            return
        try:
            function, given = self._bridges[number]
            self._return(function(*self._given(given)))
        except BaseException as error:  # noqa: BLE001  # nothing may unwind through the emulator
            self._failure = error
            uc.emu_stop()

    def _set_thread_pointer(self, block: DataBlock, emulation: Emulation) -> None:
        """Memory of the one thread; on x86 its first word is its own address (psABI, 11.1.2)."""
        self._thread = block
        word = self.target.word
        block.view[:word] = block.address.to_bytes(word, self.target.byte_order)
        if emulation.segment:
            self._set_segments(block, emulation.segment)
        bits = emulation.thread_bits
        for number, name in enumerate(reversed(emulation.thread)):
            self._uc.reg_write(self._register(name), block.address >> bits * number & (1 << bits) - 1)

    def _set_segments(self, block: DataBlock, name: str) -> None:
        """Let the segment `name` begin at a block, and all others at 0; their descriptors are in its second half."""
        table = block.address + _THREAD_SIZE // 2
        rows = (0, 0), (block.address, _DATA), (0, _DATA), (0, _CODE)
        descriptors = b"".join(_descriptor(base, access) for base, access in rows)
        block.view[_THREAD_SIZE // 2 : _THREAD_SIZE // 2 + len(descriptors)] = descriptors
        self._uc.reg_write(self._register("gdtr"), (0, table, len(descriptors) - 1, 0))
        for segment, number in ((name, 1), ("ss", 2), ("ds", 2), ("es", 2), ("cs", 3)):
            self._uc.reg_write(self._register(segment), 8 * number)

    def _given(self, given: Places) -> list[int]:
        """The arguments of the function that code called."""
        word, order = self.target.word, self.target.byte_order
        place = int(self._uc.reg_read(self._sp)) + self.target.calling.save_area
        place += 0 if self._link is not None else word
        found = []
        for units in given.units:
            value = 0
            for number, unit in enumerate(units):
                if unit >= 0:
                    part = int(self._uc.reg_read(self._arguments[unit])) & (1 << 8 * word) - 1
                else:
                    part = int.from_bytes(bytes(self._uc.mem_read(place - 1 - unit, word)), order)
                value |= part << 8 * word * number
            found.append(value)
        return found

    def _count(self, uc: Any, address: int, size: int, _: object) -> None:
        assert self.steps is not None
        self.steps += 1


def _descriptor(base: int, access: int) -> bytes:
    """A segment of 4 GiB, of 32-bit code or data (SDM volume 3, 3.4.5)."""
    low = 0xFFFF | (base & 0xFFFF) << 16
    high = base >> 16 & 0xFF | access << 8 | 0xCF << 16 | base >> 24 << 24
    return struct.pack("<II", low, high) if access else bytes(8)
