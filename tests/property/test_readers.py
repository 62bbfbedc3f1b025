"""Whatever the bytes, in whatever format, reading them gives what it says or Diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

import bpfc
from bpfc.elf.file import read_elf
from bpfc.testing import readers
from bpfc.testing.readers import Format, format_of
from ir.asm import disassemble_program
from ir.encoding import encode
from ir.lift import lift
from ir.text import format_module
from runtime.maps.pin import pin

OBJECTS = Path(__file__).parents[1] / "objects"
OBJECT = OBJECTS / "tables.o"


def types() -> bytes:
    section = read_elf(OBJECT.read_bytes(), OBJECT.name).find(".BTF")
    assert section is not None
    return bytes(section.data)


def code() -> bytes:
    return encode(
        bpfc.assemble("r1 += r2\nif r1 == 0 goto end\nr1 = 5 ll\ncall f\nend: exit\nf: exit")
        .program("main")
        .insns
    )


def assembly() -> bytes:
    return disassemble_program(next(iter(bpfc.load(OBJECT).programs.values()))).encode()


def ssa() -> bytes:
    loaded = bpfc.load(OBJECT)
    return format_module(lift(next(iter(loaded.programs.values())), loaded.maps), maps=True).encode()


def native() -> bytes:
    with bpfc.assemble("r0 = 1\nexit").start() as runtime:
        return runtime["main"].compiled.code.to_bytes()


def pinned() -> bytes:
    with TemporaryDirectory() as folder, bpfc.load(OBJECTS / "xdp_stats.o").start() as runtime:
        path = Path(folder) / "map"
        pin(next(live for live in runtime.world.live.values() if live.declared.initial is None), path)
        return path.read_bytes()


SAMPLES: dict[str, tuple[Format, Callable[[], bytes]]] = {
    "a.o": (readers.OBJECT, OBJECT.read_bytes),
    "a.btf": (readers.TYPES, types),
    "a.bin": (readers.CODE, code),
    "a.s": (readers.ASSEMBLY, assembly),
    "a.ir": (readers.IR, ssa),
    "a.pcap": (readers.PACKETS, (OBJECTS / "sample.pcap").read_bytes),
    "cached": (readers.NATIVE, native),
    "pinned": (readers.PIN, pinned),
}


@cache
def sample(name: str) -> bytes:
    """The well-formed bytes of a format."""
    return SAMPLES[name][1]()


def test_each_is_known_and_read_as_it_stands() -> None:
    for name, (format, _) in SAMPLES.items():
        assert format_of(Path(name), sample(name)) is format
        assert format.outcome(sample(name), name) == format.name


@given(st.sampled_from(sorted(SAMPLES)), st.integers(0, 2**64))
def test_what_is_malformed_is_read_or_refused(name: str, seed: int) -> None:
    format = SAMPLES[name][0]
    assert format.outcome(format.mutate(sample(name), seed), name)
