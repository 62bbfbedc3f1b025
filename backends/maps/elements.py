"""Where the elements of a hash map come from and go to: a stack of free ones for each cpu, never-used ones,
and eviction.

`take` gives an element's number (0: the map is full), `give` takes it back. A stack's head is {number 4, tag
4}, changed by compare and exchange; the tag counts, so that a head seen before is never taken for the same
again. An LRU map that is full evicts: a hand goes round the elements, forgives those used since it last came
by, and takes the first that was not.

    element.used     FREE (or being linked or unlinked), LINKED (not used lately), USED
"""

from __future__ import annotations

from typing import Final

from backends.maps.chain import bucket_number, bucket_place, element_at, lock_bucket, release, unlink
from backends.maps.shape import Shape
from backends.writer import Value, Writer
from ir import map_layout as layout
from ir.kinds import MapType

TAKE: Final = "bpfc.elements.take"
GIVE: Final = "bpfc.elements.give"
EVICT: Final = "bpfc.elements.evict"
FREE: Final = 0
LINKED: Final = 1
USED: Final = 2

_ANY: Final = Shape(MapType.HASH)
_ANY_LRU: Final = Shape(MapType.LRU_HASH)


def part(name: str) -> str:
    """The definition of one of the functions above; the same for every map."""
    return {TAKE: _take, GIVE: _give, EVICT: _evict}[name]()


def take(w: Writer, map: Value, cpu: Value) -> Value:
    """An element's number, 0 when all are in use."""
    return w.call("i32", TAKE, map, cpu)


def give(w: Writer, map: Value, cpu: Value, number: Value) -> None:
    """Back to the free elements of `cpu`."""
    w.call("void", GIVE, map, cpu, number)


def line_of(map: Value, cpu: Value) -> Value:
    """The spares of a cpu."""
    return map.at(map.load("i64", layout.SPARES_OFFSET)).at(cpu * layout.LINE)


def take_spare(w: Writer, map: Value, cpu: Value) -> tuple[Value, Value]:
    """(an element's number, where it was): the one a cpu keeps so that an update of a full map can replace.

    Waits for it.
    """
    cpus = map.load("i32", layout.CPUS).to("i64")
    number = w.var("i32", 0)
    turn = w.var("i64", cpu)
    place = w.var("ptr", 0)
    with w.loop():
        place.set(line_of(map, turn.get()).at(layout.SPARE_ELEMENT))
        number.set(place.get().exchange(w.i32(0), "acquire"))
        w.break_if(number.get().ne(0), likely=True)
        turn.set(turn.get() + 1)
        with w.if_(turn.get().uge(cpus)):
            turn.set(0)
    return number.get(), place.get()


def _take() -> str:
    w = Writer(TAKE, ("ptr", "map"), ("i64", "cpu"), returns="i32", attributes="internal noinline nounwind")
    map = w["map"]
    number = _pop(w, map, w["cpu"])
    with w.if_(number.ne(0)):
        w.ret(number)
    total = map.load("i32", layout.ELEMENTS)
    with w.if_(map.load("i32", layout.FRESH, order="monotonic").ult(total)):
        fresh = map.at(layout.FRESH).exchange(w.i32(1), "monotonic", "add")
        with w.if_(fresh.ult(total)):
            w.ret(fresh + 1)
    with w.count(0, map.load("i32", layout.CPUS).to("i64")) as cpu:
        stolen = _pop(w, map, cpu)
        with w.if_(stolen.ne(0)):
            w.ret(stolen)
    w.ret(0)
    return w.text()


def _pop(w: Writer, map: Value, cpu: Value) -> Value:
    head = line_of(map, cpu)
    number = w.var("i32", 0)
    with w.loop():
        seen = head.load("i64", layout.SPARE_FREE, order="acquire")
        number.set(seen.to("i32"))
        w.break_if(number.get().eq(0))
        next = element_at(w, _ANY, map, number.get()).load("i32", layout.ELEMENT_LINK, order="monotonic")
        new = next.to("i64") | (((seen >> 32) + 1) << 32)
        _, done = head.compare_exchange(seen, new, "acq_rel")
        w.break_if(done, likely=True)
    return number.get()


def _give() -> str:
    w = Writer(
        GIVE,
        ("ptr", "map"),
        ("i64", "cpu"),
        ("i32", "number"),
        returns="void",
        attributes="internal noinline nounwind",
    )
    head = line_of(w["map"], w["cpu"])
    element = element_at(w, _ANY, w["map"], w["number"])
    with w.loop():
        seen = head.load("i64", layout.SPARE_FREE, order="monotonic")
        element.store(seen.to("i32"), layout.ELEMENT_LINK, order="monotonic")
        new = w["number"].to("i64") | (((seen >> 32) + 1) << 32)
        _, done = head.compare_exchange(seen, new, "release")
        w.break_if(done, likely=True)
    w.ret()
    return w.text()


def _evict() -> str:
    w = Writer(EVICT, ("ptr", "map"), ("i64", "cpu"), returns="i32", attributes="internal noinline nounwind")
    map = w["map"]
    total = map.load("i32", layout.ELEMENTS).to("i64")
    with w.loop():
        free = w.call("i32", TAKE, map, w["cpu"])
        with w.if_(free.ne(0)):
            w.ret(free)
        with w.count(0, 64):
            turn = map.at(layout.HEAD).exchange(w.i64(1), "monotonic", "add")
            number = (turn % total + 1).to("i32")
            element = element_at(w, _ANY, map, number)
            used = element.load("i32", layout.ELEMENT_USED, order="monotonic")
            with w.if_(used.eq(USED)):
                element.at(layout.ELEMENT_USED).compare_exchange(w.i32(USED), w.i32(LINKED), "monotonic")
            with w.if_(used.eq(LINKED)):
                _, claimed = element.at(layout.ELEMENT_USED).compare_exchange(
                    w.i32(LINKED), w.i32(FREE), "acquire"
                )
                with w.if_(claimed):
                    _unlink_claimed(w, map, element, number)
                    w.ret(number)
    return w.text()


def _unlink_claimed(w: Writer, map: Value, element: Value, number: Value) -> None:
    """Take a claimed element out of its chain; whoever deletes it now sees the claim and leaves it."""
    bucket = bucket_number(w, _ANY_LRU, map, element.load("i32", layout.ELEMENT_HASH))
    place = bucket_place(map, bucket)
    first = lock_bucket(w, place)
    now = w.var("i32", first)
    holder = w.var("ptr", place)
    with w.loop():
        with w.if_(now.get().eq(0) | now.get().slt(0)):
            release(place, first)
            w.break_()
        at = element_at(w, _ANY, map, now.get())
        next = at.load("i32", layout.ELEMENT_NEXT)
        with w.if_(now.get().eq(number)):
            unlink(w, place, holder.get(), first, next)
            w.break_()
        holder.set(at)
        now.set(next)
