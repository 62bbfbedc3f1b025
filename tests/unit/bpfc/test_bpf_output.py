"""BPF as a target, with Linux as the judge: what is written loads where what was read does, and does the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import bpfc
from bpfc.pcap import read_pcap
from bpfc.testing.kernel import run_program
from bpfc.testing.libbpf import can_open, is_installed, loaded, program_names
from ir.diagnostics import DiagnosticError
from ir.kinds import ProgramType

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not is_installed(), reason="libbpf.so.1 is not installed"),
]

OBJECTS = Path(__file__).parents[2] / "objects"
OWN = (
    "xdp_stats.o",
    "globals.o",
    "hooked.o",
    "map_ops.o",
    "packet_ops.o",
    "socket_filter.o",
    "tc_classify.o",
)
RUNNABLE = (ProgramType.XDP, ProgramType.SCHED_CLS, ProgramType.SOCKET_FILTER)
PACKETS = [packet.data for packet in read_pcap(OBJECTS / "sample.pcap")][::25]
SMALLEST = 14  # bytes of a packet that the kernel runs


def compare(source: bpfc.Loaded) -> tuple[int, int]:
    """How many programs load before, all of which must after; and how many of these were run and did the same."""
    data = source.emit_bpf()
    before = program_names(source.source)
    assert program_names(data).keys() == before.keys()
    accepted = ran = 0
    for name in before:
        with loaded(source.source, name) as old, loaded(data, name) as new:
            if old is None:
                continue
            assert new is not None, f"{name} is refused"
            accepted += 1
            if source.programs[name].type in RUNNABLE:
                ran += 1
                for packet in PACKETS:
                    if len(packet) >= SMALLEST:
                        assert run_program(new, packet) == run_program(old, packet), name
    return accepted, ran


@pytest.mark.parametrize("name", OWN)
def test_own_objects_load_and_do_the_same(name: str) -> None:
    source = bpfc.load(OBJECTS / name)
    accepted, ran = compare(source)
    assert accepted > 0
    assert ran > 0


def test_specialized_objects_load_and_do_the_same() -> None:
    source = bpfc.load(OBJECTS / "xdp_stats.o")
    source.rodata["debug"] = 1
    source.rodata["blocked_port"] = 80
    data = source.emit_bpf()
    unchanged = source.emit_bpf(options=bpfc.Options(level="O0"))
    with loaded(unchanged, "xdp_stats") as old, loaded(data, "xdp_stats") as new:
        assert old is not None
        assert new is not None
        for packet in PACKETS:
            if len(packet) >= SMALLEST:
                assert run_program(new, packet) == run_program(old, packet)


@pytest.mark.slow
def test_debian_objects_load_and_do_the_same(debian_objects: Path) -> None:
    """BPFC_ALL_OBJECTS=1 takes all of them (a minute or two), else one in eight."""
    accepted = 0
    step = 1 if os.environ.get("BPFC_ALL_OBJECTS") else 8
    for path in sorted(debian_objects.rglob("*.o"))[::step]:
        try:
            source = bpfc.load(path)
            source.emit_bpf()
        except DiagnosticError:
            continue
        if can_open(source.source):
            accepted += compare(source)[0]
    assert accepted > 0
