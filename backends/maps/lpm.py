"""Operations of longest-prefix-match tries: a binary trie of nodes, each a prefix; inner nodes hold no value.

              root                      a node: prefix length n, key bytes, value
             /    \\                     child 0 / 1: the prefixes that go on with bit n = 0 / 1
       10.0/16    inner 192.0/10

Readers take no lock; a writer holds the map's. A freed node may be used again at once, so freeing counts `generation` up and a
reader that saw it change starts again.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT, ENOSPC
from typing import Final

from backends.maps.operation import Operation, refuse_flags
from backends.maps.shape import INLINE_BYTES, Shape, copy, load_big_endian, lock, unlock, words
from backends.writer import Value, Variable, Writer
from ir import map_layout as layout
from ir.map_layout import NODE_CHILD, NODE_KEY, NODE_KIND, NODE_PREFIX
from ir.maps import UpdateFlag

ROOT: Final = layout.HEAD
FREE: Final = layout.TAIL
LIVE: Final = 1
INNER: Final = 2


def lookup(w: Writer, shape: Shape) -> None:
    """The value of the longest prefix that *key matches, or null."""
    map, key = w["map"], w["key"]
    limit = _bits(w, shape)
    wanted = key.load("i32", align=1).to("i64")
    with w.if_(wanted.ugt(limit), likely=False):
        w.ret(w.null())
    best = w.var("i32", 0)
    with w.loop():
        generation = map.load("i32", layout.GENERATION, order="acquire")
        best.set(0)
        number = w.var("i32", map.load("i32", ROOT, order="acquire"))
        with w.loop():
            w.break_if(number.get().eq(0))
            node = _node(w, shape, number.get())
            prefix = node.load("i32", NODE_PREFIX).to("i64")
            common = _common_bits(w, shape, node, key, prefix, wanted)
            w.break_if(common.ult(prefix))
            with w.if_(node.load("i32", NODE_KIND).eq(LIVE)):
                best.set(number.get())
            w.break_if(prefix.uge(wanted))
            number.set(_child(w, node, _bit(w, key, prefix)).load("i32", order="acquire"))
        w.do("fence acquire")
        w.break_if(map.load("i32", layout.GENERATION, order="monotonic").eq(generation), likely=True)
    with w.if_(best.get().eq(0)):
        w.ret(w.null())
    w.ret(_value(w, shape, _node(w, shape, best.get())))


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
    place, number, common = _descend(w, shape, wanted)
    node = _node(w, shape, number.get())
    prefix = number.get().eq(0).choose(w.i64(0), node.load("i32", NODE_PREFIX).to("i64"))
    is_same = number.get().ne(0) & prefix.eq(wanted) & common.get().eq(wanted)
    had = is_same & node.load("i32", NODE_KIND).eq(LIVE)
    _check_presence(w, had)
    new_number = _new_node(w, shape)
    new = _node(w, shape, new_number)
    _fill(w, shape, new, wanted)
    with w.if_(number.get().eq(0)):
        _publish(w, place.get(), new_number)
        _done(w, 0)
    with w.if_(is_same):
        new.store(node.load("i64", NODE_CHILD, align=4), NODE_CHILD, align=4)
        _publish(w, place.get(), new_number)
        _free(w, shape, number.get())
        _done(w, 0)
    with w.if_(common.get().eq(wanted)):
        _child(w, new, _bit(w, node.at(NODE_KEY - 4), common.get())).store(number.get())
        _publish(w, place.get(), new_number)
        _done(w, 0)
    inner_number = _new_node(w, shape)
    inner = _node(w, shape, inner_number)
    inner.store(common.get().to("i32"), NODE_PREFIX)
    inner.store(w.i32(INNER), NODE_KIND)
    copy(w, inner.at(NODE_KEY), node.at(NODE_KEY), shape.key_size(w, map) - 4, _data_bytes(shape))
    side = _bit(w, key, common.get())
    _child(w, inner, side).store(new_number)
    _child(w, inner, side ^ 1).store(number.get())
    _publish(w, place.get(), inner_number)
    _done(w, 0)


def delete(w: Writer, shape: Shape) -> None:
    """Take the prefix *key out: 0, -EINVAL, -ENOENT."""
    map, key = w["map"], w["key"]
    wanted = key.load("i32", align=1).to("i64")
    with w.if_(wanted.ugt(_bits(w, shape)), likely=False):
        w.ret(-EINVAL)
    lock(w, map.at(layout.LOCK))
    place, number, common, parent, parent_place = _descend_for_delete(w, shape, wanted)
    with w.if_(number.get().eq(0)):
        _done(w, ENOENT)
    node = _node(w, shape, number.get())
    is_here = node.load("i32", NODE_PREFIX).to("i64").eq(wanted) & common.get().eq(wanted)
    with w.unless(is_here & node.load("i32", NODE_KIND).eq(LIVE)):
        _done(w, ENOENT)
    map.store(map.load("i64", layout.COUNT) - 1, layout.COUNT)
    left, right = node.load("i32", NODE_CHILD), node.load("i32", NODE_CHILD + 4)
    with w.if_(left.ne(0) & right.ne(0)):
        node.store(w.i32(INNER), NODE_KIND, order="release")
        _done(w, 0)
    above = _node(w, shape, parent.get())
    is_leaf = left.eq(0) & right.eq(0)
    with w.if_(is_leaf & parent.get().ne(0)):
        with w.if_(above.load("i32", NODE_KIND).eq(INNER)):
            first = above.load("i32", NODE_CHILD)
            other = first.eq(number.get()).choose(above.load("i32", NODE_CHILD + 4), first)
            _publish(w, parent_place.get(), other)
            _free(w, shape, parent.get())
            _free(w, shape, number.get())
            _done(w, 0)
    _publish(w, place.get(), left.eq(0).choose(right, left))
    _free(w, shape, number.get())
    _done(w, 0)


def _descend(w: Writer, shape: Shape, wanted: Value) -> tuple[Variable, Variable, Variable]:
    place, number, common, _, _ = _descend_for_delete(w, shape, wanted)
    return place, number, common


def _descend_for_delete(
    w: Writer, shape: Shape, wanted: Value
) -> tuple[Variable, Variable, Variable, Variable, Variable]:
    """(place that names it, the node where *key belongs, bits it shares with *key, its parent, place of that)."""
    map, key = w["map"], w["key"]
    place = w.var("ptr", map.at(ROOT))
    number = w.var("i32", 0)
    common = w.var("i64", 0)
    parent = w.var("i32", 0)
    parent_place = w.var("ptr", 0)
    with w.loop():
        number.set(place.get().load("i32"))
        w.break_if(number.get().eq(0))
        node = _node(w, shape, number.get())
        prefix = node.load("i32", NODE_PREFIX).to("i64")
        common.set(_common_bits(w, shape, node, key, prefix, wanted))
        w.break_if(common.get().ne(prefix) | prefix.eq(wanted))
        parent.set(number.get())
        parent_place.set(place.get())
        place.set(_child(w, node, _bit(w, key, prefix)))
    return place, number, common, parent, parent_place


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
    number = w.var("i32", map.load("i32", FREE))
    with w.if_(number.get().eq(0)):
        fresh = map.load("i32", layout.FRESH) + 1
        map.store(fresh, layout.FRESH)
        number.set(fresh)
    with w.if_(map.load("i32", FREE).ne(0)):
        map.store(_node(w, shape, number.get()).load("i32", NODE_CHILD), FREE)
    _node(w, shape, number.get()).store(w.i64(0), NODE_CHILD, align=4)
    return number.get()


def _free(w: Writer, shape: Shape, number: Value) -> None:
    map = w["map"]
    node = _node(w, shape, number)
    map.store(map.load("i32", layout.GENERATION) + 1, layout.GENERATION, order="release")
    w.do("fence release")
    node.store(w.i32(0), NODE_KIND, order="monotonic")
    node.store(map.load("i32", FREE), NODE_CHILD, order="monotonic")
    node.store(w.i32(0), NODE_CHILD + 4, order="monotonic")
    map.store(number, FREE)


def _publish(w: Writer, place: Value, number: Value) -> None:
    place.store(number, order="release")


def _done(w: Writer, errno: int) -> None:
    unlock(w, w["map"].at(layout.LOCK))
    w.ret(-errno)


def _bits(w: Writer, shape: Shape) -> Value:
    return (shape.key_size(w, w["map"]) - 4) << 3


def _data_bytes(shape: Shape) -> int | None:
    size = shape.constant(layout.KEY_SIZE)
    return None if size is None else size - 4


def _node(w: Writer, shape: Shape, number: Value) -> Value:
    return w["map"].at(layout.DATA).at(number.to("i64") * shape.number(w, w["map"], layout.ELEMENT_STRIDE))


def _child(w: Writer, node: Value, bit: Value) -> Value:
    return node.at(bit << 2)


def _value(w: Writer, shape: Shape, node: Value) -> Value:
    key = (shape.key_size(w, w["map"]) - 4 + 7) & ~7
    return node.at(NODE_KEY).at(key)


def _bit(w: Writer, key: Value, number: Value) -> Value:
    """Bit `number` of a key's data (the most significant bit of the first byte is 0), i64."""
    byte = key.load("i8", (number >> 3) + 4).to("i64")
    return (byte >> (~number & 7)) & 1


