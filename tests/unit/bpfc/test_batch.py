"""Batches: packets laid out once, run in place by one native loop."""

from __future__ import annotations

import ctypes

import numpy
import pytest

import bpfc
from bpfc.batch import Batch

ADD_ONE = """
    r3 = *(u8 *)(r1 + 0)
    r3 += 1
    *(u8 *)(r1 + 0) = r3
    r0 = r3
    exit
"""
FOLLOW = """
    r2 = *(u64 *)(r1 + 0)
    r0 = *(u8 *)(r2 + 0)
    exit
"""


def test_a_batch_runs_in_place_and_gives_a_result_for_each_packet() -> None:
    packets = [bytearray([number, 0]) for number in (1, 5, 250)]
    with bpfc.assemble(ADD_ONE).start() as runtime:
        assert list(runtime["main"].run_batch(packets)) == [2, 6, 251]
    assert [packet[0] for packet in packets] == [2, 6, 251]


def test_a_batch_may_be_run_again() -> None:
    batch = Batch([bytearray(8), bytearray(8)])
    with bpfc.assemble(ADD_ONE).start() as runtime:
        runtime["main"].run_batch(batch)
        assert list(runtime["main"].run_batch(batch)) == [2, 2]


def test_read_only_packets_are_run_in_copies() -> None:
    packet = b"\x07"
    with bpfc.assemble(ADD_ONE).start() as runtime:
        assert list(runtime["main"].run_batch([packet])) == [8]
    assert packet == b"\x07"


def test_rows_of_an_array_are_run_in_place() -> None:
    rows = numpy.zeros((3, 16), dtype=numpy.uint8)
    rows[:, 0] = [10, 20, 30]
    with bpfc.assemble(ADD_ONE).start() as runtime:
        rets = runtime["main"].run_batch(rows)
    assert list(rets) == [11, 21, 31]
    assert list(rows[:, 0]) == [11, 21, 31]


def test_lengths_end_packets_before_their_rows() -> None:
    rows = numpy.zeros((2, 16), dtype=numpy.uint8)
    with (
        bpfc.assemble("r0 = *(u8 *)(r1 + 3)\nexit").start() as runtime,
        pytest.raises(bpfc.TrapError) as caught,
    ):
        runtime["main"].run_batch(rows, lengths=[4, 3])
    assert caught.value.diagnostics[0].notes == ("packet 1 of the batch",)


def test_an_array_of_one_dimension_is_no_batch() -> None:
    with pytest.raises(bpfc.RejectedError) as caught:
        Batch(numpy.zeros(16, dtype=numpy.uint8))  # type: ignore[arg-type]  # what a wrong caller does
    assert caught.value.diagnostics[0].code == "bad-batch"


def test_no_packets_give_no_results() -> None:
    with bpfc.assemble(ADD_ONE).start() as runtime:
        assert list(runtime["main"].run_batch([])) == []


def test_a_packet_may_point_into_itself() -> None:
    packet = bytearray(16)
    address = ctypes.addressof(ctypes.c_uint8.from_buffer(packet))
    packet[:8] = (address + 9).to_bytes(8, "little")
    packet[9] = 77
    with bpfc.assemble(FOLLOW).start() as runtime:
        assert list(runtime["main"].run_batch([packet])) == [77]


def test_a_packet_that_points_into_another_one_traps() -> None:
    packets = [bytearray(16), bytearray(16)]
    for packet, other in (packets, packets[::-1]):
        address = ctypes.addressof(ctypes.c_uint8.from_buffer(other))
        packet[:8] = (address + 9).to_bytes(8, "little")
    with bpfc.assemble(FOLLOW).start() as runtime, pytest.raises(bpfc.TrapError) as caught:
        runtime["main"].run_batch(packets)
    assert caught.value.diagnostics[0].code == "out-of-bounds"
