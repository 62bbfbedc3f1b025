"""Calls between images, near and far: the linker's part of FC-05 to FC-10, FC-17, FC-20 and FC-21."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from backends.registry import host
from ir.diagnostics import RejectedError
from runtime.call_table import CallTable
from runtime.epoch import Epochs
from runtime.link_report import Reach
from runtime.linker import LinkedImage, link
from runtime.memory import Pool
from tests.native import compile_text, function_at
from tests.storms import going_on

GIB = 1 << 30
SECONDS = float(os.environ.get("BPFC_STRESS_SECONDS", "10"))
FAR_AWAY = 0x2000_0000_0000  # 32 TiB: nothing of the system is near, and 128 GiB further on neither

CALLER = """
declare i64 @callee(i64) nonlazybind
define i64 @caller(i64 %x) {
  %y = call i64 @callee(i64 %x)
  %z = add i64 %y, 1
  ret i64 %z
}
"""
PLAIN_CALLER = CALLER.replace(" nonlazybind", "")
CALLEE = """
define i64 @callee(i64 %x) {
  %y = mul i64 %x, 10
  ret i64 %y
}
"""
# All six callee-saved registers hold values across the call.
BUSY_CALLER = """
declare i64 @callee(i64) nonlazybind
define i64 @caller(i64 %a, i64 %b, i64 %c, i64 %d, i64 %e, i64 %f) {
  %y = call i64 @callee(i64 1)
  %1 = mul i64 %b, 10
  %2 = mul i64 %c, 100
  %3 = mul i64 %d, 1000
  %4 = mul i64 %e, 10000
  %5 = mul i64 %f, 100000
  %6 = add i64 %a, %1
  %7 = add i64 %6, %2
  %8 = add i64 %7, %3
  %9 = add i64 %8, %4
  %10 = add i64 %9, %5
  ret i64 %10
}
"""
RETURN_ADDRESS = """
declare ptr @llvm.returnaddress(i32)
define ptr @callee(i64 %x) {
  %p = call ptr @llvm.returnaddress(i32 0)
  ret ptr %p
}
"""
STORED_POINTERS = """
declare i64 @callee(i64) nonlazybind
@table = internal constant [2 x ptr] [ptr @first, ptr @second]
define i64 @first(i64 %x) noinline {
  %y = call i64 @callee(i64 %x)
  ret i64 %y
}
define i64 @second(i64 %x) noinline {
  %y = call i64 @first(i64 %x)
  %z = add i64 %y, 5
  ret i64 %z
}
define i64 @choose(i64 %i, i64 %x) {
  %p = getelementptr [2 x ptr], ptr @table, i64 0, i64 %i
  %f = load ptr, ptr %p
  %r = call i64 %f(i64 %x)
  ret i64 %r
}
"""

x86_64_only = pytest.mark.skipif(host().name != "x86_64", reason="the exact limits are x86-64's")


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool() as pool:
        yield pool


def linked(pool: Pool, text: str, at: int, **symbols: int) -> LinkedImage:
    return link(compile_text(text), symbols, pool, at=at)


def call_end(image: LinkedImage) -> int:
    """The address behind the one call of an image, from which x86-64 counts displacements."""
    (call,) = image.calls
    return image.address + call.offset + 4


def at_distance(pool: Pool, text: str, distance: int) -> LinkedImage:
    """A caller whose callee's displacement is exactly `distance`; it never runs."""
    probe = linked(pool, text, FAR_AWAY, callee=FAR_AWAY)
    callee = call_end(probe) + distance
    probe.close()
    return linked(pool, text, FAR_AWAY, callee=callee)


