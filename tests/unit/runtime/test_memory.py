"""Memory for code and data: what it holds when, who can write it, and that it comes back."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ir.diagnostics import UnsupportedError
from runtime.arena import CODE_SIZE
from runtime.free_list import FreeList
from runtime.memory import Pool
from runtime.region import PAGE
from tests.native import function_at

RETURN_1 = bytes.fromhex("b801000000c3")
RETURN_2 = bytes.fromhex("b802000000c3")
PLACE = 0x2000_0000_0000


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool() as pool:
        yield pool


def protections(address: int) -> str:
    """How the page at an address is mapped, as /proc says it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            return line.split()[1]
    return ""


def test_code_is_executable_at_its_address_and_writable_at_its_alias_only(pool: Pool) -> None:
    block = pool.allocate_code(64)
    assert protections(block.address) == "r-xs"
    assert protections(block.alias) == "rw-s"


def test_nothing_of_ours_is_writable_and_executable(pool: Pool) -> None:
    before = both_writable_and_executable()
    pool.allocate_code(64).write(0, RETURN_1)
    pool.allocate_data(64)
    with pool.allocate_code(64, at=PLACE):
        assert both_writable_and_executable() == before


def both_writable_and_executable() -> list[str]:
    """The mappings that are both: libffi has one for callbacks."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if "w" in line.split()[1] and "x" in line.split()[1]]


def test_words_reach_as_far_as_whole_ones_of_their_width_do(pool: Pool) -> None:
    with pool.allocate_code(68, at=PLACE) as block:
        assert [len(block.words(format)) for format in ("B", "I", "Q")] == [68, 17, 8]


def test_what_is_written_at_the_alias_runs(pool: Pool) -> None:
    block = pool.allocate_code(64)
    block.write(0, RETURN_1)
    assert function_at(block.address)() == 1


def test_fresh_and_freed_code_memory_is_poison(pool: Pool) -> None:
    block = pool.allocate_code(64)
    address = block.address
    assert block.read() == b"\xcc" * 64
    block.write(0, RETURN_1)
    block.close()
    assert ctypes.string_at(address, 64) == b"\xcc" * 64


def test_closing_twice_is_fine_and_after_the_pool_too() -> None:
    with Pool() as pool:
        code, data = pool.allocate_code(10), pool.allocate_data(10)
        pool.allocate_code(10).close()
    for block in (code, data, code, data, pool):
        block.close()


def test_freed_code_memory_is_used_again(pool: Pool) -> None:
    first = pool.allocate_code(100)
    kept = pool.allocate_code(100)
    address = first.address
    first.close()
    assert pool.allocate_code(100).address == address
    assert kept.address == address + 128


def test_code_and_data_of_a_pool_are_within_reach_of_each_other(pool: Pool) -> None:
    code = pool.allocate_code(64)
    data = [pool.allocate_data(100 << 20) for _ in range(7)]
    assert all(abs(block.address - code.address) < 2**30 for block in data)


def test_data_that_does_not_fit_near_is_placed_anywhere(pool: Pool) -> None:
    block = pool.allocate_data(2 << 30)
    block.view[-1] = 7
    assert block.view[0] == 0
    block.close()


def test_data_is_zero_again_after_it_was_freed(pool: Pool) -> None:
    block = pool.allocate_data(PAGE)
    block.view[:] = b"\xff" * PAGE
    block.close()
    assert bytes(pool.allocate_data(PAGE).view) == bytes(PAGE)


def test_data_is_unmapped_when_its_last_view_is_gone() -> None:
    with Pool() as pool:
        block = pool.allocate_data(PAGE)
        address, view = block.address, block.view[10:20]
        block.close()
    assert protections(address) == "rw-p"
    view[:] = b"still here"
    del view
    pool.close()
    assert protections(address) == ""


def test_code_is_placed_where_it_was_asked_for(pool: Pool) -> None:
    with pool.allocate_code(64, at=PLACE + 48) as block:
        assert block.address == PLACE + 48
        block.write(0, RETURN_1)
        assert function_at(PLACE + 48)() == 1
    assert protections(PLACE) == ""


def test_an_address_that_is_taken_is_refused(pool: Pool) -> None:
    with pool.allocate_code(64, at=PLACE), pytest.raises(UnsupportedError) as caught:
        pool.allocate_code(64, at=PLACE)
    assert caught.value.errno == errno.EEXIST


def test_a_pool_without_room_says_so(pool: Pool) -> None:
    with pytest.raises(UnsupportedError) as caught:
        pool.allocate_code(CODE_SIZE + 1)
    assert caught.value.errno == errno.ENOMEM


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_parent_and_child_do_not_see_each_others_code(pool: Pool) -> None:
    block = pool.allocate_code(64)
    block.write(0, RETURN_1)
    child = os.fork()
    if not child:
        block.write(0, RETURN_2)
        os._exit(function_at(block.address)())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert function_at(block.address)() == 1


def test_free_ranges_merge_with_their_neighbours() -> None:
    free = FreeList(4096, 64)
    starts = [free.take(1024) for _ in range(4)]
    assert starts == [0, 1024, 2048, 3072]
    assert free.take(1) is None
    for start in (1024, 3072, 2048, 0):
        free.give(start, 1024)
    assert free.take(4096) == 0
