"""Programs around XDP programs, and libxdp's xdpdump, unmodified: what they see of packets, and what they report."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bpfc

if TYPE_CHECKING:
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram
    from runtime.space import Space

OBJECTS = Path(__file__).parent.parent / "objects"
PACKETS = [bytes(range(64)), bytes(range(100, 142)), b"\xff" * 1500]
QUEUE = {"ingress_ifindex": 7, "rx_queue_index": 2}


@pytest.fixture
def target() -> Iterator[RunningProgram]:
    with bpfc.load(OBJECTS / "xdp_stats.o").start() as runtime:
        yield runtime["xdp_stats"]


@pytest.fixture
def tracers() -> Iterator[Runtime]:
    with bpfc.load(OBJECTS / "packet_tracers.o").start() as runtime:
        yield runtime


def test_a_tracer_sees_packet_queue_and_device(target: RunningProgram, tracers: Runtime) -> None:
    with tracers["looks"].attach_fexit(target):
        for packet in PACKETS:
            verdict = target.run(packet, QUEUE).verdict
            seen = tracers.globals
            found = [seen[name] for name in ("length", "ifindex", "queue", "verdict")]
            assert found == [len(packet), 7, 2, verdict]
        target.run_batch(PACKETS, ctx={"ingress_ifindex": 9})
        assert [seen[name] for name in ("seen", "length", "ifindex", "queue")] == [6, 1500, 9, 0]


def test_a_tracer_sends_packets_to_python(target: RunningProgram, tracers: Runtime, machine: Space) -> None:
    with tracers["sends"].attach_fentry(target):
        for packet in PACKETS:
            target.run(packet)
    mark = (0xABCD).to_bytes(4, machine.target.byte_order)
    expected = [mark + packet[: len(packet) & 0xFF] for packet in PACKETS]
    events = [bytes(event) for event in tracers.maps["events"]]
    assert [event[: len(wanted)] for event, wanted in zip(events, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("name", "code", "number"),
    [
        ("asks_too_much", "core-unresolved", errno.EINVAL),
        ("stores", "object-access", errno.EACCES),
        ("sends_something", "helper-argument", errno.EACCES),
    ],
)
def test_what_is_not_there_is_refused(
    target: RunningProgram, tracers: Runtime, name: str, code: str, number: int
) -> None:
    with pytest.raises(bpfc.RejectedError) as caught:
        tracers[name].attach_fentry(target)
    assert (caught.value.diagnostics[0].code, caught.value.errno) == (code, number)


@pytest.mark.little_endian("Debian builds it so")
def test_xdpdump_reports_the_packets_of_a_running_program(
    debian_objects: Path, target: RunningProgram
) -> None:
    """Its records: ifindex, queue, packet and captured length, flags (1: at exit), program, verdict, packet."""
    path = next(debian_objects.rglob("xdpdump_bpf.o"), None)
    if path is None:
        pytest.skip("no xdpdump_bpf.o among the Debian objects")
    source = bpfc.load(path)
    source.data["trace_cfg"] = {"capture_if_ifindex": 7, "capture_snaplen": 50, "capture_prog_index": 3}
    expected = []
    with (
        source.start() as dump,
        dump["trace_on_entry"].attach_fentry(target),
        dump["trace_on_exit"].attach_fexit(target),
    ):
        for packet in PACKETS:
            verdict = target.run(packet, QUEUE).verdict
            captured = packet[:50]
            head = (7, 2, len(packet), len(captured))
            expected += [(*head, 0, 3, 0, captured), (*head, 1, 3, verdict, captured)]
            target.run(packet, {"ingress_ifindex": 8})
        found = []
        for event in dump.maps["xdpdump_perf_map"]:
            *head, verdict = struct.unpack_from("=IIHHHHi", bytes(event))
            found.append((*head, verdict, bytes(event)[20 : 20 + head[3]]))
    assert found == expected
