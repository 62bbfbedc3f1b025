"""Operations of longest-prefix-match tries: a binary trie of nodes, each a prefix; inner nodes hold no value.

              root                      a node: prefix length n, key bytes, value
             /    \\                     child 0 / 1: the prefixes that go on with bit n = 0 / 1
       10.0/16    inner 192.0/10

A child is named by an entry {place, prefix length}, so that the next bit to look at is known before the child
is. Readers take no lock; a writer holds the map's. A freed node may be used again at once, so freeing counts
`generation` up and a reader that saw it change starts again.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EEXIST, EINVAL, ENOENT, ENOSPC
from typing import Final, final

from backends.maps.operation import Operation, refuse_flags
from backends.maps.shape import Shape, copy, load_big_endian, lock, unlock
from backends.writer import Value, Variable, Writer
from ir import map_layout as layout
from ir.map_layout import NODE_CHILD, NODE_KEY, NODE_KIND, NODE_PREFIX
from ir.maps import UpdateFlag

ROOT: Final = layout.HEAD
FREE: Final = layout.TAIL
LIVE: Final = 1
INNER: Final = 2
_IN_REGISTERS: Final = 16


def lookup(w: Writer, shape: Shape) -> None:
    """The value of the longest prefix that *key matches, or null."""
    map, key = w["map"], w["key"]
    wanted = key.load("i32", align=1).to("i64")
    with w.if_(wanted.ugt(_bits(w, shape)), likely=False):
        w.ret(w.null())
    bits = KeyBits(w, shape, key)
    best = w.var("ptr", 0)
    with w.loop():
        generation = map.load("i32", layout.GENERATION, order="acquire")
        best.set(0)
        entry = w.var("i64", map.load("i64", ROOT, order="acquire"))
        with w.loop():
            w.break_if(entry.get().eq(0))
            node, prefix = node_of(w, entry.get()), entry.get() >> 32
            w.break_if(prefix.ugt(wanted))
            w.break_if(bits.shared(node, prefix).ult(prefix))
            best.set(node.load("i32", NODE_KIND).eq(LIVE).choose(node, best.get()))
            entry.set(child_of(node, bits.at(prefix)).load("i64", order="acquire"))
        w.do("fence acquire")
        w.break_if(map.load("i32", layout.GENERATION, order="monotonic").eq(generation), likely=True)
    with w.if_(best.get().eq(0)):
        w.ret(w.null())
    w.ret(_value(w, shape, best.get()))


def locate(w: Writer, shape: Shape) -> None:
    """As lookup, for the host."""
    lookup(w, shape)


def update(w: Writer, shape: Shape) -> None:
    """Insert or replace the prefix *key: 0, -EINVAL, -EEXIST, -ENOENT, -ENOSPC."""
    map, key = w["map"], w["key"]
    refuse_flags(w, w["flags"])
    wanted = key.load("i32", align=1).to("i64")
    with w.if_(wanted.ugt(_bits(w, shape)), likely=False):
        w.ret(-EINVAL)
    lock(w, map.at(layout.LOCK))
    at = _descend(w, shape, wanted)
    entry, common = at.entry.get(), at.common.get()
    node = node_of(w, entry)
    is_same = entry.ne(0) & (entry >> 32).eq(wanted) & common.eq(wanted)
    had = is_same & node.load("i32", NODE_KIND).eq(LIVE)
    _check_presence(w, had)
    new = _new_node(w, shape)
    _fill(w, shape, new, wanted)
    with w.if_(entry.eq(0)):
        _publish(at.slot.get(), _entry(w, new, wanted))
        _done(w, 0)
    with w.if_(is_same):
        for child in (NODE_CHILD, NODE_CHILD + 8):
            new.store(node.load("i64", child), child)
        _publish(at.slot.get(), _entry(w, new, wanted))
        _free(w, node)
        _done(w, 0)
    with w.if_(common.eq(wanted)):
        child_of(new, bit_of(w, node.at(NODE_KEY - 4), common)).store(entry)
        _publish(at.slot.get(), _entry(w, new, wanted))
        _done(w, 0)
    inner = _new_node(w, shape)
    inner.store(common.to("i32"), NODE_PREFIX)
    inner.store(w.i32(INNER), NODE_KIND)
    copy(w, inner.at(NODE_KEY), node.at(NODE_KEY), shape.key_size(w, map) - 4, _data_bytes(shape))
    side = bit_of(w, key, common)
    child_of(inner, side).store(_entry(w, new, wanted))
    child_of(inner, side ^ 1).store(entry)
    _publish(at.slot.get(), _entry(w, inner, common))
    _done(w, 0)


def delete(w: Writer, shape: Shape) -> None:
    """Take the prefix *key out: 0, -EINVAL, -ENOENT."""
    map, key = w["map"], w["key"]
    wanted = key.load("i32", align=1).to("i64")
    with w.if_(wanted.ugt(_bits(w, shape)), likely=False):
        w.ret(-EINVAL)
    lock(w, map.at(layout.LOCK))
    at = _descend(w, shape, wanted)
    entry = at.entry.get()
    with w.if_(entry.eq(0)):
        _done(w, ENOENT)
    node = node_of(w, entry)
    is_here = (entry >> 32).eq(wanted) & at.common.get().eq(wanted)
    with w.unless(is_here & node.load("i32", NODE_KIND).eq(LIVE)):
        _done(w, ENOENT)
    map.store(map.load("i64", layout.COUNT) - 1, layout.COUNT)
    left, right = node.load("i64", NODE_CHILD), node.load("i64", NODE_CHILD + 8)
    with w.if_(left.ne(0) & right.ne(0)):
        node.store(w.i32(INNER), NODE_KIND, order="release")
        _done(w, 0)
    is_leaf = left.eq(0) & right.eq(0)
    with w.if_(is_leaf & at.parent.get().ne(0)):
        above = node_of(w, at.parent.get())
        with w.if_(above.load("i32", NODE_KIND).eq(INNER)):
            first = above.load("i64", NODE_CHILD)
            _publish(at.parent_slot.get(), first.eq(entry).choose(above.load("i64", NODE_CHILD + 8), first))
            _free(w, above)
            _free(w, node)
            _done(w, 0)
    _publish(at.slot.get(), left.eq(0).choose(right, left))
    _free(w, node)
    _done(w, 0)


@final
@dataclass(frozen=True, slots=True)
class _Place:
    """Where a key belongs: the entry there (0: none) and its slot, the bits it shares with the key, its
    parent.
    """

    slot: Variable
    entry: Variable
    common: Variable
    parent_slot: Variable
    parent: Variable


def _descend(w: Writer, shape: Shape, wanted: Value) -> _Place:
    map, key = w["map"], w["key"]
    bits = KeyBits(w, shape, key)
    at = _Place(
        w.var("ptr", map.at(ROOT)), w.var("i64", 0), w.var("i64", 0), w.var("ptr", 0), w.var("i64", 0)
    )
    with w.loop():
        at.entry.set(at.slot.get().load("i64"))
        entry = at.entry.get()
        w.break_if(entry.eq(0))
        node, prefix = node_of(w, entry), entry >> 32
        limit = prefix.ult(wanted).choose(prefix, wanted)
        shared = bits.shared(node, limit)
        at.common.set(shared.ult(limit).choose(shared, limit))
        w.break_if(at.common.get().ne(prefix) | prefix.eq(wanted))
        at.parent.set(entry)
        at.parent_slot.set(at.slot.get())
        at.slot.set(child_of(node, bits.at(prefix)))
    return at


def _check_presence(w: Writer, had: Value) -> None:
    map, flags = w["map"], w["flags"]
    with w.if_(had & (flags & UpdateFlag.NOEXIST).ne(0)):
        _done(w, EEXIST)
    with w.unless(had):
        with w.if_((flags & UpdateFlag.EXIST).ne(0)):
            _done(w, ENOENT)
        count = map.load("i64", layout.COUNT)
        with w.if_(count.uge(map.load("i32", layout.MAX_ENTRIES).to("i64"))):
            _done(w, ENOSPC)
        map.store(count + 1, layout.COUNT)


def _fill(w: Writer, shape: Shape, node: Value, prefix: Value) -> None:
    map = w["map"]
    node.store(prefix.to("i32"), NODE_PREFIX)
    node.store(w.i32(LIVE), NODE_KIND)
    copy(w, node.at(NODE_KEY), w["key"].at(4), shape.key_size(w, map) - 4, _data_bytes(shape))
    value = _value(w, shape, node)
    copy(w, value, w["value"], shape.value_size(w, map), shape.constant(layout.VALUE_SIZE), align=8)


def _new_node(w: Writer, shape: Shape) -> Value:
    """A node without children; there always is one, because the entries were counted."""
    map = w["map"]
    node = w.var("ptr", 0)
    free = map.load("i64", FREE)
    with w.if_(free.ne(0)):
        node.set(map.at(free))
        map.store(node.get().load("i64", NODE_CHILD), FREE)
    with w.if_(free.eq(0)):
        fresh = map.load("i32", layout.FRESH) + 1
        map.store(fresh, layout.FRESH)
        stride = shape.number(w, map, layout.ELEMENT_STRIDE)
        node.set(map.at(layout.DATA).at(fresh.to("i64") * stride))
    for child in (NODE_CHILD, NODE_CHILD + 8):
        node.get().store(w.i64(0), child)
    return node.get()


def _free(w: Writer, node: Value) -> None:
    map = w["map"]
    map.store(map.load("i32", layout.GENERATION) + 1, layout.GENERATION, order="release")
    w.do("fence release")
    node.store(w.i32(0), NODE_KIND, order="monotonic")
    node.store(map.load("i64", FREE), NODE_CHILD, order="monotonic")
    map.store(node.to("i64") - map.to("i64"), FREE)


def _publish(slot: Value, entry: Value) -> None:
    slot.store(entry, order="release")


def _done(w: Writer, errno: int) -> None:
    unlock(w, w["map"].at(layout.LOCK))
    w.ret(-errno)


def _bits(w: Writer, shape: Shape) -> Value:
    return (shape.key_size(w, w["map"]) - 4) << 3


def _data_bytes(shape: Shape) -> int | None:
    size = shape.constant(layout.KEY_SIZE)
    return None if size is None else size - 4


def _entry(w: Writer, node: Value, prefix: Value) -> Value:
    """How a parent names `node`."""
    return (node.to("i64") - w["map"].to("i64")) >> 3 | prefix << 32


def node_of(w: Writer, entry: Value) -> Value:
    """The node that an entry names; no node when the entry is 0."""
    return w["map"].at((entry & 0xFFFF_FFFF) << 3)


def child_of(node: Value, bit: Value) -> Value:
    """Where a node has the entry of what goes on with this bit."""
    return node.at(bit << 3)


def _value(w: Writer, shape: Shape, node: Value) -> Value:
    key = (shape.key_size(w, w["map"]) - 4 + 7) & ~7
    return node.at(NODE_KEY).at(key)


def bit_of(w: Writer, key: Value, number: Value) -> Value:
    """Bit `number` of a key's data (the most significant bit of the first byte is 0), i64."""
    byte = key.load("i8", (number >> 3) + 4).to("i64")
    return (byte >> (~number & 7)) & 1


