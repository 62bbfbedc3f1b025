"""A pointer reaches the value of a map that it was made from, as in the interpreter, however it gets to where it is used."""

from __future__ import annotations

from importlib.util import find_spec
from shutil import which
from time import process_time

import pytest

import bpfc
from backends.origins import Origins
from backends.registry import NAMES, target_named
from backends.unit import NothingProved
from bpfc.running import Runtime
from bpfc.testing.case import Case
from bpfc.testing.native import run
from bpfc.testing.reference import interpret
from ir.diagnostics import TrapError
from ir.kinds import MapType
from ir.lift import lift
from ir.object import Map
from ir.regions import Regions

SIZE = 12  # values are 16 bytes apart in an array, 32 in a hash
STEPS = (-33, -32, -17, -16, -12, -5, -4, -1, 0, 1, 8, 11, 12, 15, 16, 20, 27, 28, 32, 40, 43, 44)
MAPS = {
    3: Map("first", MapType.HASH, 4, SIZE, 3),
    4: Map("second", MapType.ARRAY, 4, SIZE, 3),
    5: Map("third", MapType.HASH, 4, SIZE, 3),
}
# Keys 0, 1 and 2 are there in each map, and the value of each says which it is. r0: key 1 of a map that the input names,
# r8: by how much to move it.
FOUND = "".join(
    f"""
    *(u32 *)(r10 - 4) = {key}
    *(u64 *)(r10 - 16) = {key + 16 * fd}
    *(u64 *)(r10 - 24) = {key + 16 * fd}
    r1 = map_fd({fd})
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -24
    r4 = 0
    call 2"""
    for fd in MAPS
    for key in range(3)
).join(
    [
        """
    r6 = *(u8 *)(r1 + 0)
    r8 = *(s8 *)(r1 + 1)""",
        """
    *(u32 *)(r10 - 4) = 1
    r2 = r10
    r2 += -4
    r1 = map_fd(3)
    if r6 == 0 goto look
    *(u32 *)(r10 - 4) = 0
    if r6 == 1 goto look
    r1 = map_fd({other})
look:
    call 1
    r6 = r0
    if r6 == 0 goto out
""",
    ]
)
OUT = """
out:
    r0 = 0
    exit
"""
WAYS = {
    "moved": "r6 += r8\nr0 = *(u8 *)(r6 + 0)\nexit\n" + OUT,
    "kept on the stack": """
    r6 += r8
    *(u64 *)(r10 - 40) = r6
    r1 = r10
    r1 += -48
    call touch
    r6 = *(u64 *)(r10 - 40)
    r0 = *(u16 *)(r6 + 0)
    exit"""
    + OUT
    + "touch:\n*(u64 *)(r1 + 0) = 5\nr0 = 0\nexit\n",
    "passed to a function": """
    r1 = r6
    r1 += r8
    call reads
    exit"""
    + OUT
    + "reads:\nr0 = *(u32 *)(r1 + 0)\nexit\n",
    "of the round before": """
    r7 = 0
    r9 = 2
again:
    if r7 == 0 goto first
    r7 += r8
    r0 = *(u8 *)(r7 + 0)
    exit
first:
    r7 = r6
    r9 += -1
    if r9 != 0 goto again"""
    + OUT,
    "given to a helper": """
    r6 += r8
    r1 = map_fd(5)
    r2 = r10
    r2 += -4
    r3 = r6
    r4 = 0
    call 2
    exit"""
    + OUT,
}
KINDS = {
    "per-cpu array": Map("m", MapType.PERCPU_ARRAY, 4, SIZE, 3),
    "per-cpu hash": Map("m", MapType.PERCPU_HASH, 4, SIZE, 3),
    "lru": Map("m", MapType.LRU_HASH, 4, SIZE, 3),
    "per-cpu lru": Map("m", MapType.LRU_PERCPU_HASH, 4, SIZE, 3),
    "trie": Map("m", MapType.LPM_TRIE, 8, SIZE, 3, flags=1),
}
# r6: the value of key 1, or of key 0 with an input of 0, or with one of 2 a place on the stack.
JOINED = """
    r7 = *(u8 *)(r1 + 0)
    r8 = *(s8 *)(r1 + 1)
    *(u32 *)(r10 - 8) = 32
    *(u64 *)(r10 - 32) = 0
    *(u64 *)(r10 - 40) = 0
    r9 = 0
again:
    *(u32 *)(r10 - 4) = r9
    r1 = map_fd(3)
    r2 = r10
    r2 += {key}
    r3 = r10
    r3 += -40
    r4 = 0
    call 2
    r9 += 1
    if r9 != 3 goto again
    *(u32 *)(r10 - 4) = 1
    if r7 == 1 goto one
    *(u32 *)(r10 - 4) = 0
one:
    r1 = map_fd(3)
    r2 = r10
    r2 += {key}
    call 1
    r6 = r0
    if r7 != 2 goto found
    {third}
found:
    if r6 == 0 goto out
    r6 += r8
    r0 = *(u8 *)(r6 + 0)
    r0 = 1
    exit
out:
    exit
"""


