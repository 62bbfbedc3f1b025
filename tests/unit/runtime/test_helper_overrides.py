"""Users' own helpers: Python functions, C functions, LLVM IR; and what is said of helpers that nobody has."""

from __future__ import annotations

import ctypes
import os

import pytest

import bpfc
from bpfc import UnsupportedError
from ir.diagnostics import RejectedError
from ir.kinds import MapType, ProgramType
from ir.object import Map
from runtime.helpers import LlvmHelper
from runtime.maps.view import MapView

CLOCK, SIGNAL, PROBE, LOOKUP, SYSCALL = 5, 109, 4, 1, 166
HASH = Map("hash", MapType.HASH, 4, 8, 8)


def call(id: int, before: str = "") -> bpfc.Loaded:
    text = f"r6 = r1\nr1 = 1\nr2 = 2\nr3 = 3\nr4 = 4\nr5 = 5\n{before}\ncall {id}\nexit"
    return bpfc.assemble(text, type=ProgramType.KPROBE, maps={3: HASH})


def test_a_python_function_takes_a_native_helpers_place() -> None:
    with call(CLOCK).start() as runtime:
        assert runtime["main"].run().ret > 42
        runtime.helpers["bpf_ktime_get_ns"] = lambda: 42
        assert runtime["main"].run().ret == 42
        assert runtime["main"].run().ret == 42
        assert runtime.world.helpers.calls == {"bpf_ktime_get_ns": 2}
        del runtime.helpers["bpf_ktime_get_ns"]
        assert runtime["main"].run().ret > 42


def test_a_python_function_gets_numbers_for_numbers() -> None:
    seen = []

    def send(signal: int) -> int:
        seen.append(signal)
        return -7

    with call(SIGNAL).start() as runtime:
        runtime.helpers["bpf_send_signal"] = send
        assert runtime["main"].run().ret == (1 << 64) - 7
    assert seen == [1]


def test_a_python_function_writes_the_programs_memory() -> None:
    def read(to: memoryview, size: int, address: int) -> int:
        to[:] = bytes(range(size))
        return address

    before = "r1 = r10\nr1 += -8\nr2 = 8\nr3 = 0x1234"
    text = f"{before}\ncall {PROBE}\nr0 = *(u64 *)(r10 - 8)\nexit"
    with bpfc.assemble(text, type=ProgramType.KPROBE).start() as runtime:
        runtime.helpers["bpf_probe_read"] = read
        assert runtime["main"].run().ret == int.from_bytes(bytes(range(8)), "little")


def test_a_python_function_gets_a_map_as_its_view() -> None:
    seen: list[object] = []

    def lookup(map: MapView, key: memoryview) -> int:
        seen.extend((map.name, bytes(key)))
        return 0

    before = "*(u32 *)(r10 - 4) = 77\nr1 = map_fd(3)\nr2 = r10\nr2 += -4"
    with call(LOOKUP, before).start() as runtime:
        runtime.helpers["bpf_map_lookup_elem"] = lookup
        assert runtime["main"].run().ret == 0
    assert seen == ["hash", b"\x4d\0\0\0"]


def test_what_a_python_function_raises_comes_out_of_the_run() -> None:
    def fail() -> int:
        raise LookupError("no clock here")

    with call(CLOCK).start() as runtime:
        runtime.helpers["bpf_ktime_get_ns"] = fail
        with pytest.raises(LookupError, match="no clock here"):
            runtime["main"].run()


def test_a_c_function_is_called_with_the_registers() -> None:
    prototype = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 5)
    add = prototype(lambda a, b, c, d, e: a + 10 * b + 100 * c + 1000 * d + 10000 * e)
    with call(SIGNAL).start() as runtime:
        runtime.helpers["bpf_send_signal"] = add
        result = runtime["main"].run().ret
    assert result % 10 == 1
    with call(CLOCK).start() as runtime:
        runtime.helpers["bpf_ktime_get_ns"] = ctypes.CDLL(None).getpid
        assert runtime["main"].run().verdict == os.getpid()


def test_llvm_ir_takes_a_helpers_place() -> None:
    text = """
        define i64 @helper(ptr %run, i64 %r1, i64 %r2, i64 %r3, i64 %r4, i64 %r5) {
          %double = mul i64 %r1, 2
          ret i64 %double
        }
    """
    with call(SIGNAL, "r1 = 21").start() as runtime:
        runtime.helpers["bpf_send_signal"] = LlvmHelper(text)
        assert runtime["main"].run().ret == 42


def test_a_helper_that_nobody_has_is_named_with_the_way_out() -> None:
    text = f"r2 = r10\nr2 += -8\n*(u64 *)(r2 + 0) = 0\nr1 = 0\nr3 = 8\ncall {SYSCALL}\nexit"
    with (
        bpfc.assemble(text, type=ProgramType.SYSCALL).start() as runtime,
        pytest.raises(UnsupportedError) as caught,
    ):
        runtime["main"].run()
    said = str(caught.value)
    assert "bpf_sys_bpf (166)" in said
    assert 'rt.helpers["bpf_sys_bpf"]' in said


def test_a_name_that_is_no_helper_is_refused() -> None:
    with call(CLOCK).start() as runtime, pytest.raises(RejectedError, match="bpf_ktime_get_n'"):
        runtime.helpers["bpf_ktime_get_n"] = lambda: 0


def test_random_numbers_are_the_same_in_every_run_of_the_same_seed() -> None:
    def numbers() -> list[int]:
        with call(7).start() as runtime:
            return [runtime["main"].run().ret for _ in range(5)]

    first = numbers()
    assert first == numbers()
    assert len(set(first)) == 5
    assert all(0 <= number < 1 << 32 for number in first)
