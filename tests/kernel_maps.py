"""Maps and map programs in the running kernel, to compare ours with."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bpfc.testing.kernel import bound, create_map, load_program, run_program
from ir.map_layout import value_bytes
from ir.maps import is_per_cpu
from ir.object import Map, Object
from runtime.bpf_syscall import Command, KernelError, bpf


class KernelMap:
    """A map of the kernel with the manners of our own LiveMap; refusals are KernelErrors."""

    def __init__(self, descriptor: int, declared: Map) -> None:
        self.descriptor, self.declared = descriptor, declared
        self._room = value_bytes(declared) * (possible_cpus() if is_per_cpu(declared.type) else 1)

    def lookup(self, key: bytes) -> bytes | None:
        """The value, or None."""
        return self._read(Command.MAP_LOOKUP_ELEM, key)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Insert or change."""
        self._element(Command.MAP_UPDATE_ELEM, key, value, flags)

    def delete(self, key: bytes) -> None:
        """Take out."""
        self._element(Command.MAP_DELETE_ELEM, key, None, 0)

    def push(self, value: bytes, flags: int = 0) -> None:
        """Append to a queue or stack."""
        self._element(Command.MAP_UPDATE_ELEM, None, value, flags)

    def take(self, operation: str) -> bytes | None:
        """`pop` or `peek`."""
        return self._read(
            Command.MAP_LOOKUP_AND_DELETE_ELEM if operation == "pop" else Command.MAP_LOOKUP_ELEM, None
        )

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry."""
        key: bytes | None = None
        out = ctypes.create_string_buffer(self.declared.key_size)
        while True:
            before = ctypes.create_string_buffer(key, len(key)) if key is not None else None
            attr = struct.pack("=2I3Q", self.descriptor, 0, _address(before), _address(out), 0)
            try:
                bpf(Command.MAP_GET_NEXT_KEY, attr, "next key")
            except KernelError:
                return
            key = out.raw
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def _read(self, command: Command, key: bytes | None) -> bytes | None:
        out = ctypes.create_string_buffer(self._room)
        name = ctypes.create_string_buffer(key, len(key)) if key is not None else None
        try:
            attr = struct.pack("=2I3Q", self.descriptor, 0, _address(name), _address(out), 0)
            bpf(command, attr, "map element")
        except KernelError as error:
            if error.errno == 2:
                return None
            raise
        return out.raw

    def _element(self, command: Command, key: bytes | None, value: bytes | None, flags: int) -> None:
        name = ctypes.create_string_buffer(key, len(key)) if key is not None else None
        content = ctypes.create_string_buffer(value, len(value)) if value is not None else None
        attr = struct.pack("=2I3Q", self.descriptor, 0, _address(name), _address(content), flags)
        bpf(command, attr, "map element")


def possible_cpus() -> int:
    """How many values a key of a per-cpu map has."""
    return 1 + int(Path("/sys/devices/system/cpu/possible").read_text().strip().split("-")[-1])


@contextmanager
def kernel_map(declared: Map) -> Iterator[KernelMap]:
    """A new map in the kernel."""
    with create_map(declared) as descriptor:
        yield KernelMap(descriptor, declared)


class KernelObject:
    """An object's maps in the kernel, and its programs there once they are run."""

    def __init__(self, source: Object, stack: ExitStack) -> None:
        self._source, self._stack = source, stack
        self.maps = {
            name: stack.enter_context(kernel_map(declared))
            for name, declared in source.maps.items()
            if declared.initial is None
        }
        self._programs: dict[str, int] = {}

    def run(self, name: str, packet: bytes) -> tuple[int, bytes]:
        """(verdict, packet afterwards) of one run."""
        if name not in self._programs:
            self._programs[name] = self._stack.enter_context(self._load(name))
        result = run_program(self._programs[name], packet)
        return result.ret, result.data

    @contextmanager
    def _load(self, name: str) -> Iterator[int]:
        program = self._source.programs[name]
        descriptors = {name: map.descriptor for name, map in self.maps.items()}
        with load_program(bound(program, descriptors), program.type) as descriptor:
            yield descriptor


@contextmanager
def kernel_object(source: Object) -> Iterator[KernelObject]:
    """An object in the kernel. Meanwhile this thread keeps to one cpu, so that per-cpu values are those of one cpu."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        with ExitStack() as stack:
            yield KernelObject(source, stack)
    finally:
        os.sched_setaffinity(0, allowed)


def _address(buffer: ctypes.Array[ctypes.c_char] | None) -> int:
    return ctypes.addressof(buffer) if buffer is not None else 0
