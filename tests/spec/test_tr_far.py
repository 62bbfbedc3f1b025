"""TR-25: images out of reach of the functions that they are for, and of everything that they call."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ir.function_model import U64, Model
from runtime.epoch import epochs
from runtime.native_entry import function_at_pointer
from runtime.space import Space
from tests.native import load_text
from tests.tracing import FarPool, run

if TYPE_CHECKING:
    from bpfc.running import Runtime

OBJECTS = Path(__file__).parent.parent / "objects"


@pytest.fixture
def far(machine: Space) -> Iterator[FarPool]:
    hooks = machine.hooks
    assert hooks.parts.address, "what images share is where it always is"
    near = hooks.pool
    hooks.pool = found = FarPool(near)  # type: ignore[assignment]  # does what images ask of a pool
    yield found
    hooks.pool = near
    epochs().drain(10)


def test_tr_25_far_images_are_reached_through_the_veneer(
    far: FarPool, targets: Runtime, tracers: Runtime, machine: Space
) -> None:
    target = targets["calls_f"]
    patching = machine.target.patching
    reaches_all = machine.target.word == 4 and patching.near_high >= 1 << 31
    assert run(target) == 5
    first = target.image.block.read()
    with tracers["on_entry"].attach_fentry(target, "f"):
        entry = target.image.address_of("f")
        assert reaches_all or not patching.is_near(far.addresses[0] - entry)
        assert run(target) == 5
        one = target.image.block.read()
        with tracers["on_exit"].attach_fexit(target, "f"):
            assert reaches_all or not patching.is_near(far.addresses[1] - far.addresses[0])
            assert run(target) == 5
            two = target.image.block.read()
    changed = [n for n, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
    veneer = target.image.layout.entries[target.hooks.hook("f").entry.point.site.function]  # type: ignore[attr-defined]  # an EntryHook
    literal = veneer + machine.target.entry_veneer.literal
    assert changed
    assert literal <= changed[0] <= changed[-1] < literal + 8
    assert target.image.block.read() == first
    assert (tracers.globals["entries"], tracers.globals["exits"]) == (2, 1)


@pytest.mark.host_only("about a C function of this process")
def test_tr_25_far_images_of_native_functions(far: FarPool, tracers: Runtime) -> None:
    with load_text(
        "define i64 @f(i64 %a, i64 %b) noinline {\n  %s = add i64 %a, %b\n  ret i64 %s\n}"
    ) as code:
        pointer = ctypes.c_uint64(code.address_of("f"))
        target = function_at_pointer("f", ctypes.addressof(pointer), Model((U64, U64), U64))
        prototype = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
        with tracers["on_entry"].attach_fentry(target), tracers["on_exit"].attach_fexit(target):
            # Safe because the pointer leads to the function, or to what is hooked before it.
            assert prototype(pointer.value)(20, 22) == 42
        assert len(far.addresses) == 3
        assert (tracers.globals["entries"], tracers.globals["exits"]) == (1, 1)
