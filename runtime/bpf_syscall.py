"""bpf(2): a command and its part of `union bpf_attr`, which who calls packs as include/uapi/linux/bpf.h lays it out.

Whoever puts the address of a buffer there keeps the buffer during the call.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from enum import IntEnum
from errno import EAGAIN, EINTR, errorcode
from functools import cache
from typing import Final, final

NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
"""The number of the system call on each machine."""

_ATTR_SIZE: Final = 144


@final
class Command(IntEnum):
    """What is asked of the kernel."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    PROG_TEST_RUN = 10
    BTF_LOAD = 18
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_FREEZE = 22


@final
class KernelError(OSError):
    """What the kernel refused; `log` is its verifier's."""

    errno: int

    def __init__(self, number: int, what: str, log: str = "") -> None:
        super().__init__(number, f"{what}: {errorcode.get(number, number)}\n{log}".rstrip())
        self.log = log

    @property
    def reason(self) -> str:
        """The last line of the log that says why, else the error's name."""
        noise = ("processed", "verification", "stack depth", "mark_")
        lines = [line for line in self.log.splitlines() if line and line[0].isalpha()]
        told = [line for line in lines if not line.startswith(noise)]
        return told[-1] if told else str(self.strerror)


def bpf(
    command: Command, attributes: bytes, what: str, log: ctypes.Array[ctypes.c_char] | None = None
) -> tuple[int, bytes]:
    """The result, and the attributes as the kernel left them. Raises KernelError, which says `what` failed with which `log`."""
    union = ctypes.create_string_buffer(attributes, _ATTR_SIZE)
    call, number = _system_call()
    while True:
        # Safe because bpf(2) reads and writes _ATTR_SIZE bytes of `union`, which are there.
        result: int = call(number, int(command), union, _ATTR_SIZE)
        if result >= 0:
            return result, union.raw
        errno = ctypes.get_errno()
        if errno not in (EINTR, EAGAIN):
            raise KernelError(errno, what, log.value.decode(errors="replace") if log is not None else "")


@cache
def _system_call() -> tuple[Callable[..., int], int]:
    """syscall(2), which keeps errno, and the number of bpf(2) here. Looked up once: a library's object costs more than a call."""
    return ctypes.CDLL(None, use_errno=True).syscall, NUMBERS[platform.machine()]