def needs(target: str) -> None:
    """Skip where the emulator of `target` is not installed."""
    if target == "ppc64le" and which("qemu-ppc64le") is None and which("qemu-ppc64le-static") is None:
        pytest.skip("qemu-ppc64le (Debian's qemu-user) is not installed")
    if target != "ppc64le" and find_spec("unicorn") is None:
        pytest.skip("the extra 'emu' is not installed")


def case_of(way: str, other: int, big: bool) -> Case:
    text = FOUND.replace("{other}", str(other)) + WAYS[way]
    loaded = bpfc.assemble(text, maps=MAPS, big_endian=big)
    inputs = tuple(bytes((key, step & 0xFF)) for key in range(3) for step in STEPS)
    return Case(loaded.program("main"), loaded.object.maps, inputs)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("other", [3, 4, 5], ids=["one map", "hash or array", "two hashes"])
def test_it_stops_where_the_interpreter_does(way: str, other: int) -> None:
    case = case_of(way, other, big=False)
    wanted = interpret(case)
    assert {"out-of-bounds"} < {outcome.ret for outcome in wanted.outcomes}
    for level in ("O0", "O2"):
        seen = run(case, level)
        assert [outcome.ret for outcome in seen.outcomes] == [outcome.ret for outcome in wanted.outcomes]
        assert seen.maps == wanted.maps


@pytest.mark.parametrize("target", NAMES)
def test_it_does_so_on_every_machine(target: str) -> None:
    needs(target)
    for way in WAYS:
        case = case_of(way, 4, target_named(target).byte_order == "big")
        wanted, seen = interpret(case), run(case, "O1", target=target)
        assert [outcome.ret for outcome in seen.outcomes] == [outcome.ret for outcome in wanted.outcomes], way
        assert seen.maps == wanted.maps, way


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("third", ["r6 = r10\n r6 += -16", "r6 = r0"], ids=["or the stack", "of one map"])
def test_it_does_so_in_every_kind_of_map(kind: str, third: str) -> None:
    text = JOINED.format(third=third, key=-8 if kind == "trie" else -4)
    with bpfc.assemble(text, maps={3: KINDS[kind]}).start() as runtime:
        for key in range(2):
            for step in STEPS:
                assert returns(runtime, bytes((key, step & 0xFF))) == (0 <= step < SIZE)


def test_many_loads_of_a_slot_that_many_stores_fill_are_followed_in_linear_time() -> None:
    rounds = """
    r1 = map_fd(3)
    r2 = r10
    r2 += -4
    call 1
    *(u64 *)(r10 - 16) = r0
    if r6 == 0 goto +1
    *(u64 *)(r10 - 16) = r7
    r7 = *(u64 *)(r10 - 16)
    r8 = *(u8 *)(r7 + 0)
    """
    text = f"*(u32 *)(r10 - 4) = 0\nr6 = r1\nr7 = r10\n{rounds * 5000}r0 = 0\nexit"
    loaded = bpfc.assemble(text, maps=MAPS)
    module = lift(loaded.program("main"), loaded.object.maps)
    regions = Regions(module)
    begin = process_time()
    origins = Origins(module, regions, NothingProved())
    assert process_time() - begin < 2  # 0.06 where it was written, 10 when it took the square of time
    assert origins.slots(module.main) == [-16]


def returns(runtime: Runtime, data: bytes) -> int:
    """r0, 0 for a trap."""
    try:
        return runtime["main"].run(data).ret
    except TrapError:
        return 0
