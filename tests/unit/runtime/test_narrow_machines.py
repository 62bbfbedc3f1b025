"""Machines with 32-bit addresses: where arguments travel, 64-bit division, arenas that come and go in the low 4 GiB."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from random import Random

import pytest

import bpfc
from backends.registry import target_named
from runtime.arena import NARROW
from runtime.emulate.arguments import Places, places
from runtime.linker import link
from runtime.platform import Platform
from tests.engines import require_emulator
from tests.native import compile_text

WORDS = ctypes.c_uint64, ctypes.c_uint64
M64 = (1 << 64) - 1


@pytest.fixture(params=["i386", "armv7"])
def machine(request: pytest.FixtureRequest) -> Iterator[Platform]:
    require_emulator(request.param)
    with bpfc.emulate(request.param) as machine:
        yield machine


def test_arguments_of_i386_are_on_the_stack() -> None:
    assert places(target_named("i386"), (4, 8, 4)) == Places(((-1,), (-5, -9), (-13,)), 16)


def test_arguments_of_armv7_are_in_four_registers_and_64_bits_in_even_pairs() -> None:
    target = target_named("armv7")
    assert places(target, (4, 8)) == Places(((0,), (2, 3)), 0)
    assert places(target, (8, 4, 4, 4)) == Places(((0, 1), (2,), (3,), (-1,)), 4)
    assert places(target, (4, 4, 4, 8)) == Places(((0,), (1,), (2,), (-1, -5)), 8)
    # What follows on the stack is aligned, and no register is used once one argument is there.
    assert places(target, (8, 8, 4, 8, 4)) == Places(((0, 1), (2, 3), (-1,), (-9, -13), (-17,)), 20)


def test_arguments_of_64_bit_machines_take_a_register_each() -> None:
    assert places(target_named("s390x"), (8, 4, 8, 8, 8, 8)) == Places(
        ((0,), (1,), (2,), (3,), (4,), (-1,)), 8
    )


DIVIDE = """
define i64 @divide(i64 %x, i64 %y) {{
  %q = {0}div i64 %x, %y
  ret i64 %q
}}
define i64 @rest(i64 %x, i64 %y) {{
  %r = {0}rem i64 %x, %y
  ret i64 %r
}}
"""


@pytest.mark.parametrize("sign", ["u", "s"])
def test_64_bit_division_is_there(machine: Platform, sign: str) -> None:
    random = Random(sign)
    edges = [1, 2, 3, 7, 10, 0xFFFF_FFFF, 1 << 32, (1 << 32) + 1, (1 << 63) - 1, 1 << 63, M64 - 1, M64]
    pairs = [(x, y) for x in (0, *edges) for y in edges]
    pairs += [(random.getrandbits(64), random.getrandbits(random.randint(1, 64)) or 1) for _ in range(200)]
    with link(compile_text(DIVIDE.format(sign), machine.target), machine.external, machine.pool) as image:
        divide = machine.function(image.address_of("divide"), *WORDS)
        rest = machine.function(image.address_of("rest"), *WORDS)
        for x, y in pairs:
            a, b = (x, y) if sign == "u" else (as_signed(x), as_signed(y))
            if (a, b) == (-(1 << 63), -1):
                continue  # which no machine divides; programs get what RFC 9669 says before it comes to that
            quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
            assert (divide(x, y), rest(x, y)) == (quotient & M64, a - quotient * b & M64), (x, y)


def as_signed(value: int) -> int:
    return value - (value >> 63 << 64)


def test_arenas_are_low_and_can_be_had_again() -> None:
    require_emulator("i386")
    for _ in range(20):  # more than there are places
        with bpfc.emulate("i386") as machine, bpfc.assemble("r0 = 7\nexit").start(target=machine) as runtime:
            assert machine.pool.address + NARROW.size <= 1 << 32
            assert runtime["main"].run(b"").ret == 7


MANY = """
from contextlib import ExitStack
import bpfc
opened = 0
with ExitStack() as stack:
    try:
        for opened in range(16):
            stack.enter_context(bpfc.emulate("armv7"))
    except bpfc.UnsupportedError as error:
        print(opened, error.diagnostics[0].code)
"""


def test_too_many_machines_at_once_are_a_diagnostic() -> None:
    """In a process of its own: how many there is room for hangs on who else is there."""
    require_emulator("armv7")
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    opened, code = done.stdout.split()
    assert code == "out-of-code-memory"
    assert int(opened) >= 3


def test_pointers_in_memory_have_64_bits(machine: Platform) -> None:
    """The upper half of a slot with a pointer in it is 0, whatever was there."""
    text = """
        r2 = -1 ll
        *(u64 *)(r10 - 8) = r2
        *(u64 *)(r10 - 8) = r10
        r3 = r10
        r0 = *(u64 *)(r10 - 8)
        r0 -= r3
        r4 = *(u32 *)(r10 - 4)
        r0 += r4
        exit
    """
    with bpfc.assemble(text).start(target=machine) as runtime:
        assert runtime["main"].run(b"").ret == 0
