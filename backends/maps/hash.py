"""Operations of hash maps: plain, per-cpu, LRU and of maps.

Readers take no lock. A writer holds the lock of one bucket (a bit of its word). Updating a key of a plain
hash puts a new element in the place of the old, as Linux does, so a reader sees the old value or the new one,
and what was looked up before keeps the old; per-cpu and LRU values are overwritten in place. Elements are
preallocated: they are reused, never unmapped.
"""

from __future__ import annotations

from errno import E2BIG, EEXIST, EINVAL, ENOENT, ENOSPC
from typing import Final

from backends.maps import elements
from backends.maps.chain import (
    bucket_number,
    bucket_place,
    element_at,
    find,
    find_locked,
    hash_of,
    key_offset,
    lock_bucket,
    release,
    unlink,
    value_of,
)
from backends.maps.operation import (
    Operation,
    borrow_stack,
    call_back,
    copy_locked,
    may_lock,
    of_cpu,
    refuse_flags,
    refuse_locking_flags,
    return_stack,
    this_cpu,
)
from backends.maps.shape import Shape, clear, clear_special, copy, copy_value
from backends.writer import Value, Writer
from ir import map_layout as layout
from ir.kinds import MapType
from ir.map_layout import BUCKET_LOCKED, CHAIN_END
from ir.maps import LRU_HASHES, STORAGES, UpdateFlag

_LARGEST_KEY: Final = 4096
PARTS: Final = (elements.TAKE, elements.GIVE)


def lookup(w: Writer, shape: Shape) -> None:
    """The value of *key on this cpu, or null."""
    _lookup(w, shape, this_cpu(w) if shape.is_per_cpu else None, marks=True)


def lookup_cpu(w: Writer, shape: Shape) -> None:
    """As lookup, of another cpu."""
    _lookup(w, shape, w["cpu"], marks=True)


def locate(w: Writer, shape: Shape) -> None:
    """As lookup, of cpu 0, and the LRU does not notice."""
    _lookup(w, shape, None, marks=False)


def lookup_map(w: Writer, shape: Shape) -> None:
    """The map that the value of *key names, or null."""
    number = find(w, shape, w["map"], w["key"], hash_of(w, shape, w["map"], w["key"])).get()
    with w.if_(number.eq(0), likely=False):
        w.ret(w.null())
    w.ret(value_of(w, shape, w["map"], number).load("i64").to("ptr"))


def update(w: Writer, shape: Shape) -> None:
    """Insert or change *key: 0, -EEXIST, -ENOENT, -E2BIG."""
    map, key = w["map"], w["key"]
    if may_lock(shape):
        refuse_locking_flags(w, shape, map, w["flags"])
    else:
        refuse_flags(w, w["flags"])
    hash = hash_of(w, shape, map, key)
    if may_lock(shape):
        _update_locked(w, shape, hash)
    new = _new_before_locking(w, shape, hash)
    place = bucket_place(map, bucket_number(w, shape, map, hash))
    first = lock_bucket(w, place)
    found, holder = find_locked(w, shape, map, key, first, place)
    number = found.get()
    with w.if_(number.ne(0)):
        with w.if_((w["flags"] & UpdateFlag.NOEXIST).ne(0)):
            _leave(w, shape, place, first, new, EEXIST)
        if shape.is_per_cpu or shape.type in LRU_HASHES:
            _set_value(w, shape, number)
            _mark_used(w, shape, element_at(w, shape, map, number))
            _leave(w, shape, place, first, new, 0)
        else:
            _replace(w, shape, place, first, number, holder.get())
    with w.if_((w["flags"] & UpdateFlag.EXIST).ne(0)):
        _leave(w, shape, place, first, new, ENOENT)
    _insert(w, shape, place, first, hash, new)


def delete(w: Writer, shape: Shape) -> None:
    """Take *key out: 0 or -ENOENT."""
    map, key = w["map"], w["key"]
    place = bucket_place(map, bucket_number(w, shape, map, hash_of(w, shape, map, key)))
    first = lock_bucket(w, place)
    found, holder = find_locked(w, shape, map, key, first, place)
    number = found.get()
    with w.if_(number.eq(0)):
        release(place, first)
        w.ret(-ENOENT)
    element = element_at(w, shape, map, number)
    unlink(w, place, holder.get(), first, element.load("i32", layout.ELEMENT_NEXT))
    if shape.type in LRU_HASHES:
        before = element.at(layout.ELEMENT_USED).exchange(w.i32(elements.FREE), "acq_rel")
        with w.if_(before.eq(elements.FREE)):
            w.ret(0)
    elements.give(w, map, this_cpu(w), number)
    w.ret(0)


