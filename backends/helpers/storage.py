"""Storage that belongs to a socket, inode, task or cgroup: a hash from the owner's address to a value.

An owner is whatever address the program has for one; it is not looked at. bpf_get_current_task_btf answers with the address
of the run, so that each run's thread is a task of its own.
"""

from __future__ import annotations

from errno import ENOENT
from typing import Final

from backends.helpers.row import HelperRow, Site, operation_symbol
from backends.maps.operation import of_cpu, this_cpu
from backends.maps.shape import Shape, clear
from backends.writer import Value, Writer
from ir.map_layout import VALUES_OFFSET, value_bytes

_CREATE: Final = 1


def get(w: Writer, site: Site) -> None:
    """The value of owner r2 in map r1; with flag 1 it is made when missing, from r3 or zeros. Null when there is none."""
    declared = site.known_map
    key = _key(w)
    lookup, update = (operation_symbol(name, declared) for name in ("lookup", "update"))
    found = w.call("ptr", lookup, w["run"], w["r1"], key)
    with w.if_(found.ne(0) | (w["r4"] & _CREATE).eq(0)):
        w.ret(found)
    value = w.var("ptr", w["r3"])
    with w.if_(value.get().eq(0)):
        zeros = w.local(value_bytes(declared) + 8)
        clear(w, zeros, w.i64(value_bytes(declared)))
        value.set(zeros)
    w.call("i64", update, w["run"], w["r1"], key, value.get(), w.i64(0))
    w.ret(w.call("ptr", lookup, w["run"], w["r1"], key))


def delete(w: Writer, site: Site) -> None:
    """Forget the value of owner r2 in map r1: 0 or -ENOENT."""
    key = _key(w)
    w.ret(w.call("i64", operation_symbol("delete", site.known_map), w["run"], w["r1"], key))


def get_local_storage(w: Writer, site: Site) -> None:
    """The value that belongs to the cgroup a program is attached to: there is one."""
    shape = Shape(site.known_map.type, site.known_map)
    value = w["r1"].at(shape.offset(w, w["r1"], VALUES_OFFSET))
    w.ret(of_cpu(w, shape, w["r1"], value, this_cpu(w)))


def current_task(w: Writer, site: Site) -> None:
    """The task that runs."""
    w.ret(w["run"])


def _key(w: Writer) -> Value:
    """Owner r2 as a key on this function's stack; out of the function when it is null."""
    key = w.local(8)
    key.store(w["r2"])
    with w.if_(w["r2"].eq(0)):
        w.ret(w.null() if w.returns == "ptr" else w.i64(-ENOENT))
    return key


_GET: Final = HelperRow(
    get, is_small=False, needs_map=True, returns_pointer=True, operations=("lookup", "update")
)
_DELETE: Final = HelperRow(delete, is_small=False, needs_map=True, operations=("delete",))
STORAGE: Final = {
    **{f"{owner}_storage_get": _GET for owner in ("sk", "inode", "task", "cgrp")},
    **{f"{owner}_storage_delete": _DELETE for owner in ("sk", "inode", "task", "cgrp")},
    "get_local_storage": HelperRow(get_local_storage, needs_map=True, returns_pointer=True),
    "get_current_task_btf": HelperRow(current_task, returns_pointer=True),
}
