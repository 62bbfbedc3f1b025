"""Helpers answered from the run state: the cpu, random numbers."""

from __future__ import annotations

from typing import Final

from backends import abi
from backends.helpers.row import HelperRow, Site
from backends.writer import Writer


def smp_processor_id(w: Writer, site: Site) -> None:
    """The number of the cpu the run is on."""
    w.ret(w["run"].load("i32", abi.CPU).to("i64"))


def prandom_u32(w: Writer, site: Site) -> None:
    """The next number of the run's own generator (splitmix64), so that runs can be repeated."""
    state = w["run"].load("i64", abi.RNG) + 0x9E3779B97F4A7C15
    w["run"].store(state, abi.RNG)
    x = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    w.ret((x ^ (x >> 31)) >> 32)


def numa_node_id(w: Writer, site: Site) -> None:
    """One node."""
    w.ret(0)


def get_retval(w: Writer, site: Site) -> None:
    """The return value that a cgroup's program may change."""
    w.ret(w["run"].load("i64", abi.RETVAL))


def set_retval(w: Writer, site: Site) -> None:
    """Change it."""
    w["run"].store(w["r1"].to("i32").signed_to("i64"), abi.RETVAL)
    w.ret(0)


RUN_STATE: Final = {
    "get_retval": HelperRow(get_retval),
    "set_retval": HelperRow(set_retval),
    "get_smp_processor_id": HelperRow(smp_processor_id),
    "get_prandom_u32": HelperRow(prandom_u32),
    "get_numa_node_id": HelperRow(numa_node_id),
}