@x86_64_only
@pytest.mark.parametrize(
    ("distance", "reach"),
    [
        (2**31 - 1, Reach.NEAR),
        (2**31, Reach.TABLE),
        (-(2**31), Reach.NEAR),
        (-(2**31) - 1, Reach.TABLE),
    ],
)
def test_fc_05_and_09_a_call_is_near_up_to_its_exact_limits(pool: Pool, distance: int, reach: Reach) -> None:
    with at_distance(pool, CALLER, distance) as image:
        (call,) = image.calls
        assert (call.distance, call.reach) == (distance, reach)
        slot = image.block.read(call.offset - 2, 6)
        assert slot[:2] == (b"\x67\xe8" if reach is Reach.NEAR else b"\xff\x15")
        if reach is Reach.NEAR:
            assert int.from_bytes(slot[2:], "little", signed=True) == distance


@x86_64_only
@pytest.mark.parametrize(
    ("distance", "reach"), [(2**31 - 1, Reach.NEAR), (2**31, Reach.VENEER), (-(2**31) - 1, Reach.VENEER)]
)
def test_fc_05_a_plain_call_goes_through_a_veneer_beyond_the_limit(
    pool: Pool, distance: int, reach: Reach
) -> None:
    with at_distance(pool, PLAIN_CALLER, distance) as image:
        (call,) = image.calls
        assert call.reach is reach
        assert image.block.read(call.offset - 1, 1) == b"\xe8"


@x86_64_only
def test_fc_05_callees_just_inside_and_just_outside_both_run(pool: Pool) -> None:
    probe = linked(pool, CALLER, FAR_AWAY, callee=FAR_AWAY)
    limit = (call_end(probe) + 2**31 - 1) & ~15
    probe.close()
    found = []
    for place in (limit, limit + 16):
        with linked(pool, CALLEE, place) as callee:
            assert callee.address_of("callee") == place
            with linked(pool, CALLER, FAR_AWAY, callee=place) as caller:
                run = function_at(caller.address_of("caller"))
                found.append((run(4), caller.calls[0].reach, len(caller.block.read())))
    assert [(result, reach) for result, reach, _ in found] == [(41, Reach.NEAR), (41, Reach.TABLE)]
    assert found[0][2] == found[1][2]


@pytest.mark.parametrize("text", [CALLER, PLAIN_CALLER], ids=["slot", "veneer"])
@pytest.mark.parametrize("distance", [5 * GIB, 128 * GIB, -5 * GIB])
def test_fc_06_a_callee_beyond_4_gib_runs(pool: Pool, text: str, distance: int) -> None:
    with (
        linked(pool, CALLEE, FAR_AWAY + distance) as callee,
        linked(pool, text, FAR_AWAY, callee=callee.address_of("callee")) as caller,
    ):
        assert function_at(caller.address_of("caller"))(4) == 41
        assert caller.calls[0].reach is not Reach.NEAR


@pytest.mark.parametrize("distance", [4096, 128 * GIB], ids=["near", "far"])
def test_fc_06_values_in_registers_survive_the_call(pool: Pool, distance: int) -> None:
    with (
        linked(pool, CALLEE, FAR_AWAY + distance) as callee,
        linked(pool, BUSY_CALLER, FAR_AWAY, callee=callee.address_of("callee")) as caller,
    ):
        assert function_at(caller.address_of("caller"))(1, 2, 3, 4, 5, 6) == 654321


@x86_64_only
@pytest.mark.parametrize("text", [CALLER, PLAIN_CALLER], ids=["slot", "veneer"])
def test_fc_06_the_return_address_is_behind_the_call_near_and_far(pool: Pool, text: str) -> None:
    with (
        linked(pool, RETURN_ADDRESS, FAR_AWAY + 4096) as near,
        linked(pool, RETURN_ADDRESS, FAR_AWAY + 128 * GIB) as far,
    ):
        for callee in (near, far):
            with linked(pool, text, FAR_AWAY, callee=callee.address_of("callee")) as caller:
                returned = function_at(caller.address_of("caller"))(0) - 1
                assert returned == call_end(caller)


