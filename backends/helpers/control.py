"""Helpers that steer the run: loops with a callback, spin locks."""

from __future__ import annotations

from errno import E2BIG, EINVAL
from typing import Final

from backends import abi
from backends.helpers.row import HelperRow, Site
from backends.maps.operation import call_back
from backends.maps.shape import unlock
from backends.writer import Value, Writer

_MOST_LOOPS: Final = 1 << 23


def loop(w: Writer, site: Site) -> None:
    """Call r2 with (i, r3) for i in 0..r1-1 until it returns non-zero; how often it was called."""
    times = w["r1"] & 0xFFFF_FFFF
    with w.if_(w["r4"].ne(0), likely=False):
        w.ret(-EINVAL)
    with w.if_(times.ugt(_MOST_LOOPS), likely=False):
        w.ret(-E2BIG)
    called = w.var("i64", 0)
    with w.count(0, times) as i:
        _spend(w, i)
        stop = call_back(w, w["r2"], i.to("ptr"), w["r3"])
        called.set(i + 1)
        w.break_if(stop.ne(0))
    w.ret(called.get())


def spin_lock(w: Writer, site: Site) -> None:
    """Take the lock r1; waiting spends fuel, so that a lock held for ever ends the run."""
    place = w["r1"]
    with w.loop():
        w.break_if(place.exchange(w.i32(1), "acquire").eq(0), likely=True)
        with w.loop():
            w.break_if(place.load("i32", order="monotonic").eq(0))
            _spend(w, w.i64(0))
    w.ret(0)


def spin_unlock(w: Writer, site: Site) -> None:
    """Give the lock r1 back."""
    unlock(w, w["r1"])
    w.ret(0)


def _spend(w: Writer, result: Value) -> None:
    """Use up one back-edge; out of the function when there is none left."""
    fuel = w["run"].load("i64", abi.FUEL)
    with w.if_(fuel.eq(0), likely=False):
        w["run"].store(w.i32(abi.Trap.FUEL), abi.TRAP_CODE)
        w.ret(result)
    w["run"].store(fuel - 1, abi.FUEL)


CONTROL: Final = {
    "loop": HelperRow(loop, may_trap=True),
    "spin_lock": HelperRow(spin_lock, is_small=False, may_trap=True),
    "spin_unlock": HelperRow(spin_unlock),
}
