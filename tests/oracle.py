"""The running Linux kernel as an oracle: load a program, run it on data, compare. Nothing is ever attached.

bpf(2) takes a command and a `union bpf_attr`; each command's part of it is packed here as
include/uapi/linux/bpf.h lays it out. Pointers in it are addresses of ctypes buffers, which the caller's frame
keeps alive during the call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ir.encoding import encode
from ir.isa import Insn
from ir.kinds import MapType, ProgramType

SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, PROG_LOAD, PROG_TEST_RUN, BTF_LOAD = 0, 1, 2, 5, 10, 18
LOG_SIZE = 1 << 20
ATTR_SIZE = 144
ETHERNET_MINIMUM = bytes(64)


class KernelError(OSError):
    """What the kernel refused, with the verifier's log in `log`."""

    def __init__(self, number: int, what: str, log: str = "") -> None:
        super().__init__(number, f"{what}: {errno.errorcode.get(number, number)}\n{log}")
        self.log = log


@dataclass(frozen=True, slots=True)
class TestRun:
    """The result of a test run: what the program returned (32 bits) and the packet as it left it."""

    __test__ = False

    ret: int
    data: bytes


@contextmanager
def load_types(btf: bytes) -> Iterator[int]:
    """The descriptor of BTF, closed at the end."""
    text = ctypes.create_string_buffer(btf, len(btf))
    with _closing(
        _bpf(BTF_LOAD, struct.pack("=2Q2I", _address(text), 0, len(btf), 0), "load types")[0]
    ) as types:
        yield types


@contextmanager
def create_map(
    type: MapType,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    types: tuple[int, int, int] = (0, 0, 0),
) -> Iterator[int]:
    """The descriptor of a new map, closed at the end. `types`: a descriptor of BTF, the ids of key and value in it."""
    attr = struct.pack("=7I16x4I", type, key_size, value_size, max_entries, flags, 0, 0, 0, *types)
    with _closing(_bpf(MAP_CREATE, attr, f"create {type.name} map")[0]) as descriptor:
        yield descriptor


@contextmanager
def load_program(
    insns: Iterable[Insn],
    type: ProgramType = ProgramType.SOCKET_FILTER,
    flags: int = 0,
    attach_type: int = 0,
    license: str = "GPL",
) -> Iterator[int]:
    """The descriptor of an accepted program, closed at the end; raises KernelError with the log."""
    code = encode(insns, sys.byteorder == "big")
    text, terms = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(license.encode())
    log = ctypes.create_string_buffer(LOG_SIZE)
    head = struct.pack("=2I2Q2I", type, len(code) // 8, _address(text), _address(terms), 1, LOG_SIZE)
    try:
        rest = struct.pack("=2I16x2I", 0, flags, 0, attach_type)
        quiet = head[:24] + struct.pack("=2IQ", 0, 0, 0) + rest
        descriptor, _ = _bpf(PROG_LOAD, quiet, "load program")
    except KernelError:
        loud = head + struct.pack("=Q", _address(log)) + rest
        descriptor, _ = _bpf(PROG_LOAD, loud, "load program", log)
    with _closing(descriptor):
        yield descriptor


@contextmanager
def only_capabilities(*numbers: int) -> Iterator[None]:
    """This thread without the capabilities of others (capset(2), version 3: effective, permitted, inheritable, twice)."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    before = ctypes.create_string_buffer(24)
    wanted = sum(1 << number for number in numbers)

    def call(what: str, data: ctypes.Array[ctypes.c_char]) -> None:
        if getattr(libc, what)(head, data):
            raise OSError(ctypes.get_errno(), what)

    call("capget", before)
    low, permitted, kept, high, further, rest = struct.unpack("=6I", before.raw[:24])
    less = struct.pack("=6I", low & wanted, permitted, kept, high & (wanted >> 32), further, rest)
    call("capset", ctypes.create_string_buffer(less, 24))
    try:
        yield
    finally:
        call("capset", before)


def run_program(program: int, data: bytes = ETHERNET_MINIMUM, context: bytes = b"") -> TestRun:
    """Run a loaded program once on a packet."""
    given, taken = ctypes.create_string_buffer(data, len(data)), ctypes.create_string_buffer(len(data) + 512)
    start = ctypes.create_string_buffer(context, len(context) or 1)
    attr = struct.pack("=4I2Q2I", program, 0, len(data), len(taken), _address(given), _address(taken), 1, 0)
    attr += struct.pack("=2I2Q", len(context), 0, _address(start) if context else 0, 0)
    _, after = _bpf(PROG_TEST_RUN, attr, "test run")
    _, ret, _, size = struct.unpack_from("=4I", after)
    return TestRun(ret, taken.raw[:size])


def write_map(map: int, key: bytes, value: bytes) -> None:
    """Set the value of a key."""
    _element(MAP_UPDATE, map, key, ctypes.create_string_buffer(value, len(value)))


def read_map(map: int, key: bytes, value_size: int) -> bytes:
    """The value of a key, of `value_size` bytes."""
    value = ctypes.create_string_buffer(value_size)
    _element(MAP_LOOKUP, map, key, value)
    return value.raw


def _element(command: int, map: int, key: bytes, value: ctypes.Array[ctypes.c_char]) -> None:
    name = ctypes.create_string_buffer(key, len(key))
    _bpf(command, struct.pack("=2I3Q", map, 0, _address(name), _address(value), 0), "map element")


def _bpf(
    command: int, attr: bytes, what: str, log: ctypes.Array[ctypes.c_char] | None = None
) -> tuple[int, bytes]:
    """The result of bpf(2), and the attributes as the kernel left them."""
    union = ctypes.create_string_buffer(attr, ATTR_SIZE)
    result = ctypes.CDLL(None, use_errno=True).syscall(SYSCALL[platform.machine()], command, union, ATTR_SIZE)
    if result < 0:
        raise KernelError(ctypes.get_errno(), what, log.value.decode() if log is not None else "")
    return result, union.raw


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)
