"""Pointers whose place is known only in part: joined, passed on, into the context, to kernel objects."""

from __future__ import annotations

import ctypes
import struct
import sys

import pytest

import bpfc
from ir.diagnostics import DiagnosticError, TrapError
from ir.kinds import MapType, ProgramType
from ir.object import Map

FD = 3
KINDS = {
    "array": Map("m", MapType.ARRAY, 4, 8, 2),
    "hash": Map("m", MapType.HASH, 4, 8, 2),
    "lru": Map("m", MapType.LRU_HASH, 4, 8, 2),
    "per-cpu hash": Map("m", MapType.PERCPU_HASH, 4, 8, 2),
    "trie": Map("m", MapType.LPM_TRIE, 8, 8, 2, flags=1),
}
# The value of key 0 or, where there is none, a place on the stack: adds to it and gives it back.
JOINED = """
    r6 = *(u8 *)(r1 + 0)
    *(u64 *)(r10 - 16) = 0
    *(u64 *)(r10 - 24) = 40
    if r6 == 0 goto +9
    *(u64 *)(r10 - 8) = 1
    r1 = map_fd(3)
    r2 = r10
    r2 += -16
    r3 = r10
    r3 += -8
    r4 = 0
    call 2
    r1 = map_fd(3)
    r2 = r10
    r2 += -16
    call 1
    if r0 != 0 goto +2
    r0 = r10
    r0 += -24
    r1 = *(u64 *)(r0 + 0)
    r1 += 2
    *(u64 *)(r0 + 0) = r1
    r0 = r1
    exit
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_pointer_may_be_to_a_value_or_to_the_stack(kind: str) -> None:
    found_first = 2 if kind == "array" else 42
    with bpfc.assemble(JOINED, maps={FD: KINDS[kind]}).start() as runtime:
        program = runtime["main"]
        assert [program.run(bytes([first])).ret for first in (0, 1, 0, 1, 1)] == [found_first, 3, 5, 3, 3]


def test_a_joined_pointer_does_not_reach_what_lies_between_values() -> None:
    text = JOINED.replace("(r0 + 0)", "(r0 + 8)")
    with bpfc.assemble(text, maps={FD: KINDS["hash"]}).start() as runtime, pytest.raises(TrapError):
        runtime["main"].run(b"\x01")


def test_a_called_function_passes_its_callers_stack_to_a_helper() -> None:
    text = """
        *(u64 *)(r10 - 16) = 0
        *(u64 *)(r10 - 8) = 0
        r1 = r10
        r1 += -16
        call pc+2
        r0 = *(u8 *)(r10 - 16)
        exit
        r2 = 16
        call 16
        exit
    """
    with (
        bpfc.assemble(text, type=ProgramType.KPROBE).start() as runtime,
        open("/proc/self/comm", "rb") as file,
    ):
        assert runtime["main"].run().ret == file.read(1)[0]


def test_a_context_field_is_read_through_a_pointer_that_has_moved() -> None:
    fields = {"ingress_ifindex": 7, "rx_queue_index": 9}
    joined = """
        r6 = *(u32 *)(r1 + 12)
        if r6 == 7 goto +2
        r1 += 12
        goto +1
        r1 += 16
        r0 = *(u32 *)(r1 + 0)
        exit
    """
    passed = "r1 += 12\ncall pc+1\nexit\nr0 = *(u32 *)(r1 + 4)\nexit"
    for text, wanted in ((joined, 9), (passed, 9)):
        with bpfc.assemble(text, type=ProgramType.XDP).start() as runtime:
            assert runtime["main"].run(bytes(64), fields).ret == wanted


@pytest.mark.parametrize(
    "text",
    [
        "r6 = *(u32 *)(r1 + 12)\nif r6 == 7 goto +1\nr1 += 4\nr0 = *(u32 *)(r1 + 0)\nr0 = 0\nexit",
        "r1 += 24\ncall pc+1\nexit\nr0 = *(u32 *)(r1 + 0)\nexit",
    ],
    ids=["this packet pointer or that", "past the end"],
)
def test_a_context_access_in_doubt_is_refused(text: str) -> None:
    with pytest.raises(DiagnosticError) as caught, bpfc.assemble(text, type=ProgramType.XDP).start() as rt:
        rt["main"].run(bytes(64))
    assert caught.value.diagnostics[0].code == "context-access"


def test_a_helper_reads_the_context_as_the_program_sees_it() -> None:
    text = """
        r3 = r1
        r3 += 16
        r1 = r10
        r1 += -8
        r2 = 4
        call 113
        r0 = *(u32 *)(r10 - 8)
        exit
    """
    with bpfc.assemble(text, type=ProgramType.XDP).start() as runtime:
        assert runtime["main"].run(bytes(64), {"rx_queue_index": 9}).ret == 9


READS = "r1 = *(u64 *)(r1 + 0)\nr1 = *(u64 *)(r1 + 8)\nr0 = *(u32 *)(r1 + 4)\nexit"


@pytest.mark.parametrize("target", [None, "aarch64", "s390x"])
def test_a_tracing_program_reads_0_where_no_object_is(target: str | None) -> None:
    if target is not None:
        pytest.importorskip("unicorn")
    big = target == "s390x"
    loaded = bpfc.assemble(READS, type=ProgramType.TRACING, big_endian=big)
    with loaded.start(target=target) as runtime:
        assert runtime["main"].run(ctx={}).ret == 0


def test_a_tracing_program_reads_objects_where_they_are() -> None:
    inner = ctypes.create_string_buffer(struct.pack("=2I", 1, 0xFEDCBA98))
    outer = ctypes.create_string_buffer(struct.pack("=2Q", 0, ctypes.addressof(inner)))
    with bpfc.assemble(READS, type=ProgramType.TRACING).start() as runtime:
        data = ctypes.addressof(outer).to_bytes(8, sys.byteorder)
        assert runtime["main"].run(data).ret == 0xFEDCBA98


def test_any_program_reads_the_objects_that_helpers_give() -> None:
    text = "call 158\nr0 = *(u64 *)(r0 + 8)\nexit"
    with bpfc.assemble(text, type=ProgramType.KPROBE).start() as runtime:
        assert runtime["main"].run().ret == 0
    with (
        bpfc.assemble(
            "r1 = *(u64 *)(r1 + 0)\nr0 = *(u64 *)(r1 + 8)\nexit", type=ProgramType.KPROBE
        ).start() as rt,
        pytest.raises(TrapError),
    ):
        rt["main"].run()
