"""Whether memory is one the program may touch: the run's table of segments (backends/abi.py), walked out of
line.
"""

from __future__ import annotations

from typing import Final

from backends import abi
from backends.writer import Value, Writer

IN_SEGMENT: Final = "bpfc.helpers.in_segment"


def in_segment(w: Writer, address: Value, size: Value, writes: bool) -> Value:
    """Whether [address, address + size) lies in one segment (i1); needs the part IN_SEGMENT."""
    flags = w.i64(abi.SEGMENT_WRITABLE if writes else 0)
    return w.call("i1", IN_SEGMENT, w["run"], address, size, flags)


def in_segment_part() -> str:
    """The definition of IN_SEGMENT."""
    params = (("ptr", "run"), ("i64", "address"), ("i64", "size"), ("i64", "flags"))
    w = Writer(IN_SEGMENT, *params, returns="i1", attributes="internal noinline nounwind")
    table = w["run"].load("ptr", abi.SEGMENTS)
    with w.count(0, w["run"].load("i64", abi.SEGMENT_COUNT)) as i:
        row = table.at(i * 24)
        start, end = row.load("i64"), row.load("i64", 8)
        room = end - start
        fits = w["size"].ule(room) & (w["address"] - start).ule(room - w["size"])
        with w.if_(fits & (row.load("i64", 16) & w["flags"]).eq(w["flags"])):
            w.ret(1)
    w.ret(0)
    return w.text()