def test_fc_07_swapping_two_images_leaves_function_bodies_as_they_are(pool: Pool) -> None:
    places = (FAR_AWAY, FAR_AWAY + 128 * GIB)
    kept = []
    for here, there in (places, reversed(places)):
        with (
            linked(pool, CALLEE, there) as callee,
            linked(pool, STORED_POINTERS, here, callee=there) as image,
        ):
            assert function_at(image.address_of("choose"))(1, 4) == 45
            kept.append((bodies_without_slots(image), bodies_without_slots(callee)))
    assert kept[0] == kept[1]


def test_fc_08_relinking_makes_a_near_call_far_and_moves_nothing(pool: Pool) -> None:
    near, far = FAR_AWAY + 4096, FAR_AWAY + 128 * GIB
    with (
        linked(pool, CALLEE, near),
        linked(pool, CALLEE, far),
        linked(pool, STORED_POINTERS, FAR_AWAY, callee=near) as image,
    ):
        before, symbols = bodies_without_slots(image), image.symbols
        assert {call.reach for call in image.calls} == {Reach.NEAR}
        image.relink({"callee": far})
        reach = {call.callee: call.reach for call in image.calls}
        assert reach == {"callee": Reach.TABLE, "first": Reach.NEAR}
        assert function_at(image.address_of("choose"))(0, 4) == 40
        assert image.symbols == symbols
        assert bodies_without_slots(image) == before


def bodies_without_slots(image: LinkedImage) -> list[bytes]:
    """The bytes of each function with those of its calls blanked out."""
    code = bytearray(image.block.read())
    for call in image.calls:
        code[call.offset - 2 : call.offset + 4] = bytes(6)
    starts = [(symbol.address - image.address, symbol.length) for symbol in image.functions]
    return [bytes(code[start : start + length]) for start, length in starts]


def test_fc_10_an_index_outside_the_table_is_refused(pool: Pool) -> None:
    with CallTable(["main", "sub"], pool) as table:
        for index in (2, -1):
            with pytest.raises(RejectedError) as caught:
                table[index] = 1
            assert caught.value.errno == errno.EINVAL


def test_fc_02_a_table_has_at_most_256_functions(pool: Pool) -> None:
    with CallTable([f"f{i}" for i in range(256)], pool) as table:
        assert len(table) == 256
    with pytest.raises(RejectedError) as caught:
        CallTable([f"f{i}" for i in range(257)], pool)
    assert caught.value.errno == errno.E2BIG


def test_fc_17_two_compilations_placed_apart_have_equal_sizes_and_relocations(pool: Pool) -> None:
    first, second = compile_text(STORED_POINTERS), compile_text(STORED_POINTERS)
    assert first.relocations == second.relocations
    assert first.to_bytes() == second.to_bytes()
    with (
        link(first, {"callee": FAR_AWAY}, pool) as here,
        link(second, {"callee": FAR_AWAY}, pool, at=FAR_AWAY) as there,
    ):
        assert here.layout == there.layout


def test_calls_through_the_table_follow_it_though_the_callee_is_near(pool: Pool) -> None:
    with (
        CallTable(["callee"], pool) as table,
        link(compile_text(CALLEE), {}, pool) as first,
        link(compile_text(CALLEE.replace("10", "100")), {}, pool) as second,
        link(compile_text(CALLER), {}, pool, slots=table.slots) as caller,
    ):
        run = function_at(caller.address_of("caller"))
        seen = []
        for image in (first, second):
            table["callee"] = image.address_of("callee")
            seen.append(run(4))
        assert seen == [41, 401]
        assert caller.calls[0].reach is Reach.SLOT
        assert caller.calls[0].why == "retargetable"


