"""A map as the code that works on it sees it: its numbers, constants when the map is known, loads from its
header when not.

The same emission gives both: `Shape(known)` for the maps of a program that is compiled, `Shape(None)` for
code that serves every map of a type (the host's own operations, maps found in maps).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

from backends.writer import INTEGERS, Value, Writer
from ir import map_layout as layout
from ir.kinds import MapType
from ir.map_layout import MapLayout, layout_of
from ir.maps import is_per_cpu, is_template
from ir.object import Map

INLINE_BYTES: Final = 128
_MULTIPLIER: Final = 0x9E3779B97F4A7C15


@final
@dataclass(frozen=True)
class Shape:
    """The numbers of one map (`known`) or of any map of `type`."""

    type: MapType
    known: Map | None = None

    @cached_property
    def layout(self) -> MapLayout | None:
        """The constant layout, when the map is known.

        Its `size` and `spares_offset` still depend on the number of cpus.
        """
        return layout_of(self.known) if self.known is not None else None

    @property
    def is_per_cpu(self) -> bool:
        """Whether a key has a value for each cpu."""
        return is_per_cpu(self.type)

    def number(self, w: Writer, map: Value, field: int) -> Value:
        """A 32-bit number of the header (layout.KEY_SIZE, ...), as i64."""
        constant = self.constant(field)
        return w.i64(constant) if constant is not None else map.load("i32", field).to("i64")

    def offset(self, w: Writer, map: Value, field: int) -> Value:
        """A 64-bit number of the header (layout.VALUES_OFFSET, ...)."""
        constant = self.constant(field)
        return w.i64(constant) if constant is not None else map.load("i64", field)

    def constant(self, field: int) -> int | None:
        """The number at a header offset, when it is known."""
        if self.known is None or self.layout is None:
            return None
        sizes = {
            layout.KEY_SIZE: layout.key_bytes(self.known),
            layout.VALUE_SIZE: layout.value_bytes(self.known),
            layout.VALUE_STRIDE: self.layout.value_stride,
            layout.ELEMENT_STRIDE: self.layout.element_stride,
        }
        if field in sizes or is_template(self.known):
            return sizes.get(field)
        return {
            layout.MAX_ENTRIES: self.known.max_entries or self.layout.elements,
            layout.BUCKET_MASK: self.layout.bucket_mask,
            layout.ELEMENTS: self.layout.elements,
            layout.CPU_STRIDE: self.layout.cpu_stride,
            layout.ELEMENTS_OFFSET: self.layout.elements_offset,
            layout.VALUES_OFFSET: self.layout.values_offset,
        }.get(field)

    def key_size(self, w: Writer, map: Value) -> Value:
        return self.number(w, map, layout.KEY_SIZE)

    def value_size(self, w: Writer, map: Value) -> Value:
        return self.number(w, map, layout.VALUE_SIZE)


def words(size: int) -> list[tuple[int, int]]:
    """(offset, size) of the machine words that make up `size` bytes, largest first."""
    found = []
    offset = 0
    for width in (8, 4, 2, 1):
        while size - offset >= width:
            found.append((offset, width))
            offset += width
    return found


def hash_key(w: Writer, key: Value, size: Value, constant: int | None, seed: Value) -> Value:
    """A 32-bit hash of a key.

    Each 8-byte word (the last one shorter) is multiplied into 128 bits and folded.
    """
    state = w.var("i64", seed)
    if constant is not None and constant <= INLINE_BYTES:
        for offset, width in _whole_words(constant):
            state.set(_mix(state.get() ^ _load_word(w, key, offset, width)))
    else:
        rest = size & ~7
        with w.count(0, rest, 8) as i:
            state.set(_mix(state.get() ^ key.load("i64", i, align=1)))
        tail = w.var("i64", 0)
        with w.count(rest, size) as i:
            tail.set(tail.get() | (key.load("i8", i).to("i64") << ((i - rest) << 3)))
        with w.if_(rest.ne(size)):
            state.set(_mix(state.get() ^ tail.get()))
    return state.get().to("i32")


def same_key(w: Writer, a: Value, b: Value, size: Value, constant: int | None) -> Value:
    """Whether two keys are equal (i1)."""
    if constant is not None and constant <= INLINE_BYTES:
        difference: Value | None = None
        for offset, width in words(constant):
            type = INTEGERS[width]
            found = (a.load(type, offset, align=1) ^ b.load(type, offset, align=1)).to("i64")
            difference = found if difference is None else difference | found
        return (difference or w.i64(0)).eq(0)
    same = w.var("i1", 1)
    rest = size & ~7
    with w.count(0, rest, 8) as i, w.if_(a.load("i64", i, align=1).ne(b.load("i64", i, align=1))):
        same.set(0)
        w.break_()
    with w.if_(same.get()), w.count(rest, size) as i, w.if_(a.load("i8", i).ne(b.load("i8", i))):
        same.set(0)
        w.break_()
    return same.get()


def copy_value(w: Writer, shape: Shape, map: Value, to: Value, source: Value) -> None:
    """Copy a value, but for the bytes of it that are no data: those stay as they are."""
    if shape.known is not None:
        if not shape.known.special:
            copy(w, to, source, shape.value_size(w, map), shape.constant(layout.VALUE_SIZE), align=8)
        for start, count in _data_of(shape.known):
            copy(w, to.at(start), source.at(start), w.i64(count), count, align=min(start & -start or 8, 8))
        return
    size = shape.value_size(w, map)
    with w.if_(map.load("i32", layout.SPECIAL + 4).eq(0), likely=True):
        copy(w, to, source, size, None, align=8)
    with w.if_(map.load("i32", layout.SPECIAL + 4).ne(0), likely=False), w.count(0, size) as i:
        kept = w.var("i1", 0)
        for number in range(layout.SPECIAL_MOST):
            offset, length = _special(map, number)
            kept.set(kept.get() | (i - offset).ult(length))
        with w.unless(kept.get()):
            to.store(source.load("i8", i), i, order="monotonic")


def clear_special(w: Writer, shape: Shape, map: Value, value: Value) -> None:
    """Zero the bytes of a new value that are no data."""
    if shape.known is not None:
        for start, size, _ in shape.known.special:
            clear_bytes(w, value.at(start), w.i64(size))
        return
    for number in range(layout.SPECIAL_MOST):
        offset, length = _special(map, number)
        clear_bytes(w, value.at(offset), length)


def lock_of(w: Writer, shape: Shape, map: Value, value: Value) -> Value:
    """The place of a value's lock; null when values have none."""
    if shape.known is not None:
        return w.null() if shape.known.lock is None else value.at(shape.known.lock)
    offset, size = map.load("i32", layout.SPECIAL), map.load("i32", layout.SPECIAL + 4)
    return (size & layout.SPECIAL_LOCK).ne(0).choose(value.at(offset.to("i64")), w.null())


