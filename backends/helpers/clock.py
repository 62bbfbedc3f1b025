"""Clocks: nanoseconds from the C library's clock_gettime, which needs no system call on Linux."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from backends.helpers.row import HelperRow, Site
from backends.writer import Writer

_MONOTONIC: Final = 1
_BOOTTIME: Final = 7
_TAI: Final = 11
_COARSE: Final = 6


def clock(number: int) -> Callable[[Writer, Site], None]:
    """The emitter for a POSIX clock."""

    def emit(w: Writer, site: Site) -> None:
        now = w.local(16)
        w.external("i32", "clock_gettime", w.i32(number), now)
        w.ret(now.load("i64") * 1_000_000_000 + now.load("i64", 8))

    return emit


CLOCKS: Final = {
    "ktime_get_ns": HelperRow(clock(_MONOTONIC), is_small=False),
    "ktime_get_boot_ns": HelperRow(clock(_BOOTTIME), is_small=False),
    "ktime_get_tai_ns": HelperRow(clock(_TAI), is_small=False),
    "ktime_get_coarse_ns": HelperRow(clock(_COARSE), is_small=False),
}
