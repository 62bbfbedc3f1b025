"""What the body of a map in a file must be before anybody works on it, for maps whose elements refer to each other.

    check   read alone: every reference leads to an element, none to the same one as another, every key where it is
            looked for; `marks` then has a byte for each element, 1 when it is in use
    mend    what is in no chain and no trie is free, every cpu has its spare element, nobody holds a lock

Free lists are never read: a process that died may have had an element in its hands. Both take linear time.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from backends.maps import elements
from backends.maps.chain import bucket_number, bucket_place, element_at, hash_of, key_offset
from backends.maps.lpm import FREE, INNER, LIVE, ROOT, KeyBits, bit_of, child_of, node_of
from backends.maps.operation import Operation
from backends.maps.shape import Shape, clear
from backends.writer import Value, Variable, Writer
from ir import map_layout as layout
from ir.map_layout import BUCKET_LOCKED, CHAIN_END, NODE_CHILD, NODE_KEY, NODE_KIND, NODE_PREFIX
from ir.maps import LRU_HASHES


class Damage(IntEnum):
    """What `check` returns, if not 0."""

    NO_ELEMENT = 1
    TWICE = 2
    MISPLACED = 3
    ENDLESS = 4
    TOO_MANY = 5


def check_chains(w: Writer, shape: Shape) -> None:
    """Whether the chains of a hash are whole: 0 or a Damage."""
    map, marks = w["map"], w["marks"]
    last, used = _last_element(w, shape), w.var("i64", 0)
    clear(w, marks, last + 1)
    with w.count(0, shape.number(w, map, layout.BUCKET_MASK) + 1) as bucket:
        number = w.var("i32", bucket_place(map, bucket).load("i32") & ~BUCKET_LOCKED)
        with w.if_(number.get().ne(0)), w.loop():
            _refuse(w, (number.get() - 1).to("i64").uge(last), Damage.NO_ELEMENT)
            _mark(w, number.get().to("i64"))
            used.set(used.get() + 1)
            element = element_at(w, shape, map, number.get())
            hash = hash_of(w, shape, map, element.at(key_offset(shape)))
            _refuse(w, bucket_number(w, shape, map, hash).to("i64").ne(bucket), Damage.MISPLACED)
            if shape.type in LRU_HASHES:
                _refuse(w, element.load("i32", layout.ELEMENT_HASH).ne(hash), Damage.MISPLACED)
            number.set(element.load("i32", layout.ELEMENT_NEXT))
            with w.if_(number.get().slt(0)):
                _refuse(w, number.get().ne(bucket.to("i32") | CHAIN_END), Damage.ENDLESS)
                w.break_()
    _refuse(w, used.get().ugt(shape.number(w, map, layout.ELEMENTS)), Damage.TOO_MANY)
    w.ret(0)


def mend_chains(w: Writer, shape: Shape) -> None:
    """Free all elements without a mark, and unlock the buckets."""
    map, marks = w["map"], w["marks"]
    total, cpus = shape.number(w, map, layout.ELEMENTS), map.load("i32", layout.CPUS).to("i64")
    with w.count(0, cpus) as cpu:
        elements.line_of(map, cpu).store(w.i64(0), layout.SPARE_FREE)
    highest = _highest(w, total)
    map.store(highest.to("i32"), layout.FRESH)
    with w.count(1, _last_element(w, shape) + 1) as number:
        element = element_at(w, shape, map, number)
        is_free = marks.load("i8", number).eq(0)
        with w.if_(is_free & (number.ule(highest) | number.ugt(total))):
            if shape.type in LRU_HASHES:
                element.store(w.i32(elements.FREE), layout.ELEMENT_USED)
            elements.give(w, map, w.i64(0), number.to("i32"))
        if shape.type in LRU_HASHES:
            with w.unless(is_free):
                element.store(w.i32(elements.LINKED), layout.ELEMENT_USED)
    if layout.keeps_spares(shape.type):
        with w.count(0, cpus) as cpu:
            elements.line_of(map, cpu).store(elements.take(w, map, cpu), layout.SPARE_ELEMENT)
    with w.count(0, shape.number(w, map, layout.BUCKET_MASK) + 1) as bucket:
        place = bucket_place(map, bucket)
        with w.if_((place.load("i32") & BUCKET_LOCKED).ne(0)):
            place.store(place.load("i32") & ~BUCKET_LOCKED)
    w.ret(0)


def check_trie(w: Writer, shape: Shape) -> None:
    """Whether a trie is one: 0 or a Damage. Behind the marks is room for a number of 8 bytes for each node."""
    map, nodes = w["map"], shape.number(w, w["map"], layout.ELEMENTS)
    waiting = w["marks"].at((nodes + 8) & ~7)
    top, live = w.var("i64", 0), w.var("i64", 0)
    clear(w, w["marks"], nodes + 1)
    root = map.load("i64", ROOT)
    with w.if_(root.ne(0)):
        _enter(w, shape, root, live)
        waiting.store(root)
        top.set(1)
    with w.loop():
        w.break_if(top.get().eq(0))
        top.set(top.get() - 1)
        entry = waiting.load("i64", top.get() << 3)
        node, prefix = node_of(w, entry), entry >> 32
        bits = KeyBits(w, shape, node.at(NODE_KEY - 4))
        with w.count(0, 2) as side:
            below = child_of(node, side).load("i64")
            _refuse(w, below.eq(0) & node.load("i32", NODE_KIND).eq(INNER), Damage.MISPLACED)
            with w.if_(below.ne(0)):
                child = _enter(w, shape, below, live)
                _refuse(w, (below >> 32).ule(prefix), Damage.MISPLACED)
                is_other = bit_of(w, child.at(NODE_KEY - 4), prefix).ne(side)
                _refuse(w, bits.shared(child, prefix).ult(prefix) | is_other, Damage.MISPLACED)
                waiting.store(below, top.get() << 3)
                top.set(top.get() + 1)
    _refuse(w, live.get().ugt(shape.number(w, map, layout.MAX_ENTRIES)), Damage.TOO_MANY)
    w.ret(0)


def mend_trie(w: Writer, shape: Shape) -> None:
    """Free all nodes without a mark, and count the others."""
    map, stride = w["map"], shape.number(w, w["map"], layout.ELEMENT_STRIDE)
    highest, live = _highest(w, shape.number(w, map, layout.ELEMENTS)), w.var("i64", 0)
    map.store(highest.to("i32"), layout.FRESH)
    map.store(w.i64(0), FREE)
    with w.count(1, highest + 1) as number:
        place = number * stride + layout.DATA
        node, is_free = map.at(place), w["marks"].load("i8", number).eq(0)
        with w.if_(is_free):
            node.store(w.i32(0), NODE_KIND)
            node.store(map.load("i64", FREE), NODE_CHILD)
            map.store(place, FREE)
        with w.unless(is_free):
            live.set(live.get() + node.load("i32", NODE_KIND).eq(LIVE).to("i64"))
    map.store(live.get(), layout.COUNT)
    w.ret(0)


def _enter(w: Writer, shape: Shape, entry: Value, live: Variable) -> Value:
    """The node that an entry names, once it is one; `live` counts those with a value."""
    map, stride = w["map"], shape.number(w, w["map"], layout.ELEMENT_STRIDE)
    place, prefix = (entry & 0xFFFF_FFFF) << 3, entry >> 32
    offset = place - layout.DATA
    number = offset // stride
    is_none = place.ult(layout.DATA) | (offset % stride).ne(0) | number.eq(0)
    _refuse(w, is_none | number.ugt(shape.number(w, map, layout.ELEMENTS)), Damage.NO_ELEMENT)
    _mark(w, number)
    node = map.at(place)
    kind = node.load("i32", NODE_KIND)
    is_unlike_entry = node.load("i32", NODE_PREFIX).to("i64").ne(prefix)
    is_too_long = prefix.ugt((shape.key_size(w, map) - 4) << 3)
    _refuse(w, is_unlike_entry | is_too_long | (kind.ne(LIVE) & kind.ne(INNER)), Damage.MISPLACED)
    live.set(live.get() + kind.eq(LIVE).to("i64"))
    return node


def _mark(w: Writer, number: Value) -> None:
    """Note an element that is in use, once."""
    place = w["marks"].at(number)
    _refuse(w, place.load("i8").ne(0), Damage.TWICE)
    place.store(w.value("i8", 1))


def _highest(w: Writer, last: Value) -> Value:
    """The highest number up to `last` that has a mark: those above were never used, or are as good as that."""
    found = w.var("i64", 0)
    with w.count(1, last + 1) as number, w.if_(w["marks"].load("i8", number).ne(0)):
        found.set(number)
    return found.get()


def _last_element(w: Writer, shape: Shape) -> Value:
    total = shape.number(w, w["map"], layout.ELEMENTS)
    if not layout.keeps_spares(shape.type):
        return total
    return total + w["map"].load("i32", layout.CPUS).to("i64")


def _refuse(w: Writer, condition: Value, damage: Damage) -> None:
    with w.if_(condition, likely=False):
        w.ret(damage)


_PARTS: Final = (elements.TAKE, elements.GIVE)
TRIE_BODY: Final = {"check": Operation(check_trie), "mend": Operation(mend_trie)}
HASH_BODY: Final = {"check": Operation(check_chains), "mend": Operation(mend_chains, parts=_PARTS)}
