"""The running Linux kernel as an oracle: load a program, run it on data, compare. Nothing is ever attached.

Safe because each buffer whose address is given to bpf(2) lives in the caller's frame during the call.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final, NamedTuple, final

from bpfc.testing.case import LICENSE, Case
from ir.encoding import encode
from ir.isa import Insn, Wide
from ir.kinds import MapFlag, ProgramType
from ir.object import Map, Program, ReferenceKind
from runtime.bpf_syscall import Command, KernelError, bpf

ETHERNET_MINIMUM: Final = bytes(64)
_LOG_SIZE: Final = 1 << 20


@final
class KernelRun(NamedTuple):
    """What a program returned (32 bits) and the packet as it left it."""

    ret: int
    data: bytes


@contextmanager
def loaded(case: Case) -> Iterator[int]:
    """The descriptor of the case's program, its maps beside it; closed at the end. Raises KernelError."""
    program = case.program
    assert program is not None, "a case of instructions"
    with ExitStack() as stack:
        maps = {name: stack.enter_context(filled_map(map_)) for name, map_ in case.maps.items()}
        yield stack.enter_context(load_program(bound(program, maps), program.type, license=LICENSE))


@contextmanager
def load_types(btf: bytes) -> Iterator[int]:
    """The descriptor of BTF, closed at the end."""
    text = ctypes.create_string_buffer(btf, len(btf))
    attributes = struct.pack("=2Q2I", _address(text), 0, len(btf), 0)
    with _closing(bpf(Command.BTF_LOAD, attributes, "load types")[0]) as types:
        yield types


@contextmanager
def create_map(map: Map, types: int = 0) -> Iterator[int]:
    """The descriptor of a new map, empty, closed at the end; `types` is that of the BTF of its key and value."""
    btf = (types, map.key_btf_id, map.value_btf_id) if types else (0, 0, 0)
    numbers = (map.type, map.key_size, map.value_size, map.max_entries, map.flags)
    attributes = struct.pack("=5I8x16x4x3I4xQ", *numbers, *btf, map.extra)
    with _closing(bpf(Command.MAP_CREATE, attributes, f"create map {map.name}")[0]) as descriptor:
        yield descriptor


@contextmanager
def filled_map(map: Map) -> Iterator[int]:
    """As `create_map`, with its initial value; constant if it is read-only."""
    flags = map.flags | (MapFlag.RDONLY_PROG if map.is_read_only else 0)
    with create_map(replace(map, flags=flags)) as descriptor:
        if map.initial is not None:
            write_map(descriptor, bytes(4), map.initial)
        if map.is_read_only:
            bpf(Command.MAP_FREEZE, struct.pack("=I", descriptor), "freeze a map")
        yield descriptor


def bound(program: Program, maps: Mapping[str, int]) -> list[Insn]:
    """The instructions with the descriptors of maps in them."""
    insns = list(program.insns)
    for number, slot in enumerate(program.starts[:-1]):
        reference = program.references.get(slot)
        if reference is None:
            continue
        imm = maps[reference.name]
        if reference.kind is ReferenceKind.MAP:
            insns[number] = insns[number]._replace(src=Wide.MAP_FD.value, imm=imm)
        elif reference.kind is ReferenceKind.MAP_VALUE:
            imm |= reference.offset << 32
            insns[number] = insns[number]._replace(src=Wide.MAP_VALUE.value, imm=imm)
    return insns


@contextmanager
def load_program(
    insns: Iterable[Insn],
    type: ProgramType = ProgramType.SOCKET_FILTER,
    flags: int = 0,
    attach_type: int = 0,
    license: str = "GPL",
    attach_btf_id: int = 0,
    explains: bool = True,
) -> Iterator[int]:
    """The descriptor of an accepted program, closed at the end; raises KernelError, with the log if it `explains`.

    `attach_btf_id`: the kernel's type that a program of tracing is attached to.
    """
    code = encode(insns, sys.byteorder == "big")
    text, terms = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(license.encode())
    head = struct.pack("=2I2Q", type, len(code) // 8, _address(text), _address(terms))
    rest = struct.pack("=2I16x2I36xI", 0, flags, 0, attach_type, attach_btf_id)
    try:
        descriptor, _ = bpf(Command.PROG_LOAD, head + struct.pack("=2IQ", 0, 0, 0) + rest, "load program")
    except KernelError:
        if not explains:
            raise
        log = ctypes.create_string_buffer(_LOG_SIZE)
        loud = head + struct.pack("=2IQ", 1, _LOG_SIZE, _address(log)) + rest
        descriptor, _ = bpf(Command.PROG_LOAD, loud, "load program", log)
    with _closing(descriptor):
        yield descriptor


def run_program(program: int, data: bytes = ETHERNET_MINIMUM, context: bytes = b"") -> KernelRun:
    """Run a loaded program once on a packet."""
    given, taken = ctypes.create_string_buffer(data, len(data)), ctypes.create_string_buffer(len(data) + 512)
    start = ctypes.create_string_buffer(context, len(context) or 1)
    attributes = struct.pack(
        "=4I2Q2I", program, 0, len(data), len(taken), _address(given), _address(taken), 1, 0
    )
    attributes += struct.pack("=2I2Q", len(context), 0, _address(start) if context else 0, 0)
    _, after = bpf(Command.PROG_TEST_RUN, attributes, "test run")
    _, ret, _, size = struct.unpack_from("=4I", after)
    return KernelRun(ret, taken.raw[:size])


def write_map(map: int, key: bytes, value: bytes) -> None:
    """Set the value of a key."""
    _element(Command.MAP_UPDATE_ELEM, map, key, ctypes.create_string_buffer(value, len(value)))


def read_map(map: int, key: bytes, value_size: int) -> bytes:
    """The value of a key, of `value_size` bytes."""
    value = ctypes.create_string_buffer(value_size)
    _element(Command.MAP_LOOKUP_ELEM, map, key, value)
    return value.raw


def _element(command: Command, map: int, key: bytes, value: ctypes.Array[ctypes.c_char]) -> None:
    name = ctypes.create_string_buffer(key, len(key))
    bpf(command, struct.pack("=2I3Q", map, 0, _address(name), _address(value), 0), "map element")


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)
