"""The string kfuncs: strings are read byte by byte without faulting, up to 64 KiB (kernel/bpf/helpers.c).

results: a position or length; -ENOENT not found, -E2BIG too long, -EFAULT unreadable
"""

from __future__ import annotations

from collections.abc import Callable
from errno import E2BIG, EFAULT, ENOENT
from typing import Final

from backends.helpers.memory import READ
from backends.helpers.row import HelperRow, Site
from backends.helpers.segments import IN_SEGMENT
from backends.writer import Value, Writer

_LONGEST: Final = 65536
_EVERYTHING: Final = (1 << 64) - 1


def strcmp(w: Writer, site: Site) -> None:
    """-1, 0, 1: how r1 compares with r2."""
    byte = _reader(w)
    with w.count(0, _LONGEST) as i:
        a, b = byte(w["r1"] + i), byte(w["r2"] + i)
        with w.if_(a.ne(b)):
            w.ret(a.ult(b).choose(w.i64(-1), 1))
        with w.if_(a.eq(0)):
            w.ret(0)
    w.ret(-E2BIG)


def strnlen(w: Writer, site: Site) -> None:
    """The length of r1, at most r2."""
    _length(w, w["r2"])


def strlen(w: Writer, site: Site) -> None:
    """The length of r1."""
    _length(w, w.i64(_EVERYTHING))


def strnchr(w: Writer, site: Site) -> None:
    """Where character r3 is among the first r2 of r1."""
    _find(w, w["r2"], w["r3"] & 0xFF)


def strchr(w: Writer, site: Site) -> None:
    """Where character r2 is in r1."""
    _find(w, w.i64(_LONGEST), w["r2"] & 0xFF)


def strchrnul(w: Writer, site: Site) -> None:
    """Where character r2 is in r1, else its length."""
    byte = _reader(w)
    with w.count(0, _LONGEST) as i:
        found = byte(w["r1"] + i)
        with w.if_(found.eq(0) | found.eq(w["r2"] & 0xFF)):
            w.ret(i)
    w.ret(-E2BIG)


def strrchr(w: Writer, site: Site) -> None:
    """Where character r2 is in r1 for the last time."""
    byte = _reader(w)
    last = w.var("i64", -ENOENT)
    with w.count(0, _LONGEST) as i:
        found = byte(w["r1"] + i)
        with w.if_(found.eq(w["r2"] & 0xFF)):
            last.set(i)
        with w.if_(found.eq(0)):
            w.ret(last.get())
    w.ret(-E2BIG)


def span(stops_at_match: bool) -> Callable[[Writer, Site], None]:
    """The emitter of bpf_strspn and bpf_strcspn: how many characters of r1 are, or are not, in r2."""

    def emit(w: Writer, site: Site) -> None:
        byte = _reader(w)
        with w.count(0, _LONGEST) as i:
            found = byte(w["r1"] + i)
            with w.if_(found.eq(0)):
                w.ret(i)
            member = w.var("i64", 0)
            looked = w.var("i64", 0)
            with w.count(0, _LONGEST) as j:
                looked.set(j + 1)
                member.set(byte(w["r2"] + j))
                w.break_if(member.get().eq(0) | member.get().eq(found))
            ends = member.get().ne(0) if stops_at_match else member.get().eq(0)
            with w.if_(ends & (member.get().eq(0) | member.get().eq(found))):
                w.ret(i)
            with w.if_(looked.get().eq(_LONGEST) & member.get().ne(0) & member.get().ne(found)):
                w.ret(-E2BIG)
        w.ret(-E2BIG)

    return emit


def strstr(w: Writer, site: Site) -> None:
    """Where string r2 is in r1."""
    _search(w, w.i64(_EVERYTHING))


def strnstr(w: Writer, site: Site) -> None:
    """Where string r2 is in the first r3 characters of r1."""
    _search(w, w["r3"])


def _length(w: Writer, limit: Value) -> None:
    byte = _reader(w)
    with w.count(0, limit.ult(_LONGEST).choose(limit, w.i64(_LONGEST))) as i, w.if_(byte(w["r1"] + i).eq(0)):
        w.ret(i)
    w.ret(limit.ult(_LONGEST).choose(limit, w.i64(-E2BIG)))


def _find(w: Writer, limit: Value, wanted: Value) -> None:
    byte = _reader(w)
    with w.count(0, limit.ult(_LONGEST).choose(limit, w.i64(_LONGEST))) as i:
        found = byte(w["r1"] + i)
        with w.if_(found.eq(wanted)):
            w.ret(i)
        with w.if_(found.eq(0)):
            w.ret(-ENOENT)
    w.ret(limit.ult(_LONGEST).choose(w.i64(-ENOENT), w.i64(-E2BIG)))


def _search(w: Writer, limit: Value) -> None:
    byte = _reader(w)
    with w.count(0, _LONGEST) as i:
        with w.count(0, _LONGEST) as j:
            wanted = byte(w["r2"] + j)
            with w.if_(wanted.eq(0)):
                w.ret(i)
            w.break_if((i + j).uge(limit))
            found = byte(w["r1"] + i + j)
            with w.if_(found.eq(0)):
                w.ret(-ENOENT)
            w.break_if(found.ne(wanted))
        with w.if_(i.uge(limit)):
            w.ret(-ENOENT)
    w.ret(-E2BIG)


def _reader(w: Writer) -> Callable[[Value], Value]:
    """A function that emits: the byte at an address, as i64; out of the function with -EFAULT when it can't be read."""
    place = w.local(8)

    def byte(address: Value) -> Value:
        with w.if_(w.call("i64", READ, w["run"], place, w.i64(1), address).ne(0), likely=False):
            w.ret(-EFAULT)
        return place.load("i8").to("i64")

    return byte


_EMITTERS: Final[dict[str, Callable[[Writer, Site], None]]] = {
    "strcmp": strcmp,
    "strlen": strlen,
    "strnlen": strnlen,
    "strchr": strchr,
    "strchrnul": strchrnul,
    "strnchr": strnchr,
    "strrchr": strrchr,
    "strspn": span(stops_at_match=False),
    "strcspn": span(stops_at_match=True),
    "strstr": strstr,
    "strnstr": strnstr,
}
STRINGS: Final = {
    name: HelperRow(emit, is_small=False, parts=(READ, IN_SEGMENT)) for name, emit in _EMITTERS.items()
}
