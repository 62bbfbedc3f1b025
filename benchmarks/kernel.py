"""A peer: the running Linux kernel's JIT, through BPF_PROG_TEST_RUN with a repeat count. Nothing is ever attached.

A call of bpf(2) costs the kernel half a millisecond (it patches its XDP dispatcher) and each run some nanoseconds
before the program's first instruction; an empty program tells how many, and they are subtracted.

Safe because each buffer whose address is given to bpf(2) lives in the caller's frame.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final, final

import bpfc
from benchmarks.measure import Contestant
from benchmarks.micros import EMPTY, Micro
from benchmarks.native import UnavailableError
from benchmarks.speed import PROGRAM
from bpfc.testing.kernel import bound, filled_map, load_program
from ir.object import Program
from runtime.bpf_syscall import Command, KernelError, bpf
from runtime.kernel import bpf_refusal

MOST_RUNS: Final = 1 << 18
CALLS_BY_BATCH: Final = 10  # a batch takes as long as that many calls, so that what they cost matters little


@final
class KernelPeer:
    """Loads the micro programs into the kernel. Raises UnavailableError where that is not possible."""

    name: Final = "kernel"
    floor_ns: Final = 10.0

    def __init__(self) -> None:
        refusal = bpf_refusal()
        if refusal:
            raise UnavailableError(f"bpf(2): {refusal}")
        self._stack = ExitStack()
        empty = self._load(EMPTY)
        self._call_ns = min(run_ns(empty, EMPTY.packet, 2) for _ in range(20))
        self._run_ns = min(
            (run_ns(empty, EMPTY.packet, MOST_RUNS) - self._call_ns) / MOST_RUNS for _ in range(3)
        )

    def contestant(self, micro: Micro, batch_ns: int) -> Contestant:
        """Runs the program over and over on its packet."""
        descriptor = self._load(micro)
        runs = 16
        while runs < MOST_RUNS:
            if (
                min(run_ns(descriptor, micro.packet, runs) for _ in range(3))
                >= CALLS_BY_BATCH * self._call_ns
            ):
                break
            runs *= 2

        def contestant() -> float:
            took = (run_ns(descriptor, micro.packet, runs) - self._call_ns) / runs
            return max(0.01, took - self._run_ns)

        return contestant

    def _load(self, micro: Micro) -> int:
        loaded = bpfc.load(micro.object)
        return load_into(self._stack, loaded.program(PROGRAM), create_maps(self._stack, loaded))


def load_into(stack: ExitStack, program: Program, maps: Mapping[str, int]) -> int:
    """The descriptor of a program, until `stack` ends. Raises UnavailableError with the verifier's reason."""
    for reference in program.references.values():
        if reference.name not in maps:
            raise UnavailableError(f"it refers to {reference.kind.value} {reference.name}")
    try:
        return stack.enter_context(load_program(bound(program, maps), program.type))
    except KernelError as error:
        raise UnavailableError(f"the kernel refuses it: {error.reason}") from None


def create_maps(stack: ExitStack, loaded: bpfc.Loaded) -> dict[str, int]:
    """The descriptors of an object's maps, until `stack` ends. Raises UnavailableError."""
    try:
        return {name: stack.enter_context(filled_map(map_)) for name, map_ in loaded.maps.items()}
    except KernelError as error:
        raise UnavailableError(f"the kernel makes no maps: {error.reason}") from None


def run_ns(descriptor: int, packet: bytes, runs: int) -> int:
    """CPU time of this thread in nanoseconds for so many runs."""
    data = ctypes.create_string_buffer(packet, len(packet))
    attributes = struct.pack("=4I2Q2I", descriptor, 0, len(packet), 0, ctypes.addressof(data), 0, runs, 0)
    before = time.thread_time_ns()
    bpf(Command.PROG_TEST_RUN, attributes, "test run")
    return time.thread_time_ns() - before
