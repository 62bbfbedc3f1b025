"""Trampolines on native functions of the process: TR-02, 03, 05, 06, 12, 13, 16, 17 and 23."""

from __future__ import annotations

import ctypes
import errno
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import bpfc
from ir.function_model import U64, Model, Value, check_model
from runtime.epoch import epochs
from runtime.imports import imported
from runtime.linker import LinkedImage
from runtime.native_entry import function_at_pointer, function_of
from tests.native import load_text
from tests.tracing import WAITS, slots

if TYPE_CHECKING:
    from bpfc.running import Runtime

OBJECTS = Path(__file__).parent.parent / "objects"
WRAP = 1 << 64

CODE = """
@effects = global i64 0

define i64 @modify(i64 %a, ptr %b) noinline {
  %old = load volatile i32, ptr %b
  %new = add i32 %old, 1
  store volatile i32 %new, ptr %b
  %n = trunc i64 %a to i32
  %sum = add i32 %n, 3
  %wide = sext i32 %sum to i64
  ret i64 %wide
}
define i64 @six(i64 %a, i64 %b, i64 %c, i64 %d, i64 %e, i64 %f) noinline {
  ret i64 %f
}
define i64 @eleven(i64 %a, i64 %b, i64 %c, i64 %d, i64 %e, i64 %f, i64 %g, i64 %h, i64 %i, i64 %j, i64 %k) noinline {
  %t = mul i64 %k, 1000
  %u = mul i64 %g, 10
  %v = add i64 %t, %u
  %w = add i64 %v, %a
  ret i64 %w
}
define i64 @pairs(i64 %x0, i64 %x1, i64 %a, i64 %y0, i64 %y1, ptr byval([2 x i64]) align 8 %z, i64 %b, i64 %c) noinline {
  %z0 = load i64, ptr %z
  %at = getelementptr i64, ptr %z, i64 1
  %z1 = load i64, ptr %at
  %t = mul i64 %z1, 100
  %u = add i64 %t, %z0
  %v = mul i64 %c, 10000
  %w = add i64 %u, %v
  %y = mul i64 %y1, 1000000
  %r = add i64 %w, %y
  ret i64 %r
}
define i64 @overwrites(i64 %a) noinline {
  %b = add i64 %a, 1
  ret i64 %b
}
define double @half(double %x, i64 %n) noinline {
  %y = fmul double %x, 0.5
  ret double %y
}
"""


class Pair(ctypes.Structure):
    """Two words, in registers or in memory."""

    _fields_ = [("x", ctypes.c_uint64), ("y", ctypes.c_uint64)]  # as ctypes wants it


@pytest.fixture(scope="module")
def code() -> Iterator[LinkedImage]:
    with load_text(CODE + WAITS) as image:
        yield image


def native(code: LinkedImage, name: str, restype: Any, *argtypes: Any) -> Any:  # ctypes types
    # Safe because the module's fixture keeps the code, and the prototype is that of the text above.
    function = ctypes.CFUNCTYPE(restype, *argtypes)(code.address_of(name))
    return function


def test_tr_02_six_arguments_of_mixed_width(code: LinkedImage, tracers: Runtime) -> None:
    types = (
        ctypes.c_uint64,
        ctypes.c_void_p,
        ctypes.c_int16,
        ctypes.c_int32,
        ctypes.c_void_p,
        ctypes.c_uint64,
    )
    six = native(code, "six", ctypes.c_uint64, *types)
    with tracers["all_at_entry"].attach_fentry(six):
        assert six(1 << 63, 0x1000, -2, -3, 0x2000, 7) == 7
    assert slots(tracers)[:6] == [1 << 63, 0x1000, WRAP - 2, WRAP - 3, 0x2000, 7]
    assert tracers.globals["count"] == 6


def test_tr_03_eleven_arguments(code: LinkedImage, tracers: Runtime) -> None:
    eleven = native(code, "eleven", ctypes.c_uint64, *[ctypes.c_uint64] * 11)
    with tracers["all_slots"].attach_fexit(eleven):
        assert eleven(*range(1, 12)) == 11071
    assert (slots(tracers)[:11], tracers.globals["result"]) == (list(range(1, 12)), 11071)


