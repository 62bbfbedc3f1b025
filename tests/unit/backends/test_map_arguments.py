"""Helpers on a map that is one of several: the operation is that of the map it is, and anything else is a trap."""

from __future__ import annotations

import pytest

import bpfc
from backends.registry import target_named
from bpfc import TrapError
from bpfc.testing.kernel import create_map, load_program, read_map, run_program
from ir.asm import assemble
from ir.kinds import MapType
from ir.object import Map
from tests.engines import EMULATED, require_emulator

MAPS = {
    3: Map("hash", MapType.HASH, 4, 8, 4),
    4: Map("array", MapType.ARRAY, 4, 8, 4),
    5: Map("wide", MapType.HASH, 4, 40, 4),
    6: Map("per_cpu", MapType.PERCPU_ARRAY, 4, 8, 2),
    7: Map("lru", MapType.LRU_HASH, 4, 8, 4),
    8: Map("outer", MapType.ARRAY_OF_MAPS, 4, 4, 2, inner=Map("in", MapType.HASH, 4, 8, 4)),
}
CHOOSE = """
r6 = *(u32 *)(r1 + 0)
*(u32 *)(r10 - 4) = 1
*(u64 *)(r10 - 16) = 77
{ways}
go:
r7 = r1
r2 = r10
r2 += -4
r3 = r10
r3 += -16
r4 = 0
call 2
r1 = r7
r2 = r10
r2 += -4
call 1
if r0 == 0 goto missing
r6 = *(u64 *)(r0 + 0)
*(u64 *)(r0 + 0) = 78
r0 = r6
exit
missing:
r0 = 99
exit
"""
BY_FD = {3: "hash", 4: "array", 6: "per_cpu", 7: "lru"}


CHECKED = "if r2 >= 8 goto +2\nr0 = 98\nexit\n"


def chosen(*descriptors: int) -> str:
    """A program that updates the map at one place of a list, and looks into it."""
    last = descriptors[-1]
    ways = [f"r1 = map_fd({fd})\nif r6 == {number} goto go" for number, fd in enumerate(descriptors[:-1])]
    return CHOOSE.format(ways="\n".join([*ways, f"r1 = map_fd({last})"]))


@pytest.mark.parametrize("is_proved", [True, False], ids=["proved", "unproved"])
@pytest.mark.parametrize("descriptors", [(3, 7), (3, 4), (4, 6), (3, 4, 6, 7)], ids=str)
def test_the_operation_is_that_of_the_map_that_is_given(
    descriptors: tuple[int, ...], is_proved: bool
) -> None:
    loaded = bpfc.assemble((CHECKED if is_proved else "") + chosen(*descriptors), maps=MAPS)
    assert loaded.verify().ok is is_proved
    with loaded.start() as runtime:
        for number, descriptor in enumerate(descriptors):
            assert runtime["main"].run(number.to_bytes(8, "little")).ret == 77
            found = runtime.maps[BY_FD[descriptor]][1]
            assert (found[0] if descriptor == 6 else found) == (78).to_bytes(8, "little")


@pytest.mark.kernel
def test_the_kernel_takes_one_of_two_maps_too() -> None:
    with create_map(MAPS[3]) as hash, create_map(MAPS[4]) as array:
        text = chosen(3, 4).replace("map_fd(3)", f"map_fd({hash})").replace("map_fd(4)", f"map_fd({array})")
        with load_program(assemble(text)) as program:
            assert run_program(program).ret == 77
        assert read_map(array, b"\1\0\0\0", 8)[0] == 78


@pytest.mark.parametrize("is_proved", [True, False], ids=["proved", "unproved"])
def test_values_of_either_map_are_within_their_own_sizes(is_proved: bool) -> None:
    """A value of 40 bytes or of 8: what is beyond 8 is there in one of them only."""
    text = chosen(5, 3).replace("*(u64 *)(r0 + 0)", "*(u64 *)(r0 + {at})").replace("call 2\n", "")
    for at, fits in ((0, True), (8, False), (32, False)):
        loaded = bpfc.assemble((CHECKED if is_proved else "") + text.replace("{at}", str(at)), maps=MAPS)
        assert loaded.verify().ok is (is_proved and fits)
        with loaded.start() as runtime:
            runtime.maps["hash"][1], runtime.maps["wide"][1] = 7, bytes(range(40))
            assert runtime["main"].run(bytes(8)).ret == int.from_bytes(bytes(range(at, at + 8)), "little")
            if fits:
                assert runtime["main"].run(b"\1" * 8).ret == 7
                continue
            with pytest.raises(TrapError) as caught:
                runtime["main"].run(b"\1" * 8)
            assert caught.value.diagnostics[0].code == "out-of-bounds"


@pytest.mark.slow
@pytest.mark.parametrize("target", EMULATED)
def test_one_of_several_maps_on_every_target(target: str) -> None:
    require_emulator(target)
    order = target_named(target).byte_order
    loaded = bpfc.assemble(chosen(3, 4, 6, 7), maps=MAPS, big_endian=order == "big")
    with loaded.start(target=target) as runtime:
        assert [runtime["main"].run(number.to_bytes(4, order) + bytes(4)).ret for number in range(4)] == [
            77
        ] * 4


@pytest.mark.parametrize(
    "change",
    [
        "if r6 == 0 goto +1\nr1 = 12345",
        "r1 += 4096",
        "r1 += r6",
        "if r6 == 0 goto +1\nr1 += 64",
        "r1 -= r6",
    ],
)
def test_what_is_no_map_after_all_is_a_trap(change: str) -> None:
    text = f"r6 = *(u64 *)(r1 + 0)\nr1 = map_fd(3)\n{change}\nr2 = r10\nr2 += -4\n*(u32 *)(r10 - 4) = 1\ncall 1\nr0 = 5\nexit"
    with bpfc.assemble(text, maps=MAPS).start() as runtime:
        with pytest.raises(TrapError) as caught:
            runtime["main"].run(b"\xf8\xff\xff\xff\xff\xff\xff\xff")
        assert caught.value.diagnostics[0].code == "out-of-bounds"
        if "goto" in change:
            assert runtime["main"].run(bytes(8)).ret == 5
