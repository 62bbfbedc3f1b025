"""Reading memory that may not be there, and printing from it."""

from __future__ import annotations

import ctypes
import mmap

import pytest

import bpfc
from ir.kinds import ProgramType
from runtime.probe import probe, probe_string

NOWHERE = (0, 1, 0x1234, 0xFFFF_8000_0000_0000, (1 << 64) - 1)


@pytest.mark.parametrize("address", NOWHERE)
def test_nothing_is_read_where_nothing_is(address: int) -> None:
    assert probe(address, 8) is None
    assert probe_string(address, 8) is None


def test_a_string_ends_at_its_nul_at_its_limit_and_at_the_last_page() -> None:
    buffer = ctypes.create_string_buffer(b"some text")
    address = ctypes.addressof(buffer)
    assert probe(address, 4) == b"some"
    assert probe_string(address, 100) == b"some text"
    assert probe_string(address, 6) == b"some t"
    with mmap.mmap(-1, 3 * mmap.PAGESIZE) as memory:
        memory[mmap.PAGESIZE - 3 : mmap.PAGESIZE + 2] = b"a\0b\0c"
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + mmap.PAGESIZE
        assert probe_string(start - 1, 100) == b"b"


# "%s" and its NUL in r1, an address in r3
PRINT = """
    *(u32 *)(r10 - 8) = {format}
    r1 = r10
    r1 += -8
    r2 = 4
    r3 = {address} ll
    call 6
    exit
"""


@pytest.mark.parametrize("address", NOWHERE)
@pytest.mark.parametrize("format", ["%s", "%pI4"])
def test_a_program_prints_what_is_nowhere_without_a_fault(format: str, address: int) -> None:
    number = int.from_bytes(format.encode()[:3].ljust(4, b"\0"), "little")
    text = PRINT.format(format=number, address=address)
    with bpfc.assemble(text, type=ProgramType.KPROBE).start() as runtime:
        (line,) = runtime["main"].run().printk
    assert line in ("", "(null)", f"{address:016x}")


def test_a_width_is_no_way_to_all_memory() -> None:
    format = int.from_bytes(b"%9999999"[:8], "little")
    text = f"""
        r1 = {format} ll
        *(u64 *)(r10 - 16) = r1
        *(u64 *)(r10 - 8) = {int.from_bytes(b"99d", "little")}
        r1 = r10
        r1 += -16
        r2 = 16
        r3 = 7
        call 6
        exit
    """
    with bpfc.assemble(text, type=ProgramType.KPROBE).start() as runtime:
        (line,) = runtime["main"].run().printk
    assert line == "7".rjust(1024)
