"""Making stores to code seen by every thread: barriers, cache operations, and what works on this machine.

A store through the writable alias changes memory; what a processor or an emulator has already fetched is
another matter. `Publisher` does what makes all later fetches see it, in one of three ways (`Mode`), on a
`System`: this one, or an emulated machine. A canary finds out at the start: it runs a function, changes it as
patches do, and looks whether it returns something else. Source: membarrier(2), and the architectures' rules for
cross-modifying code (Intel SDM volume 3, 9.1.3: a serializing instruction on each processor).
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterable
from enum import Enum
from functools import cache
from typing import Final, Literal, Protocol, final

from backends.registry import host
from backends.target import Target
from ir.diagnostics import Diagnostic, UnsupportedError
from runtime.memory import CodeBlock
from runtime.region import PAGE, Protection, Region

_MEMBARRIER: Final = {
    "x86_64": 324,
    "aarch64": 283,
    "riscv64": 283,
    "s390x": 356,
    "ppc64le": 365,
    "ppc64": 365,
}
_SYNC_CORE: Final = 32
_REGISTER_SYNC_CORE: Final = 64
WORD_FORMATS: Final[dict[int, Literal["B", "I", "Q"]]] = {1: "B", 4: "I", 8: "Q"}
_CANARY: Final = ctypes.CFUNCTYPE(ctypes.c_int)


class Mode(Enum):
    """How changed code is published."""

    NONE = "none"  # nothing but the barrier
    REMAP = (
        "remap"  # map the same pages again where they are executed: emulators need that, or something like it
    )
    RWX = "rwx"  # code is written where it is executed


class System(Protocol):
    """Whatever runs the code. `refusal` says why code can't be changed there while it runs, '' when it can."""

    refusal: str

    def canary_block(self) -> CodeBlock:
        """Memory for a small function."""

    def call(self, address: int) -> int:
        """The result of the function there, which takes nothing."""

    def fetch_anew(self, block: CodeBlock) -> None:
        """Mode REMAP: drop what was made of the code of a block."""

    def settle(self, blocks: Iterable[CodeBlock]) -> None:
        """Wait until every processor fetches what stands in memory."""


@final
class Publisher:
    """Makes stores to code visible. One a system: for this process `publisher`."""

    def __init__(self, target: Target, forced: Mode | None = None, system: System | None = None) -> None:
        self.target = target
        self._system = system or _Host(target)
        self.refusal = self._system.refusal
        self.mode, self.reason = self._choose(forced)

    def publish(self, blocks: Iterable[CodeBlock]) -> None:
        """After this, every thread that fetches code from the blocks sees what stands there now.

        UnsupportedError (EOPNOTSUPP) where the system has no barrier for it; nothing may be changed there.
        """
        self.require()
        blocks = tuple(blocks)
        if self.mode is Mode.REMAP:
            for block in blocks:
                self._system.fetch_anew(block)
        self._system.settle(blocks)

    def require(self) -> None:
        """Raise UnsupportedError (EOPNOTSUPP) when running code can't be changed here."""
        if self.refusal:
            raise UnsupportedError([Diagnostic("no-live-patching", self.refusal, errno=errno.EOPNOTSUPP)])

    def _choose(self, forced: Mode | None) -> tuple[Mode, str]:
        if forced is not None:
            return forced, "asked for"
        if self.refusal:
            return Mode.NONE, self.refusal
        for mode in (Mode.NONE, Mode.REMAP):
            self.mode = mode
            if self._canary_sings():
                return mode, "changed code is seen" if mode is Mode.NONE else "only remapped code is seen"
        self.refusal = "changed code is not seen here through another mapping; BPFC_PUBLISH=rwx may help"
        return Mode.NONE, self.refusal

    def _canary_sings(self) -> bool:
        """Whether a function that ran and was then changed behaves as changed."""
        before, after = self.target.patching.canary
        with self._system.canary_block() as block:
            block.write(0, before)
            self.publish([block])
            if self._system.call(block.address) != 1:
                return False
            _store_unit(block, before, after, self.target.patching.unit)
            self.publish([block])
            return self._system.call(block.address) == 2


@final
class _Host:
    """This process. The kernel registers it for the barrier."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._number = _MEMBARRIER.get(os.uname().machine, -1)
        # Safe because membarrier(2) takes three integers, given below, and touches no memory of ours.
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self.refusal = self._register()

    def canary_block(self) -> CodeBlock:
        region = Region(0, PAGE, Protection.WRITE_XOR_EXECUTE, self._target.poison, replace=False)
        region.commit(PAGE)
        return CodeBlock(region, 0, PAGE, None)

    def call(self, address: int) -> int:
        # Safe because the canary is a whole function of this machine: it takes nothing, returns an int.
        return int(_CANARY(address)())

    def fetch_anew(self, block: CodeBlock) -> None:
        block.region.remap(block.start, block.start + block.size)

    def settle(self, blocks: Iterable[CodeBlock]) -> None:
        if self._target.patching.needs_cache_flush:
            for block in blocks:
                _clear_cache()(block.address, block.address + block.size)
        if self._syscall(self._number, _SYNC_CORE, 0, 0):
            raise AssertionError(f"membarrier fails after it was registered: errno {ctypes.get_errno()}")

    def _register(self) -> str:
        """Why there is no barrier, '' when there is one."""
        if self._number < 0:
            return f"the number of membarrier(2) on {os.uname().machine} is not known"
        if self._syscall(self._number, _REGISTER_SYNC_CORE, 0, 0):
            return f"the system refuses membarrier(2): {os.strerror(ctypes.get_errno())}"
        return ""


def _store_unit(block: CodeBlock, before: bytes, after: bytes, unit: int) -> None:
    """Make the one store that turns one canary into the other."""
    index = next(i for i in range(len(before)) if before[i] != after[i]) // unit
    word = after[index * unit : (index + 1) * unit]
    block.words(WORD_FORMATS[unit])[index] = int.from_bytes(word, sys.byteorder)


@cache
def publisher() -> Publisher:
    """The publisher of this process; BPFC_PUBLISH=none|remap|rwx overrules the canary."""
    asked = os.environ.get("BPFC_PUBLISH")
    return Publisher(host(), Mode(asked) if asked else None)


@cache
def _clear_cache() -> ctypes._FuncPointer:
    """The compiler's cache operation for a range of addresses, from its runtime library."""
    # Safe because __clear_cache takes a start and an end and has no other effect than on caches.
    function = ctypes.CDLL("libgcc_s.so.1").__clear_cache
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    function.restype = None
    return function
