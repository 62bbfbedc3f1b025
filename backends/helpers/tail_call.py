"""bpf_tail_call's native half: find the program in the table and count the call; lowering does the jump."""

from __future__ import annotations

from typing import Final

from backends import abi
from backends.helpers.row import HelperRow, Site
from backends.maps.shape import Shape
from backends.maps.slots import handle_at
from backends.writer import Writer


def tail_call(w: Writer, site: Site) -> None:
    """The code of program r3 (low 32 bits) in table r2 when there is one and the run has tail calls left,
    else null.
    """
    map = site.known_map
    handle = handle_at(w, Shape(map.type, map), w["r2"], w["r3"] & 0xFFFF_FFFF)
    left = w["run"].load("i32", abi.TAIL_CALLS)
    with w.if_(handle.eq(0) | left.eq(0), likely=False):
        w.ret(w.null())
    w["run"].store(left - 1, abi.TAIL_CALLS)
    w.ret(handle.to("ptr"))


TAIL_CALLS: Final = {"tail_call": HelperRow(tail_call, needs_map=True, returns_pointer=True)}
