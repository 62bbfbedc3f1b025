"""The running Linux kernel as an oracle: load a case, run it on data, compare. Nothing is ever attached.

bpf(2) takes a command and a `union bpf_attr`; each command's part of it is packed here as
include/uapi/linux/bpf.h lays it out. Safe because each buffer whose address is given to bpf(2) lives in the
caller's frame during the call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

from bpfc.testing.case import LICENSE, Case
from bpfc.testing.reference import Outcome
from ir.encoding import encode
from ir.isa import Insn, Wide
from ir.object import Map, ReferenceKind

SYSCALL: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
MAP_CREATE, MAP_UPDATE, MAP_FREEZE, PROG_LOAD, TEST_RUN = 0, 2, 22, 5, 10
_READ_ONLY_FLAG: Final = 1 << 7
_LOG_SIZE: Final = 1 << 20
_ATTR_SIZE: Final = 144


class KernelRefusal(Exception):  # noqa: N818  # an answer, not an error
    """What the kernel refused; `log` is its verifier's."""

    def __init__(self, number: int, what: str, log: str = "") -> None:
        super().__init__(f"{what}: {errno.errorcode.get(number, number)}")
        self.errno, self.log = number, log

    @property
    def reason(self) -> str:
        """The last line of the log that says why."""
        told = [line for line in self.log.splitlines() if line and line[0].isalpha()]
        told = [
            line
            for line in told
            if not line.startswith(("processed", "verification", "stack depth", "mark_"))
        ]
        return told[-1] if told else str(self)


@contextmanager
def loaded(case: Case) -> Iterator[int]:
    """The descriptor of the case's program in the kernel; raises KernelRefusal."""
    program = case.program
    assert program is not None, "a case of instructions"
    with ExitStack() as stack:
        maps = {name: stack.enter_context(_map(map_)) for name, map_ in case.maps.items()}
        yield stack.enter_context(_closing(_load(_resolved(case, maps), program.type)))


def run_in_kernel(program: int, data: bytes) -> Outcome:
    """Run a loaded program once on a packet."""
    given, taken = ctypes.create_string_buffer(data, len(data)), ctypes.create_string_buffer(len(data) + 512)
    attr = struct.pack("=4I2Q2I", program, 0, len(data), len(taken), _address(given), _address(taken), 1, 0)
    _, after = _bpf(TEST_RUN, attr, "test run")
    _, ret, _, size = struct.unpack_from("=4I", after)
    return Outcome(ret, taken.raw[:size])


def _resolved(case: Case, maps: Mapping[str, int]) -> Iterator[Insn]:
    """The instructions with the maps' descriptors in them."""
    program = case.program
    assert program is not None, "a case of instructions"
    for slot, insn in zip(program.starts, program.insns, strict=False):
        reference = program.references.get(slot)
        if reference is None:
            yield insn
        elif reference.kind is ReferenceKind.MAP:
            yield insn._replace(src=Wide.MAP_FD.value, imm=maps[reference.name])
        else:
            yield insn._replace(src=Wide.MAP_VALUE.value, imm=maps[reference.name] | reference.offset << 32)


def _load(insns: Iterable[Insn], type: int) -> int:
    code = encode(insns, sys.byteorder == "big")
    text, terms = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(LICENSE.encode())
    head = struct.pack("=2I2Q", type, len(code) // 8, _address(text), _address(terms))
    try:
        return _bpf(PROG_LOAD, head, "load")[0]
    except KernelRefusal:
        log = ctypes.create_string_buffer(_LOG_SIZE)
        loud = head + struct.pack("=2IQ", 1, _LOG_SIZE, _address(log))
        return _bpf(PROG_LOAD, loud, "load", log)[0]


@contextmanager
def _map(map_: Map) -> Iterator[int]:
    flags = map_.flags | (_READ_ONLY_FLAG if map_.is_read_only else 0)
    attr = struct.pack("=5I", map_.type, map_.key_size, map_.value_size, map_.max_entries, flags)
    with _closing(_bpf(MAP_CREATE, attr, f"create map {map_.name}")[0]) as descriptor:
        if map_.initial is not None:
            key = ctypes.create_string_buffer(4)
            value = ctypes.create_string_buffer(map_.initial, len(map_.initial))
            element = struct.pack("=2I3Q", descriptor, 0, _address(key), _address(value), 0)
            _bpf(MAP_UPDATE, element, "fill a map")
        if map_.is_read_only:
            _bpf(MAP_FREEZE, struct.pack("=I", descriptor), "freeze a map")
        yield descriptor


def _bpf(
    command: int, attr: bytes, what: str, log: ctypes.Array[ctypes.c_char] | None = None
) -> tuple[int, bytes]:
    """The result of bpf(2), and the attributes as the kernel left them."""
    union = ctypes.create_string_buffer(attr, _ATTR_SIZE)
    call = ctypes.CDLL(None, use_errno=True).syscall
    while True:
        result: int = call(SYSCALL[platform.machine()], command, union, _ATTR_SIZE)
        if result >= 0:
            return result, union.raw
        if ctypes.get_errno() not in (errno.EINTR, errno.EAGAIN):
            said = log.value.decode(errors="replace") if log is not None else ""
            raise KernelRefusal(ctypes.get_errno(), what, said)


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)
