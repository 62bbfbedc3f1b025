"""Kernel functions without a pointer to what only a kernel has: numeric iterators, sections that need nothing here.

struct bpf_iter_num on the program's stack:  current 4, end 4     `next` returns the address of `current`
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, EOPNOTSUPP
from typing import Final

from backends.helpers.row import HelperRow, Site
from backends.writer import Writer

_MOST_TURNS: Final = 1 << 23


def iter_num_new(w: Writer, site: Site) -> None:
    """r1 = an iterator over [r2, r3): 0, -EINVAL, -E2BIG; empty when it fails."""
    start, end = w["r2"].to("i32"), w["r3"].to("i32")
    w["r1"].store(w.i64(0), align=1)
    with w.if_(start.sgt(end)):
        w.ret(-EINVAL)
    with w.if_((end.signed_to("i64") - start.signed_to("i64")).ugt(_MOST_TURNS)):
        w.ret(-E2BIG)
    w["r1"].store(start - 1, align=1)
    w["r1"].store(end, 4, align=1)
    w.ret(0)


def iter_num_next(w: Writer, site: Site) -> None:
    """The address of the next number of iterator r1, or null (and the iterator is empty)."""
    following = w["r1"].load("i32", align=1).signed_to("i64") + 1
    end = w["r1"].load("i32", 4, align=1).signed_to("i64")
    with w.unless(following.slt(end)):
        w["r1"].store(w.i64(0), align=1)
        w.ret(w.null())
    w["r1"].store(following.to("i32"), align=1)
    w.ret(w["r1"])


def iter_num_destroy(w: Writer, site: Site) -> None:
    """The iterator r1 is empty."""
    w["r1"].store(w.i64(0), align=1)
    w.ret(0)


def nothing(w: Writer, site: Site) -> None:
    """Readers are never waited for, and nobody preempts: there is nothing to do."""
    w.ret(0)


def save_flags(w: Writer, site: Site) -> None:
    """*r1 = 0: interrupts are not ours to disable."""
    w["r1"].store(w.i64(0), align=1)
    w.ret(0)


def identity(w: Writer, site: Site) -> None:
    """r1, seen as another type."""
    w.ret(w["r1"])


def unsupported(w: Writer, site: Site) -> None:
    """No device gives metadata."""
    w.ret(-EOPNOTSUPP)


KFUNC_ROWS: Final = {
    "iter_num_new": HelperRow(iter_num_new),
    "iter_num_next": HelperRow(iter_num_next, returns_pointer=True),
    "iter_num_destroy": HelperRow(iter_num_destroy),
    "rcu_read_lock": HelperRow(nothing),
    "rcu_read_unlock": HelperRow(nothing),
    "preempt_disable": HelperRow(nothing),
    "preempt_enable": HelperRow(nothing),
    "local_irq_save": HelperRow(save_flags),
    "local_irq_restore": HelperRow(nothing),
    "rdonly_cast": HelperRow(identity),
    "xdp_metadata_rx_timestamp": HelperRow(unsupported),
    "xdp_metadata_rx_hash": HelperRow(unsupported),
    "xdp_metadata_rx_vlan_tag": HelperRow(unsupported),
}
