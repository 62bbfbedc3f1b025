"""What bpfc reads, and what comes of bytes that are nearly right: a reader and mutations for each format.

A reader tries everything that is read late, too, and gives one word for what it found: the format's, or the code of the
first Diagnostic. Anything else that it raises is a defect.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, final

from backends.native_code import MAGIC as CODE_MAGIC
from backends.native_code import from_bytes
from bpfc.elf.reader import read_object
from bpfc.loaded import from_insns
from bpfc.pcap import read_pcap
from bpfc.testing.mutation import BYTES, ELF, TEXT, WIDE_EDGES, WORDS, Mutation, mutate
from ir.asm import disassemble, read_assembly
from ir.btf import MAGIC as BTF_MAGIC
from ir.btf import read_btf
from ir.btf_c import dump_c
from ir.btf_check import check_btf
from ir.btf_dump import dump_raw
from ir.core_relocation import relocate
from ir.diagnostics import DiagnosticError
from ir.encoding import decode
from ir.kinds import ProgramType
from ir.lift import lift
from ir.parse import parse_module
from ir.text import format_module
from ir.validate import find_problems
from runtime.maps.pin import CHECKSUM_AT, read_pin
from runtime.maps.pin import MAGIC as PIN_MAGIC


@final
@dataclass(frozen=True, slots=True)
class Format:
    """`read` takes the bytes and a name for messages; `mutations` are drawn from, one to a few for each input."""

    name: str
    read: Callable[[bytes, str], None]
    mutations: tuple[Mutation, ...]

    def outcome(self, data: bytes, name: str) -> str:
        """What comes of some bytes."""
        try:
            self.read(data, name)
        except DiagnosticError as error:
            _show(error.diagnostics)
            return error.diagnostics[0].code
        return self.name

    def mutate(self, data: bytes, seed: int) -> bytes:
        """The malformed version of `data` that `seed` decides."""
        return mutate(data, seed, self.mutations)


def format_of(path: Path, data: bytes) -> Format:
    """The format that a file is in, by its name or its first bytes."""
    for suffixes, magic, format in _BY_FILE:
        if path.suffix in suffixes or (magic and data.startswith(magic)):
            return format
    return CODE


def _read_object(data: bytes, name: str) -> None:
    found = read_object(data, name)
    if found.btf is not None:
        _show(check_btf(found.btf))
    for program in found.programs.values():
        _show(map(program.location, program.starts))
        try:
            if found.btf is not None:
                relocate(program, found.btf, found.btf)
        except DiagnosticError as error:
            _show(error.diagnostics)


def _read_types(data: bytes, name: str) -> None:
    btf = read_btf(data)
    _show(check_btf(btf))
    for dump in (dump_raw, dump_c):
        try:
            _show(dump(btf))
        except DiagnosticError as error:
            _show(error.diagnostics)


def _read_code(data: bytes, name: str) -> None:
    try:
        _lift(data, big_endian=True)
    except DiagnosticError as error:
        _show(error.diagnostics)
    _lift(data, big_endian=False)


def _lift(data: bytes, big_endian: bool) -> None:
    insns = decode(data, big_endian)
    _show((disassemble(insns),))
    loaded = from_insns(insns, type=ProgramType.XDP, big_endian=big_endian)
    lift(loaded.program("main"), loaded.maps)


def _read_assembly(data: bytes, name: str) -> None:
    _show((disassemble(read_assembly(data.decode(errors="replace"), file=name).insns),))


def _read_ir(data: bytes, name: str) -> None:
    module = parse_module(data.decode(errors="replace"), name)
    if not any([*find_problems(function, module)] for function in module.functions.values()):
        _show((format_module(module, maps=True),))


def _read_packets(data: bytes, name: str) -> None:
    _with_file(data, lambda path: _show(packet.time_ns for packet in read_pcap(path)))


def _read_native(data: bytes, name: str) -> None:
    from_bytes(data)


def _read_pin(data: bytes, name: str) -> None:
    _with_file(data, lambda path: _show((read_pin(path),)))


def _with_file(data: bytes, read: Callable[[Path], None]) -> None:
    descriptor = os.memfd_create("malformed", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        read(Path(f"/proc/self/fd/{descriptor}"))
    finally:
        os.close(descriptor)


def _show(items: Iterable[object]) -> None:
    """Make the text of each, as whoever asks for it would."""
    for item in items:
        str(item).encode()


def _change_pin(data: bytearray, random: Random) -> None:
    """Write an edge value into a field of a pin file's header, and the checksum that makes it whole."""
    if len(data) >= CHECKSUM_AT + 4:
        place = random.randrange(8, CHECKSUM_AT, 4)
        data[place : place + 4] = struct.pack("=I", random.choice(WIDE_EDGES) & 0xFFFF_FFFF)
        data[CHECKSUM_AT : CHECKSUM_AT + 4] = struct.pack("=I", zlib.crc32(data[:CHECKSUM_AT]))


OBJECT: Final = Format("object", _read_object, ELF)
TYPES: Final = Format("types", _read_types, WORDS)
CODE: Final = Format("code", _read_code, WORDS)
ASSEMBLY: Final = Format("assembly", _read_assembly, TEXT)
IR: Final = Format("ir", _read_ir, TEXT)
PACKETS: Final = Format("packets", _read_packets, BYTES)
NATIVE: Final = Format("native", _read_native, BYTES)
PIN: Final = Format("pin", _read_pin, (*BYTES, *(_change_pin,) * 6))

_BY_FILE: Final[tuple[tuple[tuple[str, ...], bytes, Format], ...]] = (
    ((".o", ".elf"), b"\x7fELF", OBJECT),
    ((".btf",), BTF_MAGIC.to_bytes(2, "little"), TYPES),
    ((), BTF_MAGIC.to_bytes(2, "big"), TYPES),
    ((".pcap",), b"", PACKETS),
    ((".s", ".asm"), b"", ASSEMBLY),
    ((".ir",), b"", IR),
    ((), CODE_MAGIC, NATIVE),
    ((".pin",), PIN_MAGIC, PIN),
)
