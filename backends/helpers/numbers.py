"""bpf_strtol and bpf_strtoul: numbers in text (lib/kstrtox.c through kernel/bpf/helpers.c)."""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, ERANGE
from typing import Final

from backends.helpers.row import HelperRow, Site
from backends.writer import Value, Variable, Writer

_BASE: Final = 0x1F
_SIGN_LIMIT: Final = 1 << 63


def strto(is_signed: bool) -> Callable[[Writer, Site], None]:
    """The emitter: *r4 = the number at r1 (r2 bytes) in base r3 (0: by its prefix); how many bytes it took."""

    def emit(w: Writer, site: Site) -> None:
        place, size = w["r1"], w["r2"] & 0xFFFF_FFFF
        base = w.var("i64", w["r3"] & _BASE)
        known = base.get().eq(0) | base.get().eq(8) | base.get().eq(10) | base.get().eq(16)
        with w.if_(size.eq(0) | (w["r3"] & ~_BASE).ne(0) | ~known, likely=False):
            w.ret(-EINVAL)
        at = w.var("i64", 0)
        with w.loop():
            w.break_if(at.get().uge(size))
            w.break_if(~_is_space(place.load("i8", at.get())))
            at.set(at.get() + 1)
        negative = w.var("i1", 0)
        with w.if_(at.get().ult(size)):
            sign = place.load("i8", at.get())
            with w.if_(sign.eq(ord("-"))):
                negative.set(1)
                at.set(at.get() + 1)
            if is_signed:
                with w.if_(sign.eq(ord("+"))):
                    w.ret(-EINVAL)
        _skip_prefix(w, place, size, at, base)
        first = at.get()
        value = w.var("i64", 0)
        with w.loop():
            w.break_if(at.get().uge(size))
            digit = _digit(place.load("i8", at.get()))
            w.break_if(digit.uge(base.get()))
            product = value.get().to("i128") * base.get().to("i128") + digit.to("i128")
            with w.if_((product >> 64).to("i64").ne(0), likely=False):
                w.ret(-ERANGE)
            value.set(product.to("i64"))
            at.set(at.get() + 1)
        with w.if_(at.get().eq(first)):
            w.ret(-EINVAL)
        _finish(w, value.get(), negative.get(), is_signed)
        w.ret(at.get())

    return emit


def _finish(w: Writer, value: Value, negative: Value, is_signed: bool) -> None:
    if not is_signed:
        with w.if_(negative):
            w.ret(-EINVAL)
        w["r4"].store(value, align=1)
        return
    limit = negative.choose(w.i64(_SIGN_LIMIT), _SIGN_LIMIT - 1)
    with w.if_(value.ugt(limit), likely=False):
        w.ret(-ERANGE)
    w["r4"].store(negative.choose(w.i64(0) - value, value), align=1)


def _skip_prefix(w: Writer, place: Value, size: Value, at: Variable, base: Variable) -> None:
    """0x and 0 choose base 16 and 8 when none is given; 0x is skipped for base 16."""
    start = at.get()
    has_zero = w.var("i1", 0)
    has_x = w.var("i1", 0)
    with w.if_(start.ult(size)):
        has_zero.set(place.load("i8", start).eq(ord("0")))
        with w.if_((start + 1).ult(size) & has_zero.get()):
            has_x.set((place.load("i8", start + 1) | 0x20).eq(ord("x")))
    with w.if_(base.get().eq(0)):
        base.set(has_zero.get().choose(w.i64(8), 10))
        with w.if_(has_x.get() & (start + 2).ult(size)):
            is_hexadecimal = _digit(place.load("i8", start + 2)).ult(16)
            base.set(is_hexadecimal.choose(w.i64(16), base.get()))
    with w.if_(base.get().eq(16) & has_x.get()):
        at.set(start + 2)


def _digit(char: Value) -> Value:
    """The value of a digit, i64; 99 for other characters."""
    decimal = char - ord("0")
    letter = (char | 0x20) - ord("a")
    return decimal.ult(10).choose(decimal.to("i64"), letter.ult(6).choose((letter + 10).to("i64"), 99))


def _is_space(char: Value) -> Value:
    return char.eq(ord(" ")) | (char - 9).ult(5)


NUMBERS: Final = {
    "strtol": HelperRow(strto(is_signed=True), is_small=False),
    "strtoul": HelperRow(strto(is_signed=False), is_small=False),
}