@final
class KeyBits:
    """The data bits of a key, kept in registers when there are at most 128 and their number is known."""

    def __init__(self, w: Writer, shape: Shape, key: Value) -> None:
        self.w, self.key = w, key
        size = shape.constant(layout.KEY_SIZE)
        self.size = size - 4 if size is not None and size - 4 <= _IN_REGISTERS else 0
        self.words = self._load(key.at(4)) if self.size else []

    def at(self, number: Value) -> Value:
        """Bit `number`, i64; the bit after the last one may be anything."""
        if not self.words:
            return bit_of(self.w, self.key, number)
        word = self.words[0]
        if len(self.words) == 2:
            word = number.ult(64).choose(word, self.words[1])
        return (word << (number & 63)) >> 63

    def shared(self, node: Value, limit: Value) -> Value:
        """How many leading bits the key shares with a node's; only up to `limit` is certain."""
        if not self.words:
            return self._compared(node, limit)
        total: Value | None = None
        for number, (own, other) in reversed(
            list(enumerate(zip(self.words, self._load(node.at(NODE_KEY)), strict=True)))
        ):
            here = self.w.external("i64", "llvm.ctlz.i64", own ^ other, self.w.value("i1", 0)) + 64 * number
            total = here if total is None else own.eq(other).choose(total, here)
        assert total is not None
        return total

    def _load(self, place: Value) -> list[Value]:
        starts = range(0, self.size, 8)
        return [
            load_big_endian(self.w, place, start, min(8, self.size - start))
            << 8 * max(0, 8 - (self.size - start))
            for start in starts
        ]

    def _compared(self, node: Value, limit: Value) -> Value:
        w = self.w
        common = w.var("i64", limit)
        with w.count(0, (limit + 7) >> 3) as i:
            difference = node.load("i8", i + NODE_KEY) ^ self.key.load("i8", i + 4)
            with w.if_(difference.ne(0)):
                zeros = w.external("i64", "llvm.ctlz.i64", difference.to("i64"), w.value("i1", 1))
                common.set((i << 3) + zeros - 56)
                w.break_()
        return common.get()


OPERATIONS: Final = {
    "lookup": Operation(lookup),
    "locate": Operation(locate),
    "update": Operation(update),
    "delete": Operation(delete),
}
