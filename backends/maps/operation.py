"""What a map operation is: a function of fixed signature, emitted for one map or for all maps of a type.

    lookup  ptr (ptr run, ptr map, ptr key)                          the value, or null
    update  i64 (ptr run, ptr map, ptr key, ptr value, i64 flags)    0 or -errno
    delete  i64 (ptr run, ptr map, ptr key)
    push    i64 (ptr run, ptr map, ptr value, i64 flags)
    pop     i64 (ptr run, ptr map, ptr value)
    peek    i64 (ptr run, ptr map, ptr value)
    each    i64 (ptr run, ptr map, ptr callback, ptr context, i64 flags)     elements visited
    reserve ptr (ptr run, ptr map, i64 size, i64 flags)              a ring buffer's next record, or null
    output  i64 (ptr run, ptr map, ptr data, i64 size, i64 flags)
    query   i64 (ptr run, ptr map, i64 flags)
    locate  ptr (ptr map, ptr key)              as lookup, for the host: of cpu 0, unnoticed by an LRU
    put     i64 (ptr map, i64 index, i64 handle, i64 content)        fill a slot, for the host
    collect i64 (ptr map, i64 bucket, ptr out, i64 room, ptr next)   elements copied to out, for the host
    check   i64 (ptr map, ptr marks)            what is wrong with a map from a file, for the host
    mend    i64 (ptr map, ptr marks)            after a process died, for the host

A map's type decides what its operations do (backends/maps/registry.py); here are the pieces that several
types share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from errno import EINVAL
from typing import Final, final

from backends import abi
from backends.maps.shape import Shape, copy_value, lock, lock_of, unlock
from backends.writer import Value, Writer
from ir.map_layout import CPU_STRIDE
from ir.maps import LRU_HASHES, UpdateFlag

_RUN_MAP: Final = (("ptr", "run"), ("ptr", "map"))
SIGNATURES: Final[dict[str, tuple[str, tuple[tuple[str, str], ...]]]] = {
    "lookup": ("ptr", (*_RUN_MAP, ("ptr", "key"))),
    "update": ("i64", (*_RUN_MAP, ("ptr", "key"), ("ptr", "value"), ("i64", "flags"))),
    "delete": ("i64", (*_RUN_MAP, ("ptr", "key"))),
    "push": ("i64", (*_RUN_MAP, ("ptr", "value"), ("i64", "flags"))),
    "pop": ("i64", (*_RUN_MAP, ("ptr", "value"))),
    "peek": ("i64", (*_RUN_MAP, ("ptr", "value"))),
    "each": ("i64", (*_RUN_MAP, ("ptr", "callback"), ("ptr", "context"), ("i64", "flags"))),
    "locate": ("ptr", (("ptr", "map"), ("ptr", "key"))),
    "collect": ("i64", (("ptr", "map"), ("i64", "bucket"), ("ptr", "out"), ("i64", "room"), ("ptr", "next"))),
    "reserve": ("ptr", (*_RUN_MAP, ("i64", "size"), ("i64", "flags"))),
    "output": ("i64", (*_RUN_MAP, ("ptr", "data"), ("i64", "size"), ("i64", "flags"))),
    "query": ("i64", (*_RUN_MAP, ("i64", "flags"))),
    "put": ("i64", (("ptr", "map"), ("i64", "index"), ("i64", "handle"), ("i64", "content"))),
    "check": ("i64", (("ptr", "map"), ("ptr", "marks"))),
    "mend": ("i64", (("ptr", "map"), ("ptr", "marks"))),
    "lookup_cpu": ("ptr", (*_RUN_MAP, ("ptr", "key"), ("i64", "cpu"))),
}

Emitter = Callable[[Writer, Shape], None]


@final
@dataclass(frozen=True, slots=True)
class Operation:
    """How to emit an operation.

    `is_small`: always worth inlining; `parts`: functions of `PARTS` that it calls.
    """

    emit: Emitter
    is_small: bool = False
    parts: tuple[str, ...] = ()


def this_cpu(w: Writer) -> Value:
    """The cpu that the run is on, as i64."""
    return w["run"].load("i32", abi.CPU).to("i64")


def of_cpu(w: Writer, shape: Shape, map: Value, value: Value, cpu: Value) -> Value:
    """The value of `cpu`, given that of cpu 0."""
    return value.at(cpu * shape.offset(w, map, CPU_STRIDE)) if shape.is_per_cpu else value


def refuse_flags(w: Writer, flags: Value) -> None:
    """Return -EINVAL for update flags that do not exist, or that ask for a lock the value does not have."""
    with w.if_(flags.ugt(UpdateFlag.EXIST), likely=False):
        w.ret(-EINVAL)


def refuse_locking_flags(w: Writer, shape: Shape, map: Value, flags: Value) -> None:
    """As `refuse_flags`, but BPF_F_LOCK is taken where values have a lock."""
    if shape.known is not None and shape.known.lock is None:
        refuse_flags(w, flags)
        return
    with w.if_(flags.ugt(UpdateFlag.EXIST), likely=False):
        has_lock = lock_of(w, shape, map, map).ne(0)
        with w.if_((flags & ~int(UpdateFlag.LOCK)).ugt(UpdateFlag.EXIST)):
            w.ret(-EINVAL)
        with w.unless(has_lock):
            w.ret(-EINVAL)


def copy_locked(w: Writer, shape: Shape, map: Value, value: Value) -> None:
    """Overwrite a value under its own lock, as BPF_F_LOCK asks."""
    place = lock_of(w, shape, map, value)
    lock(w, place)
    copy_value(w, shape, map, value, w["value"])
    unlock(w, place)


def may_lock(shape: Shape) -> bool:
    """Whether values can have a lock: for Linux those of hashes, arrays and storages."""
    has = shape.known is None or shape.known.lock is not None
    return has and not shape.is_per_cpu and shape.type not in LRU_HASHES


def refuse(errno: int) -> Operation:
    """The operation of a type that does not have it."""

    def emit(w: Writer, shape: Shape) -> None:
        w.ret(-errno)

    return Operation(emit, is_small=True)


def nothing(w: Writer, shape: Shape) -> None:
    """A lookup of a type that has none."""
    w.ret(w.null())


def borrow_stack(w: Writer, size: Value) -> tuple[Value, Value]:
    """(a place for `size` bytes on the BPF stack, where callbacks may read it; what to give to `return_stack`)."""
    top = w["run"].load("ptr", abi.STACK)
    place = top.at(w.i64(0) - ((size + 15) & ~15))
    w["run"].store(place, abi.STACK)
    return place, top


def return_stack(w: Writer, top: Value) -> None:
    """Give a borrowed place back."""
    w["run"].store(top, abi.STACK)


def call_back(w: Writer, callback: Value, *args: Value) -> Value:
    """Call a program's callback `i64 f(ptr run, ptr r1..)`; 1 (stop) when the run trapped in it."""
    if w.word < 8:
        args = tuple(arg if arg.type == "i64" else arg.to("i64") for arg in args)
    given = ", ".join(f"{arg.type} {arg.text}" for arg in (w["run"], *args))
    result = w.emit("i64", f"call i64 {callback.text}({given})")
    trapped = w["run"].load("i32", abi.TRAP_CODE).ne(0)
    return trapped.choose(w.i64(1), result)