def each(w: Writer, shape: Shape) -> None:
    """Call back with (map, key, value, context) for each element, bucket by bucket, until it returns non-zero.

    The callback sees a copy of the key: the key itself stands beside what the map is made of.
    """
    map = w["map"]
    key_size = shape.key_size(w, map)
    with w.if_(w["flags"].ne(0) | key_size.ugt(_LARGEST_KEY)):
        w.ret(-EINVAL)
    key, top = borrow_stack(w, key_size)
    visited = w.var("i64", 0)
    stopped = w.var("i1", 0)
    with w.count(0, shape.number(w, map, layout.BUCKET_MASK) + 1) as bucket:
        number = w.var("i32", 0)
        number.set(bucket_place(map, bucket).load("i32", order="acquire") & ~BUCKET_LOCKED)
        with w.loop():
            w.break_if(number.get().eq(0) | number.get().slt(0))
            element = element_at(w, shape, map, number.get())
            next = element.load("i32", layout.ELEMENT_NEXT, order="acquire")
            value = of_cpu(w, shape, map, value_of(w, shape, map, number.get()), this_cpu(w))
            visited.set(visited.get() + 1)
            copy(w, key, element.at(key_offset(shape)), key_size, shape.constant(layout.KEY_SIZE))
            stopped.set(call_back(w, w["callback"], map, key, value, w["context"]).ne(0))
            w.break_if(stopped.get())
            number.set(next)
        w.break_if(stopped.get())
    return_stack(w, top)
    w.ret(visited.get())


def collect(w: Writer, shape: Shape) -> None:
    """Copy whole buckets of (key, value of each cpu) to `out` while they fit, from `bucket`; *next becomes
    the first left out.

    -ENOSPC when not even the first bucket that has elements fits.
    """
    map, room = w["map"], w["room"]
    key_size, value_size = shape.key_size(w, map), shape.value_size(w, map)
    copied = w.var("i64", 0)
    out = w.var("ptr", w["out"])
    buckets = shape.number(w, map, layout.BUCKET_MASK) + 1
    bucket = w.var("i64", w["bucket"])
    with w.loop():
        w["next"].store(bucket.get())
        w.break_if(bucket.get().uge(buckets))
        place = bucket_place(map, bucket.get())
        first = lock_bucket(w, place)
        length = _chain_length(w, shape, first)
        with w.if_((copied.get() + length).ugt(room)):
            release(place, first)
            with w.if_(copied.get().eq(0)):
                w.ret(-ENOSPC)
            w.break_()
        number = w.var("i32", first)
        with w.loop():
            w.break_if(number.get().eq(0) | number.get().slt(0))
            element = element_at(w, shape, map, number.get())
            copy(w, out.get(), element.at(key_offset(shape)), key_size, None)
            out.set(out.get().at(key_size))
            with w.count(0, map.load("i32", layout.CPUS).to("i64") if shape.is_per_cpu else 1) as cpu:
                value = of_cpu(w, shape, map, value_of(w, shape, map, number.get()), cpu)
                copy(w, out.get(), value, value_size, None)
                out.set(out.get().at(value_size))
            copied.set(copied.get() + 1)
            number.set(element.load("i32", layout.ELEMENT_NEXT))
        release(place, first)
        bucket.set(bucket.get() + 1)
    w.ret(copied.get())


def _lookup(w: Writer, shape: Shape, cpu: Value | None, marks: bool) -> None:
    map, key = w["map"], w["key"]
    number = find(w, shape, map, key, hash_of(w, shape, map, key)).get()
    with w.if_(number.eq(0), likely=False):
        w.ret(w.null())
    if marks:
        _mark_used(w, shape, element_at(w, shape, map, number))
    value = value_of(w, shape, map, number)
    w.ret(value if cpu is None else of_cpu(w, shape, map, value, cpu))


def _mark_used(w: Writer, shape: Shape, element: Value) -> None:
    if shape.type not in LRU_HASHES:
        return
    place = element.at(layout.ELEMENT_USED)
    with w.if_(place.load("i32", order="monotonic").ne(elements.USED), likely=False):
        place.compare_exchange(w.i32(elements.LINKED), w.i32(elements.USED), "monotonic")


def _update_locked(w: Writer, shape: Shape, hash: Value) -> None:
    """With BPF_F_LOCK: change the value that is there in place, under its own lock."""
    with w.if_((w["flags"] & UpdateFlag.LOCK).ne(0), likely=False):
        number = find(w, shape, w["map"], w["key"], hash).get()
        with w.if_(number.ne(0)):
            with w.if_((w["flags"] & UpdateFlag.NOEXIST).ne(0)):
                w.ret(-EEXIST)
            copy_locked(w, shape, w["map"], value_of(w, shape, w["map"], number))
            w.ret(0)