LOOP = """
@callee = external hidden global ptr
define i64 @caller(i64 %n) {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %head ]
  %bad = phi i64 [ 0, %entry ], [ %worse, %head ]
  %seen = phi i64 [ 0, %entry ], [ %both, %head ]
  %callee = load atomic ptr, ptr @callee monotonic, align 8
  %y = call i64 %callee(i64 3)
  %is_1 = icmp eq i64 %y, 30
  %is_2 = icmp eq i64 %y, 300
  %ok = or i1 %is_1, %is_2
  %no = xor i1 %ok, true
  %no64 = zext i1 %no to i64
  %worse = add i64 %bad, %no64
  %bit1 = zext i1 %is_1 to i64
  %bit2 = select i1 %is_2, i64 2, i64 0
  %bits = or i64 %bit1, %bit2
  %both = or i64 %seen, %bits
  %next = add i64 %i, 1
  %again = icmp ult i64 %next, %n
  br i1 %again, label %head, label %out
out:
  %high = shl i64 %worse, 8
  %r = or i64 %high, %both
  ret i64 %r
}
"""


@pytest.mark.slow
def test_fc_20_callers_of_a_retargeted_entry_see_one_of_two_callees(pool: Pool) -> None:
    with (
        CallTable(["callee"], pool) as table,
        link(compile_text(CALLEE), {}, pool) as first,
        link(compile_text(CALLEE.replace("10", "100")), {}, pool, at=FAR_AWAY) as second,
        link(compile_text(LOOP), table.slots, pool) as caller,
    ):
        targets = (first.address_of("callee"), second.address_of("callee"))
        table["callee"] = targets[0]
        run = function_at(caller.address_of("caller"))
        results: list[int] = []
        stop = threading.Event()

        def call() -> None:
            while not stop.is_set():
                results.append(run(20_000))

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        end, swaps = time.monotonic() + SECONDS, 0
        while swaps < 1_000_000 or time.monotonic() < end:
            for target in targets:
                table["callee"] = target
            swaps += 2
        stop.set()
        for thread in threads:
            thread.join()
        assert {result >> 8 for result in results} == {0}
        assert 3 in results


@pytest.mark.slow
def test_fc_21_a_swapped_callee_goes_when_the_threads_inside_have_left(pool: Pool) -> None:
    """Freed code is int3, so a late call would end the process; blocks are used again, so it might also give another result."""
    epochs = Epochs()
    code = [compile_text(CALLEE), compile_text(CALLEE.replace("10", "100"))]
    wrong: list[int] = []
    with CallTable(["callee"], pool) as table:
        current = link(code[0], {}, pool)
        table["callee"] = current.address_of("callee")
        with link(compile_text(LOOP), table.slots, pool) as caller:
            run = function_at(caller.address_of("caller"))
            stop = threading.Event()

            def call() -> None:
                reader = epochs.reader()
                while not stop.is_set():
                    with reader:
                        result = run(5_000)
                    if result >> 8:
                        wrong.append(result)

            threads = [threading.Thread(target=call) for _ in range(4)]
            for thread in threads:
                thread.start()
            swaps = held = 0
            goes_on = going_on(SECONDS, lambda: swaps > 50 and held > 0)
            while goes_on():
                swaps += 1
                old, current = current, link(code[swaps & 1], {}, pool)
                table["callee"] = current.address_of("callee")
                epochs.retire(old.close)
                held += old.block.size > 0
            stop.set()
            for thread in threads:
                thread.join()
            epochs.drain(10)
            assert not wrong
            assert swaps > 50
            assert held > 0  # somebody was inside, so it was waited for
            assert old.block.size == 0
            assert old.block.region.size  # its pool is still there
            poison = host().poison
            left = ctypes.string_at(pool.address + old.block.start, 64)
            assert left == poison * (64 // len(poison)) or old.block.start == current.block.start
            current.close()


def test_fc_21_freed_code_traps() -> None:
    """In a process of its own, because the trap ends it."""
    script = (
        "from tests.native import function_at, load_text\n"
        f"image = load_text('''{CALLEE}''')\n"
        "run = function_at(image.address_of('callee'))\n"
        "print(run(4), flush=True)\n"
        "image.close()\n"
        "run(4)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert ended.stdout == "40\n"
    assert ended.returncode == -5  # SIGTRAP
