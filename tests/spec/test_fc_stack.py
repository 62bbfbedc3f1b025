"""The combined stack of a chain of calls (FC-04)."""

from __future__ import annotations

import pytest

import bpfc
from ir.kinds import MapType, ProgramType
from ir.object import Map


def chain(main: int, callee: int) -> bpfc.Loaded:
    text = f"""
        *(u64 *)(r10 - {main}) = 1
        call sub
        r1 = *(u64 *)(r10 - {main})
        r0 += r1
        exit
    sub:
        *(u64 *)(r10 - {callee}) = 41
        r0 = *(u64 *)(r10 - {callee})
        exit
    """
    return bpfc.assemble(text)


def test_fc_04_stack_of_256_and_240_is_fine_256_and_272_is_eacces() -> None:
    with chain(256, 240).start() as runtime:
        assert runtime["main"].run(b"").ret == 42
    assert chain(256, 240).verify().ok
    refused = chain(256, 272)
    with (
        refused.start() as runtime,
        pytest.raises(bpfc.RejectedError, match="528 bytes of stack together") as info,
    ):
        runtime["main"]
    assert info.value.errno == 13
    assert refused.verify()["main"].diagnostics[0].errno == 13


def test_frames_that_are_not_in_one_chain_are_not_added() -> None:
    text = """
        *(u64 *)(r10 - 8) = 1
        call first
        call second
        exit
    first:
        *(u64 *)(r10 - 400) = 1
        r0 = 1
        exit
    second:
        *(u64 *)(r10 - 400) = 1
        r0 = 2
        exit
    """
    with bpfc.assemble(text).start() as runtime:
        assert runtime["main"].run(b"").ret == 2


def tail_calling(main: int) -> bpfc.Loaded:
    """Main uses some stack and calls a function that tail-calls, into a table that holds nothing."""
    text = f"""
        *(u64 *)(r10 - {main}) = 1
        call sub
        exit
    sub:
        r2 = map_fd(3)
        r3 = 0
        call 12
        r0 = 5
        exit
    """
    table = Map("programs", MapType.PROG_ARRAY, 4, 4, 1)
    return bpfc.assemble(text, type=ProgramType.XDP, maps={3: table})


def test_a_function_that_tail_calls_may_have_less_than_256_bytes_above_it() -> None:
    fitting = tail_calling(240)
    (missing,) = fitting.verify()["main"].diagnostics
    assert (missing.code, missing.errno) == (
        "bad-exception",
        22,
    )  # the stack is enough; assembly has no types
    with fitting.start() as runtime:
        assert runtime["main"].run(bytes(64)).ret == 5
    refused = tail_calling(256)
    with (
        refused.start() as runtime,
        pytest.raises(bpfc.RejectedError, match="256 bytes of callers' stack") as caught,
    ):
        runtime["main"]
    assert caught.value.errno == 13