def _new_before_locking(w: Writer, shape: Shape, hash: Value) -> Value:
    """An element for the key if an LRU map lacks it, else 0: eviction takes another bucket's lock, so it
    comes first.
    """
    new = w.var("i32", 0)
    if shape.type in LRU_HASHES:
        known = find(w, shape, w["map"], w["key"], hash).get()
        with w.if_(known.eq(0) & (w["flags"] & UpdateFlag.EXIST).eq(0)):
            new.set(w.call("i32", elements.EVICT, w["map"], this_cpu(w)))
    return new.get()


def _leave(w: Writer, shape: Shape, place: Value, first: Value, new: Value, errno: int) -> None:
    release(place, first)
    if shape.type in LRU_HASHES:
        with w.if_(new.ne(0)):
            elements.give(w, w["map"], this_cpu(w), new)
    w.ret(-errno)


def _replace(w: Writer, shape: Shape, place: Value, first: Value, old: Value, holder: Value) -> None:
    map = w["map"]
    new, spare = elements.take_spare(w, map, this_cpu(w))
    _fill(w, shape, new)
    next = element_at(w, shape, map, old).load("i32", layout.ELEMENT_NEXT)
    element_at(w, shape, map, new).store(next, layout.ELEMENT_NEXT, order="monotonic")
    holder.store(new, order="release")
    with w.if_(holder.ne(place)):
        release(place, first)
    spare.store(old, order="release")
    w.ret(0)


def _insert(w: Writer, shape: Shape, place: Value, first: Value, hash: Value, taken: Value) -> None:
    map = w["map"]
    is_lru = shape.type in LRU_HASHES
    new = w.var("i32", taken)
    with w.if_(taken.eq(0), likely=not is_lru):
        new.set(elements.take(w, map, this_cpu(w)))
    with w.if_(new.get().eq(0), likely=False):
        release(place, first)
        w.ret(-E2BIG)
    _fill(w, shape, new.get())
    element = element_at(w, shape, map, new.get())
    end = bucket_number(w, shape, map, hash) | CHAIN_END
    element.store(first.eq(0).choose(end, first), layout.ELEMENT_NEXT, order="monotonic")
    if is_lru:
        element.store(hash, layout.ELEMENT_HASH)
        element.store(w.i32(elements.LINKED), layout.ELEMENT_USED, order="release")
    release(place, new.get())
    w.ret(0)


def _fill(w: Writer, shape: Shape, number: Value) -> None:
    map = w["map"]
    element = element_at(w, shape, map, number)
    copy(
        w,
        element.at(key_offset(shape)),
        w["key"],
        shape.key_size(w, map),
        shape.constant(layout.KEY_SIZE),
        align=8,
    )
    if shape.is_per_cpu:
        with w.count(0, map.load("i32", layout.CPUS).to("i64")) as cpu:
            clear(w, of_cpu(w, shape, map, value_of(w, shape, map, number), cpu), shape.value_size(w, map))
    clear_special(w, shape, map, value_of(w, shape, map, number))
    _set_value(w, shape, number)


def _set_value(w: Writer, shape: Shape, number: Value) -> None:
    map = w["map"]
    value = of_cpu(w, shape, map, value_of(w, shape, map, number), this_cpu(w))
    copy_value(w, shape, map, value, w["value"])


def _chain_length(w: Writer, shape: Shape, first: Value) -> Value:
    number = w.var("i32", first)
    length = w.var("i64", 0)
    with w.loop():
        w.break_if(number.get().eq(0) | number.get().slt(0))
        length.set(length.get() + 1)
        number.set(element_at(w, shape, w["map"], number.get()).load("i32", layout.ELEMENT_NEXT))
    return length.get()


def _operations(type: MapType) -> dict[str, Operation]:
    parts = (*PARTS, elements.EVICT) if type in LRU_HASHES else PARTS
    return {
        "lookup": Operation(lookup_map if type is MapType.HASH_OF_MAPS else lookup, is_small=True),
        "lookup_cpu": Operation(lookup_cpu),
        "locate": Operation(locate),
        "update": Operation(update, parts=parts),
        "delete": Operation(delete, parts=parts),
        "each": Operation(each),
        "collect": Operation(collect),
    }


HASH_OPERATIONS: Final = {
    type: _operations(type)
    for type in (
        MapType.HASH,
        MapType.PERCPU_HASH,
        MapType.LRU_HASH,
        MapType.LRU_PERCPU_HASH,
        MapType.HASH_OF_MAPS,
        MapType.DEVMAP_HASH,
        MapType.SOCKHASH,
        *STORAGES,
    )
}
