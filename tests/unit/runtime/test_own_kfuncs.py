"""Kernel functions of the user: Python and C functions and LLVM IR, and what is said of those that nobody has."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

import bpfc
from ir.diagnostics import RejectedError, UnsupportedError
from runtime.helpers import LlvmHelper

OBJECT = Path(__file__).parents[2] / "objects" / "own_kfuncs.o"
PACKET = bytes(64)
MARK = {"mark": 7}


def test_a_python_function_gets_as_many_numbers_as_the_object_says() -> None:
    with bpfc.load(OBJECT).start() as runtime:
        given: list[tuple[int, ...]] = []

        def mix(*numbers: int) -> int:
            given.append(numbers)
            return -3

        runtime.kfuncs["mix"] = mix
        runtime.kfuncs["note"] = lambda what: given.append((what,))
        assert runtime["mixed"].run(PACKET, MARK).verdict == 0xFFFF_FFFD
        assert runtime["noted"].run(PACKET, MARK).verdict == 5
    assert given == [(64, 7, 0x100000002), (7,), (8,)]


def test_c_functions_and_llvm_ir_are_called_natively() -> None:
    with bpfc.load(OBJECT).start() as runtime:
        runtime.kfuncs["mix"] = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 3)(
            lambda a, b, c: a + b
        )
        assert runtime["mixed"].run(PACKET, MARK).verdict == 71
    with bpfc.load(OBJECT).start() as runtime:
        body = "%r = sub i64 %c, %b\n  ret i64 %r"
        runtime.kfuncs["mix"] = LlvmHelper(
            f"define i64 @helper(ptr %run, i64 %a, i64 %b, i64 %c, i64 %d, i64 %e) {{\n  {body}\n}}"
        )
        assert runtime["mixed"].run(PACKET, MARK).ret == 0xFFFF_FFFB  # an int's 32 bits


def test_what_a_python_function_raises_comes_out_of_the_run() -> None:
    with bpfc.load(OBJECT).start() as runtime:
        runtime.kfuncs["note"] = lambda what: 1 // (what - 7)
        with pytest.raises(ZeroDivisionError):
            runtime["noted"].run(PACKET, MARK)
        assert runtime["noted"].run(PACKET, {"mark": 9}).ret == 5


def test_a_function_that_nobody_has_is_named_with_the_way_to_give_it() -> None:
    with bpfc.load(OBJECT).start() as runtime:
        with pytest.raises(UnsupportedError, match="kernel function 'mix' has no meaning") as caught:
            runtime["mixed"].run(PACKET)
        (note,) = caught.value.diagnostics[0].notes
        assert note == 'give it one: rt.kfuncs["mix"] = function(r1, r2, r3)'
        runtime.kfuncs["mix"] = lambda *_: 0
        assert runtime["mixed"].run(PACKET).ret == 0


def test_those_that_are_native_stay() -> None:
    with bpfc.load(OBJECT).start() as runtime, pytest.raises(RejectedError, match="bpf_strlen"):
        runtime.kfuncs["bpf_strlen"] = lambda *_: 0


def test_nothing_stands_for_a_function_that_never_returns() -> None:
    with bpfc.load(OBJECT).start() as runtime, pytest.raises(RejectedError, match="never returns"):
        runtime.kfuncs["bpf_throw"] = lambda cookie: 0
