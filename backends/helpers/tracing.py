"""Helpers of programs that run around a function: its arguments, result and address, the cookie of the link.

They read the array that backends/trampoline.py fills: | ip | slots, and FLAG_RESULT once there is one | slot 0 ...
| result | sessions' cookies |
"""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP
from typing import Final

from backends import abi
from backends.helpers.row import HelperRow, Site
from backends.writer import Writer
from ir.context import HEADER

FLAG_RESULT: Final = 0x100
COOKIE_SHIFT: Final = 16  # which session's cookie
_COUNT: Final = HEADER - 8
_ADDRESS: Final = HEADER - 16


def get_func_arg(w: Writer, site: Site) -> None:
    """Slot r2 of the arguments into *r3."""
    index = w["r2"] & 0xFFFF_FFFF
    with w.if_(index.uge(w["r1"].load("i64", _COUNT) & 0xFF)):
        w.ret(-EINVAL)
    w["r3"].store(w["r1"].at(index * 8).load("i64", HEADER), 0)
    w.ret(0)


def get_func_ret(w: Writer, site: Site) -> None:
    """The result into *r2, for programs that run when there is one."""
    word = w["r1"].load("i64", _COUNT)
    with w.if_((word & FLAG_RESULT).eq(0)):
        w.ret(-EOPNOTSUPP)
    w["r2"].store(w["r1"].at((word & 0xFF) * 8).load("i64", HEADER), 0)
    w.ret(0)


def get_func_arg_cnt(w: Writer, site: Site) -> None:
    """How many slots the arguments take."""
    w.ret(w["r1"].load("i64", _COUNT) & 0xFF)


def get_func_ip(w: Writer, site: Site) -> None:
    """The address of the function."""
    w.ret(w["r1"].load("i64", _ADDRESS))


def get_attach_cookie(w: Writer, site: Site) -> None:
    """What the link was given."""
    w.ret(w["run"].load("i64", abi.COOKIE))


def session_is_return(w: Writer, site: Site) -> None:
    """Whether the function has returned."""
    w.ret((w["r1"].load("i64", _COUNT) >> 8) & 1)


def session_cookie(w: Writer, site: Site) -> None:
    """The address of the word that the program keeps from entry to exit: behind the result."""
    word = w["r1"].load("i64", _COUNT)
    w.ret(w["r1"].at(((word & 0xFF) + ((word >> COOKIE_SHIFT) & 0xFF)) * 8).at(HEADER + 8))


TRACING: Final = {
    "get_func_arg": HelperRow(get_func_arg),
    "get_func_ret": HelperRow(get_func_ret),
    "get_func_arg_cnt": HelperRow(get_func_arg_cnt),
    "get_func_ip": HelperRow(get_func_ip),
    "get_attach_cookie": HelperRow(get_attach_cookie),
    "session_is_return": HelperRow(session_is_return),
    "session_cookie": HelperRow(session_cookie, returns_pointer=True),
}
