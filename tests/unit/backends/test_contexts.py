"""Pointers to the context that took a detour: kept on the stack, moved on some ways."""

from __future__ import annotations

import pytest

import bpfc
from ir.diagnostics import TrapError
from ir.kinds import ProgramType

KEPT = """
    *(u64 *)(r10 - 16) = r1
    r1 = r10
    r1 += -8
    call callee
    r6 = *(u64 *)(r10 - 16)
    r0 = *(u32 *)(r6 + 12)
    exit
callee:
    *(u64 *)(r1 + 0) = 7
    r0 = 0
    exit
"""
MOVED = """
    r6 = r1
    r2 = *(u32 *)(r1 + 12)
    if r2 == 7 goto same
    r6 += 4
same:
    r0 = *(u32 *)(r6 + 20)
    exit
"""


def test_a_context_kept_on_the_stack_of_which_another_function_got_a_part_is_found_again() -> None:
    with bpfc.assemble(KEPT, type=ProgramType.XDP).start() as runtime:
        assert runtime["main"].run(bytes(64), {"ingress_ifindex": 9}).ret == 9


def test_a_context_pointer_that_was_moved_on_one_way_reaches_nothing_but_the_context() -> None:
    with bpfc.assemble(MOVED, type=ProgramType.XDP).start() as runtime:
        program = runtime["main"]
        assert program.run(bytes(64), {"ingress_ifindex": 7, "egress_ifindex": 5}).ret == 5
        with pytest.raises(TrapError, match="outside the memory"):
            program.run(bytes(64), {"ingress_ifindex": 1})


PASSED_ON = """
    r6 = r1
    *(u64 *)(r10 - 16) = r6
    r7 = 2
again:
    r1 = r10
    r1 += -8
    call fill
    r6 = *(u64 *)(r10 - 16)
    r1 = r6
    call reads
    r7 += -1
    if r7 != 0 goto again
    exit
fill:
    *(u64 *)(r1 + 0) = 7
    r0 = 0
    exit
reads:
    r0 = *(u32 *)(r1 + 12)
    exit
"""


def test_a_function_reads_the_context_that_its_caller_kept_on_the_stack() -> None:
    with bpfc.assemble(PASSED_ON, type=ProgramType.XDP).start() as runtime:
        assert runtime["main"].run(bytes(64), {"ingress_ifindex": 9}).ret == 9


LOAD = "r0 = *(u32 *)(r1 + 12)"
MEASURE = """
    r0 = *(u32 *)(r1 + 4)
    r2 = *(u32 *)(r1 + 0)
    r0 -= r2
"""


def test_a_function_measures_the_packet_of_a_context_that_was_kept() -> None:
    with bpfc.assemble(PASSED_ON.replace(LOAD, MEASURE), type=ProgramType.XDP).start() as runtime:
        assert runtime["main"].run(bytes(70)).ret == 70
