"""Instruction arrays as maps of an object: filled and frozen before the load, read afterwards (SK-17, SK-18, SK-20)."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

import bpfc
from bpfc import Loaded, Options, RejectedError
from ir.kinds import MapType, ProgramType
from ir.maps import UpdateFlag
from ir.object import Map
from runtime.insn_set import DELETED, Entry

PLACES = Map("places", MapType.INSN_ARRAY, 4, 16, 4)
# Slot 0 is a wide load; the plain nop at 3 goes; `r0 = 7` leaves no code of its own.
TEXT = "r1 = map_fd(3)\nr0 = 3\ngoto +0\nnop_or_goto +1\nexit\nr0 = 7\nexit"


def load(text: str = TEXT, places: Map = PLACES, type: ProgramType = ProgramType.UNSPEC) -> Loaded:
    return bpfc.assemble(text, maps={3: places}, type=type)


def refused(action: Callable[[], object]) -> int:
    with pytest.raises(RejectedError) as caught:
        action()
    return caught.value.errno


def test_entries_are_filled_in_when_the_program_is_loaded() -> None:
    with load().start(Options(level="O0")) as runtime:
        view = runtime.maps["places"]
        for index, slot in enumerate((0, 3, 4, 6)):
            view[index] = slot
        view.freeze()
        assert [entry.xlated_off for entry in view.values()] == [0, 0, 0, 0]
        program = runtime["main"]
        assert [entry.xlated_off for entry in view.values()] == [0, DELETED, 3, 5]
        (site,) = program.branches.points(4)
        if program.image.target.flags is None:
            assert view[2].jitted_off == site.address - program.image.address
        assert view[0].jitted_off == program.image.address_of("main") - program.image.address
        assert view[3].jitted_off > view[2].jitted_off
        live = view.live
        start = live.layout.values_offset
        order = ">" if live.host.order == "big" else "<"
        shown = struct.unpack_from(f"{order}16I", live.block.view, start)
        assert shown[8:12] == (4, 3, view[2].jitted_off, 0)
        assert program.run(b"").ret == 3


def test_an_array_that_is_not_frozen_refuses_the_load_and_can_be_frozen_then() -> None:
    with load().start() as runtime:
        assert refused(lambda: runtime["main"]) == errno.EINVAL
        runtime.maps["places"].freeze()
        assert runtime["main"].run(b"").ret == 3


@pytest.mark.parametrize("slot", [1, 8, 1 << 31])
def test_entries_that_are_no_instructions_refuse_the_load(slot: int) -> None:
    with load().start() as runtime:
        view = runtime.maps["places"]
        view[1] = slot
        view.freeze()
        assert refused(lambda: runtime["main"]) == errno.EINVAL


def test_an_array_has_one_program() -> None:
    first = load()
    program = first.program("main")
    both = {"main": program, "other": bpfc.assemble(TEXT, "other", maps={3: PLACES}).program("other")}
    loaded = Loaded(type(first.object)("two", both, first.object.maps))
    with loaded.start() as runtime:
        runtime.maps["places"].freeze()
        assert runtime["main"]
        assert refused(lambda: runtime["other"]) == errno.EBUSY


def test_changes_are_refused_as_by_linux() -> None:
    with load().start() as runtime:
        view = runtime.maps["places"]
        assert refused(lambda: view.update_elem(4, 0)) == errno.E2BIG
        assert refused(lambda: view.update_elem(0, 0, UpdateFlag.NOEXIST)) == errno.EEXIST
        assert refused(lambda: view.update_elem(0, Entry(1, 1))) == errno.EINVAL
        assert refused(lambda: view.update_elem(0, Entry(1, 0, 1))) == errno.EINVAL
        assert refused(lambda: view.pop(0)) == errno.EINVAL
        view.freeze()
        assert refused(lambda: view.update_elem(0, 0)) == errno.EPERM
        assert refused(view.freeze) == errno.EBUSY
        with pytest.raises(KeyError):
            view[4]


@pytest.mark.parametrize("change", [{"max_entries": 0}, {"key_size": 8}, {"value_size": 8}, {"flags": 1}])
def test_arrays_of_other_sizes_are_refused(change: dict[str, int]) -> None:
    assert refused(lambda: load(places=replace(PLACES, **change)).start()) == errno.EINVAL


def test_programs_may_not_call_map_helpers_on_it() -> None:
    text = "r2 = r10\nr2 += -4\n*(u32 *)(r10 - 4) = 0\nr1 = map_fd(3)\ncall 1\nr0 = 0\nexit"
    (problem,) = load(text, type=ProgramType.XDP).verify()["main"].diagnostics
    assert (problem.code, problem.errno) == ("map-type", errno.EINVAL)
