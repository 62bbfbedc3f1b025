"""The chains of a hash map: buckets of element numbers, searched without a lock, changed under the bucket's
lock.

    bucket  -> element -> element -> END | bucket number
            next        next

A reader that stands on an element while it is deleted and used again in another bucket notices at the end of
the chain: the end names the bucket. Then it starts again. (The kernel's hlist_nulls; a value once found is
never unmapped, only reused.)
"""

from __future__ import annotations

from backends.maps.shape import Shape, hash_key, same_key
from backends.writer import Value, Variable, Writer
from ir import map_layout as layout
from ir.map_layout import BUCKET_LOCKED, CHAIN_END
from ir.maps import LRU_HASHES


def key_offset(shape: Shape) -> int:
    """Where an element's key stands."""
    return 16 if shape.type in LRU_HASHES else 8


def hash_of(w: Writer, shape: Shape, map: Value, key: Value) -> Value:
    """The hash of `key` in this map, i32."""
    seed = map.load("i64", layout.SEED)
    return hash_key(w, key, shape.key_size(w, map), shape.constant(layout.KEY_SIZE), seed)


def bucket_number(w: Writer, shape: Shape, map: Value, hash: Value) -> Value:
    """The bucket of a hash, i32."""
    return hash & shape.number(w, map, layout.BUCKET_MASK).to("i32")


def bucket_place(map: Value, bucket: Value) -> Value:
    """Where the number of the bucket's first element stands."""
    return map.at(layout.DATA).at(bucket.to("i64") << 2)


def element_at(w: Writer, shape: Shape, map: Value, number: Value) -> Value:
    """The element of a number (i32)."""
    elements = map.at(shape.offset(w, map, layout.ELEMENTS_OFFSET))
    return elements.at(number.to("i64") * shape.number(w, map, layout.ELEMENT_STRIDE))


def value_of(w: Writer, shape: Shape, map: Value, number: Value) -> Value:
    """The value of an element's number, of cpu 0."""
    values = map.at(shape.offset(w, map, layout.VALUES_OFFSET))
    field = layout.VALUE_STRIDE if shape.is_per_cpu else layout.ELEMENT_STRIDE
    return values.at(number.to("i64") * shape.number(w, map, field))


def find(w: Writer, shape: Shape, map: Value, key: Value, hash: Value) -> Variable:
    """The number of the element that has `key`, 0 when there is none; without a lock."""
    bucket = bucket_number(w, shape, map, hash)
    place = bucket_place(map, bucket)
    found = w.var("i32", 0)
    number = w.var("i32", 0)
    with w.loop():
        number.set(place.load("i32", order="acquire") & ~BUCKET_LOCKED)
        w.break_if(number.get().eq(0))
        with w.loop():
            element = element_at(w, shape, map, number.get())
            with w.if_(has_key(w, shape, map, element, key), likely=True):
                found.set(number.get())
                w.break_()
            number.set(element.load("i32", layout.ELEMENT_NEXT, order="acquire"))
            w.break_if(number.get().slt(0))
        w.break_if(found.get().ne(0))
        w.break_if(number.get().eq(bucket | CHAIN_END), likely=True)
    return found


def find_locked(
    w: Writer, shape: Shape, map: Value, key: Value, first: Value, place: Value
) -> tuple[Variable, Variable]:
    """(element number or 0, the place that holds its number) in a chain whose lock is held; `first` is its
    first number.
    """
    number = w.var("i32", first)
    holder = w.var("ptr", place)
    with w.loop():
        w.break_if(number.get().eq(0))
        with w.if_(number.get().slt(0)):
            number.set(0)
            w.break_()
        element = element_at(w, shape, map, number.get())
        w.break_if(has_key(w, shape, map, element, key))
        holder.set(element)
        number.set(element.load("i32", layout.ELEMENT_NEXT))
    return number, holder


def has_key(w: Writer, shape: Shape, map: Value, element: Value, key: Value) -> Value:
    """Whether the element's key is `key` (i1)."""
    return same_key(
        w, element.at(key_offset(shape)), key, shape.key_size(w, map), shape.constant(layout.KEY_SIZE)
    )


def lock_bucket(w: Writer, place: Value) -> Value:
    """Take the bucket's lock; the number of its first element."""
    first = w.var("i32", 0)
    with w.loop():
        seen = place.load("i32", order="monotonic")
        with w.if_((seen & BUCKET_LOCKED).eq(0), likely=True):
            _, done = place.compare_exchange(seen, seen | BUCKET_LOCKED, "acquire")
            first.set(seen)
            w.break_if(done, likely=True)
    return first.get()


def unlink(w: Writer, place: Value, holder: Value, first: Value, next: Value) -> None:
    """Make `holder` name `next`, and give the lock of the bucket at `place` back."""
    with w.if_(holder.eq(place)):
        place.store(next.slt(0).choose(w.i32(0), next), order="release")
    with w.unless(holder.eq(place)):
        holder.store(next, order="release")
        release(place, first)


def release(place: Value, first: Value) -> None:
    """Give the bucket's lock back; `first` is the number of its first element."""
    place.store(first, order="release")