def _common_bits(w: Writer, shape: Shape, node: Value, key: Value, prefix: Value, wanted: Value) -> Value:
    """How many leading bits node and key share, at most as many as the shorter prefix has."""
    limit = prefix.ult(wanted).choose(prefix, wanted)
    size = _data_bytes(shape)
    if size is not None and size <= INLINE_BYTES // 4:
        return _common_bits_of_words(w, node.at(NODE_KEY), key.at(4), size, limit)
    common = w.var("i64", limit)
    with w.count(0, (limit + 7) >> 3) as i:
        difference = node.load("i8", i + NODE_KEY) ^ key.load("i8", i + 4)
        with w.if_(difference.ne(0)):
            common.set(_least(limit, (i << 3) + _leading_zeros(w, difference.to("i64")) - 56))
            w.break_()
    return common.get()


def _common_bits_of_words(w: Writer, a: Value, b: Value, size: int, limit: Value) -> Value:
    common = limit
    for offset, width in reversed(words(size)):
        difference = load_big_endian(w, a, offset, width) ^ load_big_endian(w, b, offset, width)
        here = _leading_zeros(w, difference) - 8 * (8 - width) + 8 * offset
        common = difference.eq(0).choose(common, here)
    return _least(limit, common)


def _least(a: Value, b: Value) -> Value:
    return a.ult(b).choose(a, b)


def _leading_zeros(w: Writer, number: Value) -> Value:
    """Of 64 bits; of 0, anything."""
    return w.external("i64", "llvm.ctlz.i64", number, w.value("i1", 1))


OPERATIONS: Final = {
    "lookup": Operation(lookup),
    "locate": Operation(locate),
    "update": Operation(update),
    "delete": Operation(delete),
}
