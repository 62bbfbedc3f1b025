"""Calls between images near and far on every machine: FC-05, FC-06, FC-08 and FC-09 at each one's exact limits.

The distance is what the call's relocation holds: on x86-64 it counts from behind the call's displacement.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

import bpfc
from runtime.link_report import Reach
from runtime.linker import LinkedImage, link
from runtime.platform import Platform
from tests.engines import EMULATED, require_emulator
from tests.native import compile_text

FAR_AWAY = 0x2000_0000_0000
GIB = 1 << 30
KINDS = [ctypes.c_uint64] * 3
CALLER = """
declare i64 @callee(i64)
define i64 @caller(i64 %a, i64 %b, i64 %c) {
  %y = call i64 @callee(i64 %a)
  %z = call i64 @callee(i64 %b)
  %1 = mul i64 %y, 100
  %2 = add i64 %1, %z
  %3 = mul i64 %2, 10
  %4 = add i64 %3, %c
  ret i64 %4
}
"""
CALLEE = "define i64 @callee(i64 %x) {\n  %y = mul i64 %x, 10\n  ret i64 %y\n}"
# The first distance in reach, the first out of it, and what distances are multiples of; none on ppc64le, where calls of
# other images always go through a veneer.
LIMITS = {
    "x86_64": (-(2**31), 2**31, 1),
    "aarch64": (-(2**27), 2**27, 4),
    "riscv64": (-(2**31) - 2**11, 2**31 - 2**11, 2),
    "s390x": (-(2**32), 2**32, 2),
    "armv7": (-(2**25), 2**25, 4),
}
FURTHER = [name for name in EMULATED if name != "i386"]  # whose calls reach all of its addresses


@pytest.fixture(params=FURTHER)
def emulator(request: pytest.FixtureRequest) -> Iterator[Platform]:
    require_emulator(request.param)
    with bpfc.emulate(request.param) as emulator:
        yield emulator


def far_away(emulator: Platform) -> int:
    """Where the callers are: far from everything, behind all arenas where addresses are of 32 bits."""
    return FAR_AWAY if emulator.target.word == 8 else 0xE800_0000


def far_distances(emulator: Platform) -> tuple[int, ...]:
    return (5 * GIB, 128 * GIB, -5 * GIB) if emulator.target.word == 8 else (GIB // 16, GIB // 4, -GIB // 16)


def linked(emulator: Platform, text: str, at: int, **symbols: int) -> LinkedImage:
    return link(compile_text(text, emulator.target), symbols, emulator.pool, at=at)


def reaches(image: LinkedImage) -> set[Reach]:
    return {call.reach for call in image.calls}


@pytest.mark.parametrize("emulator", LIMITS, indirect=True)
def test_fc_05_and_09_a_call_is_near_up_to_the_exact_limits(emulator: Platform) -> None:
    low, high, step = LIMITS[emulator.target.name]
    here = far_away(emulator)
    with linked(emulator, CALLER, here, callee=here) as image:
        first = image.calls[0].distance
        sizes = [image.block.size]
        for distance, reach in (
            (low, Reach.NEAR),
            (low - step, Reach.VENEER),
            (high - step, Reach.NEAR),
            (high, Reach.VENEER),
        ):
            before = [(symbol.name, symbol.address) for symbol in image.symbols]
            image.relink({"callee": here + distance - first})
            (call, _) = image.calls
            assert (call.distance, call.reach) == (distance, reach)
            assert [(symbol.name, symbol.address) for symbol in image.symbols] == before
            sizes.append(image.block.size)
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("emulator", LIMITS, indirect=True)
def test_fc_05_callees_just_inside_and_just_outside_both_run(emulator: Platform) -> None:
    _, high, _ = LIMITS[emulator.target.name]
    here = far_away(emulator)
    found = []
    for place in (here + high - 4096, here + high + 4096):
        with (
            linked(emulator, CALLEE, place) as callee,
            linked(emulator, CALLER, here, callee=callee.address_of("callee")) as caller,
        ):
            result = emulator.function(caller.address_of("caller"), *KINDS)(4, 5, 6)
            found.append((result, reaches(caller)))
    assert found == [(40506, {Reach.NEAR}), (40506, {Reach.VENEER})]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_fc_06_a_callee_beyond_4_gib_runs(emulator: Platform, which: int) -> None:
    here = far_away(emulator)
    with (
        linked(emulator, CALLEE, here + far_distances(emulator)[which]) as callee,
        linked(emulator, CALLER, here, callee=callee.address_of("callee")) as caller,
    ):
        assert emulator.function(caller.address_of("caller"), *KINDS)(4, 5, 6) == 40506
        assert reaches(caller) == {Reach.VENEER}


def test_fc_08_a_near_call_becomes_far_when_its_callee_moves(emulator: Platform) -> None:
    here = far_away(emulator)
    with (
        linked(emulator, CALLEE, here + 4096) as near,
        linked(emulator, CALLEE.replace("10", "20"), here + far_distances(emulator)[1]) as far,
        linked(emulator, CALLER, here, callee=near.address_of("callee")) as caller,
    ):
        run = emulator.function(caller.address_of("caller"), *KINDS)
        seen = [run(4, 5, 6)]
        caller.relink({"callee": far.address_of("callee")})
        seen.append(run(4, 5, 6))
        caller.relink({"callee": near.address_of("callee")})
        seen.append(run(4, 5, 6))
    assert seen == [40506, 81006, 40506]
