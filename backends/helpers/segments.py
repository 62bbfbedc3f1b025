"""Whether memory is one the program may touch: the run's table of segments (backends/abi.py), walked out of line.

A segment may be the values of a map, of which a pointer reaches the one that it came from and no other:

    | value 0    | value 1    | value 2    |      origin: in value 1
                   ^ origin     ^ address         address: refused, though the map has a value there
"""

from __future__ import annotations

from typing import Final

from backends import abi
from backends.writer import Value, Writer
from ir.map_layout import CPU_STRIDE, ELEMENT_STRIDE, VALUE_SIZE, VALUE_STRIDE

IN_SEGMENT: Final = "bpfc.helpers.in_segment"
_ANY_VALUE: Final = 2  # beside SEGMENT_WRITABLE: what reaches over several values is right


def in_segment(w: Writer, address: Value, size: Value, writes: bool, any_value: bool = False) -> Value:
    """Whether [address, address + size) lies in one segment (i1), and in one value where that is a map's unless
    `any_value`; needs the part IN_SEGMENT.
    """
    flags = w.i64(abi.SEGMENT_WRITABLE * writes | _ANY_VALUE * any_value)
    return w.call("i1", IN_SEGMENT, w["run"], address, address, size, flags)


def in_segment_part(symbol: str = IN_SEGMENT) -> str:
    """The definition of `i1 symbol(run, origin, address, size, flags)`. An `origin` of 0 is the address itself."""
    numbers = tuple(("i64", name) for name in ("origin", "address", "size", "flags"))
    attributes = "internal noinline nounwind"
    w = Writer(symbol, ("ptr", "run"), *numbers, returns="i1", attributes=attributes)
    address, size, flags = w["address"], w["size"], w["flags"]
    origin = w["origin"].eq(0).choose(address, w["origin"])
    writes = flags & abi.SEGMENT_WRITABLE
    table = w["run"].load("ptr", abi.SEGMENTS)
    with w.count(0, w["run"].load("i64", abi.SEGMENT_COUNT)) as i:
        row = table.at(i * 24)
        start, end, has = row.load("i64"), row.load("i64", 8), row.load("i64", 16)
        with w.if_(_is_inside(address, size, start, end - start) & (has & writes).eq(writes)):
            map_ = has & ~abi.SEGMENT_WRITABLE
            with w.if_(map_.eq(0) | (flags & _ANY_VALUE).ne(0)):
                w.ret(1)
            value = _value_around(w, map_.to("ptr"), origin - start)
            value_size = map_.to("ptr").load("i32", VALUE_SIZE).to("i64")
            found = origin.uge(start) & origin.ult(end)
            with w.if_(found & _is_inside(address, size, start + value, value_size)):
                w.ret(1)
    w.ret(0)
    return w.text()


def _is_inside(address: Value, size: Value, start: Value, length: Value) -> Value:
    return size.ule(length) & (address - start).ule(length - size)


def _value_around(w: Writer, map_: Value, place: Value) -> Value:
    """Where the value begins that has byte `place` of a map's values, counted from the first."""
    cpu_stride = map_.load("i64", CPU_STRIDE)
    is_per_cpu = cpu_stride.ne(0)
    field = is_per_cpu.choose(w.i64(VALUE_STRIDE), ELEMENT_STRIDE)
    distance = map_.load("i32", field).to("i64")
    return place - place % is_per_cpu.choose(cpu_stride, -1) % distance
