"""What a view is given and cannot take is refused as Linux refuses it, and leaves nothing behind."""

from __future__ import annotations

from errno import E2BIG, EINVAL, EPERM
from pathlib import Path

import pytest

import bpfc
from ir.diagnostics import RejectedError

OBJECTS = Path(__file__).parents[2] / "objects"


@pytest.mark.parametrize("given", [None, 5, 3.5, "text", [], {"a": 1}])
def test_a_sample_without_bytes_is_refused(given: object) -> None:
    with bpfc.load(OBJECTS / "storage.o").start() as runtime:
        ring = runtime.maps["samples"]
        with pytest.raises(RejectedError, match="takes samples of bytes") as caught:
            ring.send(given)
        assert (caught.value.errno, ring.unread) == (EINVAL, 0)


@pytest.mark.parametrize("given", [[], [1], range(9)])
def test_a_structure_of_too_few_or_too_many_members_is_refused(given: object) -> None:
    with bpfc.load(OBJECTS / "timers.o").start() as runtime:
        view = next(view for view in runtime.maps.values() if view.type.name == "ARRAY")
        with pytest.raises(RejectedError, match="members") as caught:
            view[0] = given
        assert (caught.value.errno, caught.value.diagnostics[0].code) == (EINVAL, "bad-value")


def test_a_program_that_a_slot_does_not_take_is_in_no_table() -> None:
    with bpfc.load(OBJECTS / "tables.o").start() as runtime:
        jumps = next(view for view in runtime.maps.values() if view.type.name == "PROG_ARRAY")
        program = runtime[next(iter(runtime.loaded.programs))]
        for index, number in (
            ("x", EINVAL),
            (None, EINVAL),
            (jumps.live.declared.max_entries, E2BIG),
            (-1, E2BIG),
        ):
            with pytest.raises(RejectedError) as caught:
                jumps[index] = program
            assert (caught.value.errno, program.hooks.tables) == (number, 0)
        jumps[0] = program
        jumps.freeze()
        with pytest.raises(RejectedError) as caught:
            jumps[0] = program
        assert (caught.value.errno, program.hooks.tables) == (EPERM, 1)
        assert jumps[0] is program