def test_tr_03_structs_in_registers_and_straddling(code: LinkedImage, tracers: Runtime) -> None:
    word = ctypes.c_uint64
    pairs = native(code, "pairs", word, Pair, word, Pair, Pair, word, word)
    given = (Pair(1, 2), 3, Pair(4, 5), Pair(6, 7), 8, 9)
    assert pairs(*given) == 5090706
    with tracers["all_slots"].attach_fexit(pairs):
        assert pairs(*given) == 5090706
    assert (slots(tracers)[:9], tracers.globals["count"]) == ([1, 2, 3, 4, 5, 6, 7, 8, 9], 9)
    with tracers["all_at_entry"].attach_fentry(pairs):
        assert pairs(*given) == 5090706
    assert slots(tracers)[:9] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_tr_04_fexit_sees_the_argument_as_it_was(code: LinkedImage, tracers: Runtime) -> None:
    overwrites = native(code, "overwrites", ctypes.c_uint64, ctypes.c_uint64)
    with tracers["all_slots"].attach_fexit(overwrites):
        assert overwrites(41) == 42
    assert (slots(tracers)[0], tracers.globals["result"]) == (41, 42)


@pytest.mark.parametrize(("answer", "result", "effects"), [(0, 33, 1), (-22, -22, 0)])
def test_tr_05_an_override_stands_for_the_call(
    code: LinkedImage, tracers: Runtime, answer: int, result: int, effects: int
) -> None:
    modify = native(code, "modify", ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
    place = ctypes.c_int(0)
    tracers.globals["answer"] = answer
    target = function_of(modify, may_override=True)
    with (
        tracers["before_override"].attach_fentry(target),
        tracers["override"].attach_fmod_ret(target),
        tracers["after_override"].attach_fexit(target),
    ):
        assert modify(30, ctypes.addressof(place)) == result
    seen = tracers.globals
    assert (place.value, seen["order"], seen["result"]) == (effects, 123, result % WRAP)


def test_tr_06_the_newest_override_runs_first(code: LinkedImage, tracers: Runtime) -> None:
    modify = native(code, "modify", ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
    place = ctypes.c_int(0)
    target = function_of(modify, may_override=True)
    with tracers["override_older"].attach_fmod_ret(target), tracers["override_newer"].attach_fmod_ret(target):
        assert modify(30, ctypes.addressof(place)) == 5
    assert (place.value, tracers.globals["before"], tracers.globals["overrides"]) == (0, 0, 2)
    with pytest.raises(bpfc.RejectedError) as caught:
        tracers["override"].attach_fmod_ret(modify)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("model", "is_variadic"),
    [
        (Model((U64,) * 13, U64), False),
        (Model((U64,), U64), True),
        (Model((Value(17, is_struct=True),), U64), False),
        (Model((Value(0),), U64), False),
        (Model((U64,), Value(8, is_struct=True)), False),
    ],
    ids=["13-arguments", "variadic", "17-bytes", "void-parameter", "struct-result"],
)
def test_tr_12_prototypes_that_cannot_be_hooked(model: Model, is_variadic: bool) -> None:
    with pytest.raises(bpfc.RejectedError) as caught:
        check_model("f", model, is_variadic)
    assert caught.value.errno == errno.EINVAL


def test_tr_12_a_wide_result_has_no_exit(code: LinkedImage, tracers: Runtime) -> None:
    pointer = ctypes.c_uint64(code.address_of("six"))
    wide = function_at_pointer("six", ctypes.addressof(pointer), Model((U64,) * 6, Value(16)))
    with pytest.raises(bpfc.RejectedError) as caught:
        tracers["all_slots"].attach_fexit(wide)
    assert caught.value.errno == errno.EOPNOTSUPP
    with tracers["all_at_entry"].attach_fentry(wide):
        assert pointer.value != code.address_of("six")
    assert pointer.value == code.address_of("six")


def test_tr_13_without_a_prototype_there_are_five_words_and_a_result(
    code: LinkedImage, tracers: Runtime
) -> None:
    pointer = ctypes.c_uint64(code.address_of("overwrites"))
    target = function_at_pointer("unknown", ctypes.addressof(pointer))
    with tracers["unknown_exit"].attach_fexit(target):
        # Safe because the pointer names the function, or a trampoline for it.
        assert ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(pointer.value)(6) == 7
    assert (tracers.globals["exits"], tracers.globals["result"]) == (1, 7)


def test_tr_16_cookies_and_addresses_of_native_functions(code: LinkedImage, tracers: Runtime) -> None:
    word = ctypes.c_uint64
    first = native(code, "six", word, *[word] * 6)
    second = native(code, "eleven", word, *[word] * 11)
    with ExitStack() as links:
        for cookie, target in enumerate((first, second), 1):
            links.enter_context(tracers["on_entry"].attach_fentry(target, cookie=cookie))
        first(*range(6))
        assert (tracers.globals["cookie"], tracers.globals["address"]) == (1, code.address_of("six"))
        second(*range(11))
        assert (tracers.globals["cookie"], tracers.globals["address"]) == (2, code.address_of("eleven"))


def test_tr_17_the_pointer_is_as_before_after_the_last_detach(code: LinkedImage, tracers: Runtime) -> None:
    pointer = ctypes.c_uint64(code.address_of("overwrites"))
    target = function_at_pointer("overwrites", ctypes.addressof(pointer), Model((U64,), U64))
    link = tracers["all_at_entry"].attach_fentry(target)
    hooked = pointer.value
    link.close()
    assert hooked != pointer.value == code.address_of("overwrites")
    epochs().drain(5)


def test_floating_point_arguments_and_results_pass(code: LinkedImage, tracers: Runtime) -> None:
    half = native(code, "half", ctypes.c_double, ctypes.c_double, ctypes.c_uint64)
    with tracers["all_slots"].attach_fexit(half):
        assert half(5.0, 3) == 2.5
    bits = ctypes.c_uint64.from_buffer(ctypes.c_double(5.0)).value
    assert slots(tracers)[:2] == [bits, 3]
    assert tracers.globals["result"] == ctypes.c_uint64.from_buffer(ctypes.c_double(2.5)).value


def test_tr_23_a_detached_exit_does_not_run_for_a_thread_asleep_in_the_function(
    code: LinkedImage, tracers: Runtime
) -> None:
    waits = native(code, "waits", ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)
    entered, go = ctypes.c_uint64(0), ctypes.c_uint64(0)
    results: list[int] = []
    link = tracers["all_slots"].attach_fexit(waits)

    def sleep() -> None:
        results.append(waits(ctypes.addressof(entered), ctypes.addressof(go)))

    thread = threading.Thread(target=sleep)
    thread.start()
    while not entered.value:
        pass
    link.close()
    for _ in range(50):
        with tracers["entry_a"].attach_fentry(waits), tracers["exit_a"].attach_fexit(waits):
            pass
    assert epochs().collect() > 0
    go.value = 1
    thread.join()
    assert (results, tracers.globals["exits"], tracers.globals["order"]) == ([99], 0, 0)
    epochs().drain(10)


def test_a_function_of_a_stock_library_is_traced(tracers: Runtime) -> None:
    libz = ctypes.CDLL("libz.so.1")
    libz.crc32.argtypes = (ctypes.c_ulong, ctypes.c_char_p, ctypes.c_uint)
    libz.crc32.restype = ctypes.c_ulong
    with tracers["all_slots"].attach_fexit(libz.crc32):
        assert libz.crc32(0, b"hello", 5) == 0x3610A686
    assert libz.crc32(0, b"hello", 5) == 0x3610A686
    assert (tracers.globals["exits"], slots(tracers)[2]) == (1, 5)
    assert tracers.globals["result"] == 0x3610A686


def test_a_call_of_one_library_to_another_is_traced_by_its_table(tracers: Runtime) -> None:
    libz = ctypes.CDLL("libz.so.1")
    size = ctypes.c_ulong(256)
    out = ctypes.create_string_buffer(size.value)
    target = imported("libz.so", "malloc", Model((U64,), U64))
    with tracers["all_at_entry"].attach_fentry(target):
        assert libz.compress(out, ctypes.byref(size), b"x" * 100, ctypes.c_ulong(100)) == 0
    inside = tracers.globals["entries"]
    assert isinstance(inside, int)
    assert inside > 0
    size.value = 256
    assert libz.compress(out, ctypes.byref(size), b"x" * 100, ctypes.c_ulong(100)) == 0
    assert tracers.globals["entries"] == inside
    with pytest.raises(bpfc.RejectedError) as caught:
        imported("libz.so", "no_such_function")
    assert caught.value.errno == errno.ENOENT