def _special(map: Value, number: int) -> tuple[Value, Value]:
    """(offset, size) of a field that is no data, i64; a size of 0 when there are not so many."""
    offset, size = (map.load("i32", layout.SPECIAL + 8 * number + at).to("i64") for at in (0, 4))
    return offset, size & (layout.SPECIAL_LOCK - 1)


def _data_of(map: Map) -> list[tuple[int, int]]:
    """(offset, size) of the parts of a value between those that are no data; nothing when all of it is."""
    found, start = [], 0
    for offset, size, _ in sorted(map.special):
        if offset > start:
            found.append((start, offset - start))
        start = offset + size
    if map.special and start < layout.value_bytes(map):
        found.append((start, layout.value_bytes(map) - start))
    return found


def copy(w: Writer, to: Value, source: Value, size: Value, constant: int | None, align: int = 1) -> None:
    """Copy bytes in 8-byte words that are each written at once; `to` is aligned to `align`.

    Nothing is left to memcpy: the code must also run where there is no C library.
    """
    if constant is not None and constant <= INLINE_BYTES:
        for offset, width in words(constant):
            value = source.load(INTEGERS[width], offset, align=1)
            aligned = min(align, width)
            to.store(value, offset, align=aligned, order="monotonic" if aligned == width else "")
        return
    order = "monotonic" if align >= 8 else ""
    rest = size & ~7
    with w.count(0, rest, 8) as i:
        to.store(source.load("i64", i, align=1), i, align=min(align, 8), order=order)
    with w.count(rest, size) as i:
        to.store(source.load("i8", i), i, order="monotonic")


def clear(w: Writer, to: Value, size: Value) -> None:
    """Zero bytes at an 8-byte aligned place; word by word, so that no memset is made of it."""
    rest = size & ~7
    with w.count(0, rest, 8) as i:
        to.store(w.i64(0), i, order="monotonic")
    with w.count(rest, size) as i:
        to.store(w.value("i8", 0), i, order="monotonic")


def clear_bytes(w: Writer, to: Value, size: Value) -> None:
    """Zero bytes anywhere."""
    with w.count(0, size) as i:
        to.store(w.value("i8", 0), i, order="monotonic")


def load_big_endian(w: Writer, place: Value, offset: int, width: int) -> Value:
    """`width` bytes as a big-endian number, i64; LLVM makes one load of it."""
    number = w.i64(0)
    for i in range(width):
        number = number | (place.load("i8", offset + i).to("i64") << 8 * (width - 1 - i))
    return number


def lock(w: Writer, place: Value) -> None:
    """Take a 32-bit spin lock."""
    with w.loop():
        w.break_if(place.exchange(w.i32(1), "acquire").eq(0), likely=True)
        with w.loop():
            w.break_if(place.load("i32", order="monotonic").eq(0))


def unlock(w: Writer, place: Value) -> None:
    """Give a spin lock back."""
    place.store(w.i32(0), order="release")


def _whole_words(size: int) -> list[tuple[int, int]]:
    return [(offset, min(8, size - offset)) for offset in range(0, size, 8)]


def _load_word(w: Writer, key: Value, offset: int, width: int) -> Value:
    """Up to 8 bytes as one number, the same however the loop over bytes of `hash_key` makes it."""
    if width == 8:
        return key.load("i64", offset, align=1)
    number = w.i64(0)
    for i in range(width):
        number = number | (key.load("i8", offset + i).to("i64") << 8 * i)
    return number


def _mix(word: Value) -> Value:
    product = word.to("i128") * _MULTIPLIER
    return product.to("i64") ^ (product >> 64).to("i64")
