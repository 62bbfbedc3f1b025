"""Operations of bloom filters: `push` sets the bits of a value's hashes, `peek` tells whether all are set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL, ENOENT, EOPNOTSUPP
from typing import Final

from backends.maps.operation import Operation, refuse
from backends.maps.shape import Shape, hash_key
from backends.writer import Value, Writer
from ir import map_layout as layout

DEFAULT_HASHES: Final = 5


def push(w: Writer, shape: Shape) -> None:
    """Add *value; flags must be BPF_ANY."""
    with w.if_(w["flags"].ne(0), likely=False):
        w.ret(-EINVAL)
    with _bits(w, shape) as (word, bit):
        word.exchange(bit, "monotonic", "or")
    w.ret(0)


def peek(w: Writer, shape: Shape) -> None:
    """0 when *value may be in, -ENOENT when it certainly is not."""
    with _bits(w, shape) as (word, bit), w.if_((word.load("i64", order="monotonic") & bit).eq(0)):
        w.ret(-ENOENT)
    w.ret(0)


@contextmanager
def _bits(w: Writer, shape: Shape) -> Iterator[tuple[Value, Value]]:
    map = w["map"]
    mask = map.load("i32", layout.BUCKET_MASK)
    asked = map.load("i64", layout.EXTRA) & 0xF
    hashes = asked.eq(0).choose(w.i64(DEFAULT_HASHES), asked)
    seed = map.load("i64", layout.SEED)
    size, constant = shape.value_size(w, map), shape.constant(layout.VALUE_SIZE)
    with w.count(0, hashes) as i:
        number = (hash_key(w, w["value"], size, constant, seed + i) & mask).to("i64")
        yield map.at(layout.DATA).at((number >> 6) << 3), w.i64(1) << (number & 63)


OPERATIONS: Final = {
    "push": Operation(push),
    "peek": Operation(peek),
    "pop": refuse(EOPNOTSUPP),
    "update": refuse(EINVAL),
    "delete": refuse(EOPNOTSUPP),
}
