"""Helpers that read memory anywhere without faulting, and compare strings.

What is in the run's segments is copied; anything else is asked of the system, which answers for unmapped
memory with an error instead of a signal (process_vm_readv(2) on this very process).
"""

from __future__ import annotations

from errno import EFAULT
from typing import Final

from backends.helpers.row import HelperRow, Site
from backends.helpers.segments import IN_SEGMENT, in_segment
from backends.maps.shape import clear_bytes, copy
from backends.writer import Writer
from ir.maps import PAGE

READ: Final = "bpfc.helpers.read"


def probe_read(w: Writer, site: Site) -> None:
    """Copy r2 bytes from address r3 to r1; -EFAULT and zeros when they cannot be read."""
    size = w["r2"] & 0xFFFF_FFFF
    with w.if_(w.call("i64", READ, w["run"], w["r1"], size, w["r3"]).eq(0), likely=True):
        w.ret(0)
    clear_bytes(w, w["r1"], size)
    w.ret(-EFAULT)


def probe_read_str(w: Writer, site: Site) -> None:
    """Copy a string of less than r2 bytes from address r3 to r1, with a NUL; its length with the NUL, or
    -EFAULT.
    """
    to, size = w["r1"], w["r2"] & 0xFFFF_FFFF
    with w.if_(size.eq(0)):
        w.ret(0)
    done = w.var("i64", 0)
    with w.loop():
        left = size - done.get()
        w.break_if(left.eq(0))
        source = w["r3"] + done.get()
        in_page = w.i64(PAGE) - (source & (PAGE - 1))
        some = left.ult(in_page).choose(left, in_page)
        with w.if_(w.call("i64", READ, w["run"], to.at(done.get()), some, source).ne(0), likely=False):
            clear_bytes(w, to, size)
            w.ret(-EFAULT)
        with w.count(0, some) as i, w.if_(to.load("i8", done.get() + i).eq(0)):
            w.ret(done.get() + i + 1)
        done.set(done.get() + some)
    to.store(w.value("i8", 0), size - 1)
    w.ret(size)


def strncmp(w: Writer, site: Site) -> None:
    """-1, 0, 1: how the first r2 bytes of r1 compare with the string r3."""
    with w.count(0, w["r2"] & 0xFFFF_FFFF) as i:
        a, b = w["r1"].load("i8", i), w["r3"].load("i8", i)
        with w.if_(a.ne(b)):
            w.ret(a.ult(b).choose(w.i64(-1), 1))
        w.break_if(a.eq(0))
    w.ret(0)


def read_part() -> tuple[str, dict[str, str]]:
    """(definition of READ: `i64 (run, to, size, source)`, 0 when all was read; what it calls elsewhere)."""
    params = (("ptr", "run"), ("ptr", "to"), ("i64", "size"), ("i64", "source"))
    w = Writer(READ, *params, attributes="internal noinline nounwind")
    with w.if_(in_segment(w, w["source"], w["size"], writes=False, any_value=True), likely=True):
        copy(w, w["to"], w["source"].to("ptr"), w["size"], None)
        w.ret(0)
    local, remote = w.local(16), w.local(16)
    local.store(w["to"])
    local.store(w["size"], 8)
    remote.store(w["source"])
    remote.store(w["size"], 8)
    itself = w.external("i32", "getpid")
    one, none = w.i64(1), w.i64(0)
    count = w.external("i64", "process_vm_readv", itself, local, one, remote, one, none)
    w.ret(count - w["size"])
    return w.text(), w.externals


MEMORY: Final = {
    **{
        name: HelperRow(probe_read, is_small=False, parts=(READ, IN_SEGMENT))
        for name in ("probe_read", "probe_read_kernel", "probe_read_user", "copy_from_user")
    },
    **{
        name: HelperRow(probe_read_str, is_small=False, parts=(READ, IN_SEGMENT))
        for name in ("probe_read_str", "probe_read_kernel_str", "probe_read_user_str")
    },
    "strncmp": HelperRow(strncmp, is_small=False),
}
