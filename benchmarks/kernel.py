"""A peer: the running Linux kernel's JIT, through BPF_PROG_TEST_RUN with a repeat count. Nothing is ever attached.

A call of bpf(2) costs the kernel half a millisecond (it patches its XDP dispatcher) and each run some nanoseconds
before the program's first instruction; an empty program tells how many, and they are subtracted.

Safe because each buffer whose address is given to bpf(2) lives in the caller's frame.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import time
from collections.abc import Mapping
from typing import Final, final

import bpfc
from benchmarks.measure import Contestant
from benchmarks.micros import EMPTY, Micro
from benchmarks.native import UnavailableError
from benchmarks.speed import PROGRAM
from ir.encoding import encode
from ir.isa import Insn
from ir.object import Map, Program, ReferenceKind

SYSCALL: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
MAP_CREATE: Final = 0
PROG_LOAD: Final = 5
PROG_TEST_RUN: Final = 10
PSEUDO_MAP: Final = 1  # source field of a wide load: the immediate is a map's descriptor
PSEUDO_VALUE: Final = 2  # ... or in its high half an offset in the map's value
LOG_SIZE: Final = 1 << 20
MOST_RUNS: Final = 1 << 18
CALLS_BY_BATCH: Final = 10  # a batch takes as long as that many calls, so that what they cost matters little


@final
class KernelPeer:
    """Loads the micro programs into the kernel. Raises UnavailableError where that is not possible."""

    name: Final = "kernel"
    floor_ns: Final = 10.0

    def __init__(self) -> None:
        if platform.machine() not in SYSCALL:
            raise UnavailableError(f"bpf(2) has no number here for {platform.machine()}")
        empty = _load(bpfc.load(EMPTY.object))
        self._call_ns = min(_run(empty, EMPTY.packet, 2) for _ in range(20))
        self._run_ns = min(
            (_run(empty, EMPTY.packet, MOST_RUNS) - self._call_ns) / MOST_RUNS for _ in range(3)
        )

    def contestant(self, micro: Micro, batch_ns: int) -> Contestant:
        """Runs the program over and over on its packet."""
        descriptor = _load(bpfc.load(micro.object))
        runs = 16
        while runs < MOST_RUNS:
            if min(_run(descriptor, micro.packet, runs) for _ in range(3)) >= CALLS_BY_BATCH * self._call_ns:
                break
            runs *= 2

        def contestant() -> float:
            took = (_run(descriptor, micro.packet, runs) - self._call_ns) / runs
            return max(0.01, took - self._run_ns)

        return contestant


def _load(loaded: bpfc.Loaded) -> int:
    program = loaded.program(PROGRAM)
    descriptors = {name: _create_map(map_) for name, map_ in loaded.maps.items()}
    code = encode(_resolve(program, descriptors), program.big_endian)
    text, log = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(LOG_SIZE)
    license = ctypes.create_string_buffer(b"GPL")
    count = len(code) // 8
    head = struct.pack("=2I2Q", program.type, count, ctypes.addressof(text), ctypes.addressof(license))
    try:
        return _bpf(PROG_LOAD, head)[0]
    except OSError:
        pass
    try:
        return _bpf(PROG_LOAD, head + struct.pack("=2IQ", 1, LOG_SIZE, ctypes.addressof(log)))[0]
    except OSError as error:
        lines = [line for line in log.value.decode(errors="replace").splitlines() if line]
        told = [line for line in lines if not line.startswith(("processed", "verification time"))]
        said = told[-1] if told else os.strerror(error.errno or 0)
        raise UnavailableError(f"the kernel refuses it: {said}") from None


def _resolve(program: Program, descriptors: Mapping[str, int]) -> list[Insn]:
    """The instructions with map names replaced by descriptors."""
    insns = list(program.insns)
    for number, slot in enumerate(program.starts[:-1]):
        reference = program.references.get(slot)
        if reference is None:
            continue
        descriptor = descriptors[reference.name]
        if reference.kind is ReferenceKind.MAP:
            insns[number] = insns[number]._replace(src=PSEUDO_MAP, imm=descriptor)
        elif reference.kind is ReferenceKind.MAP_VALUE:
            imm = descriptor | reference.offset << 32
            insns[number] = insns[number]._replace(src=PSEUDO_VALUE, imm=imm)
        else:
            raise UnavailableError(f"it refers to {reference.kind.value} {reference.name}")
    return insns


def _create_map(map_: Map) -> int:
    attributes = (map_.type, map_.key_size, map_.value_size, map_.max_entries, map_.flags)
    try:
        return _bpf(MAP_CREATE, struct.pack("=5I", *attributes))[0]
    except OSError as error:
        raise UnavailableError(f"the kernel makes no map {map_.name}: {error.strerror}") from None


def _run(descriptor: int, packet: bytes, runs: int) -> int:
    """CPU time of this thread in nanoseconds."""
    data = ctypes.create_string_buffer(packet, len(packet))
    attributes = struct.pack("=4I2Q2I", descriptor, 0, len(packet), 0, ctypes.addressof(data), 0, runs, 0)
    before = time.thread_time_ns()
    _bpf(PROG_TEST_RUN, attributes)
    return time.thread_time_ns() - before


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    union = ctypes.create_string_buffer(attributes, 144)
    libc = ctypes.CDLL(None, use_errno=True)
    while True:
        result: int = libc.syscall(SYSCALL[platform.machine()], command, union, 144)
        if result >= 0:
            return result, union.raw
        number = ctypes.get_errno()
        if number not in (errno.EINTR, errno.EAGAIN):
            raise OSError(number, os.strerror(number))
