"""Functions larger than what a machine's branches and jumps reach, with a static branch over all of it.

`BPFC_FAR=all` makes them larger than a mebibyte on the machines whose jumps or branches reach that: a minute of LLVM's time each.
"""

from __future__ import annotations

import os
import random
from typing import Final

import pytest

import bpfc
from backends.registry import target_named
from bpfc.options import Options
from tests.engines import require_emulator

# What conditional branches reach: ppc64le's bc and aarch64's tbz 32 KiB, s390x's brc 64 KiB, riscv64's 4 KiB.
REACH: Final = {"aarch64": 1 << 15, "ppc64le": 1 << 15, "riscv64": 1 << 12, "s390x": 1 << 16}
MEBIBYTE: Final = 1 << 20  # what riscv64's jumps reach, and aarch64's other branches
MASK: Final = (1 << 64) - 1
BYTES: Final = 24  # of a round, at least
MANY: Final = 30_000
PROGRAM: Final = """
    r6 = *(u64 *)(r1 + 0)
    r0 = r6
    nop_or_gotol far
    if r6 != 5 goto +1
    gotol far
    {before}
    if r6 & 1 goto far
    {after}
    r1 = r0
    call sub
far:
    r0 += 3
    exit
sub:
    r0 = r1
    {before}
    exit
"""
KEY: Final = {"key": [2]}

Round = tuple[int, int, int]


def rounds(count: int, seed: int) -> list[Round]:
    source = random.Random(seed)
    half = 1 << 31
    return [
        (source.randrange(half) | 1, source.randrange(half), source.randrange(half)) for _ in range(count)
    ]


def text_of(steps: list[Round]) -> str:
    return "\n".join(f"r0 *= {a}\nr0 ^= {b}\nr0 += {c}" for a, b, c in steps)


def result_of(value: int, before: list[Round], after: list[Round]) -> int:
    """What the program gives with its static branch off."""
    result = value
    if value == 5:
        return result + 3
    for steps in (before,) if value & 1 else (before, after, before):
        for a, b, c in steps:
            result = ((result * a ^ b) + c) & MASK
    return result + 3 & MASK


@pytest.mark.slow
@pytest.mark.parametrize("target", REACH)
def test_branches_and_static_branches_reach_over_a_large_function(target: str) -> None:
    require_emulator(target)
    is_all = os.environ.get("BPFC_FAR") == "all" and target in ("aarch64", "riscv64")
    count, reach = (MANY, MEBIBYTE) if is_all else (REACH[target] // BYTES, REACH[target])
    before, after = rounds(count, 1), rounds(count // 10, 2)
    order = target_named(target).byte_order
    program = PROGRAM.format(before=text_of(before), after=text_of(after))
    loaded = bpfc.assemble(program, keys=KEY, big_endian=order == "big")
    with loaded.start(Options(level="O1", cache=False), target=target) as runtime:
        main, key = runtime["main"], runtime.static_keys["key"]
        (point,) = main.branches.points(2)
        assert point.site.target_offset - point.site.offset > reach
        inputs = {value: value.to_bytes(8, order) for value in (4, 5, 7, MASK)}
        for is_on in (False, True, False):
            key.switch(is_on)
            for value, data in inputs.items():
                wanted = value + 3 & MASK if is_on else result_of(value, before, after)
                assert main.run(data).ret == wanted, (value, is_on)
