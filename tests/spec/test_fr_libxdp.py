"""libxdp's dispatcher from Debian's own objects, unmodified: filters attached, swapped and traced while packets flow."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bpfc
from tools.demo import DemoError, run_demo

if TYPE_CHECKING:
    from bpfc.loaded import Loaded
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram

pytestmark = pytest.mark.little_endian("Debian builds them so")

OBJECTS = Path(__file__).parent.parent / "objects"
PASS = 2
UNCHANGED = 31  # what a dispatcher's slot returns while nothing replaces it
FILTERS = ("xdpfilt_alw_tcp", "xdpfilt_dny_udp", "xdpfilt_alw_ip", "xdpfilt_dny_eth", "xdpfilt_alw_udp")


def packet(protocol: int, port: int) -> bytes:
    """An Ethernet frame with IPv4 and TCP (6) or UDP (17)."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, protocol, 0, bytes(4), bytes(4))
    ports = struct.pack("!HH", 1000, port)
    rest = struct.pack("!IIBBHHH", 0, 0, 0x50, 2, 0, 0, 0) if protocol == 6 else bytes(16)
    return bytes(12) + b"\x08\x00" + ip + ports + rest


PACKETS = [packet(6, 80), packet(17, 53), packet(6, 22), packet(17, 123), bytes(60)]


def load(objects: Path, name: str) -> Loaded:
    path = next(objects.rglob(f"{name}.o"), None)
    if path is None:
        pytest.skip(f"no {name}.o among the Debian objects")
    return bpfc.load(path)


@pytest.fixture
def dispatcher(debian_objects: Path) -> Iterator[RunningProgram]:
    source = load(debian_objects, "xdp-dispatcher")
    conf = source.rodata["conf"]
    assert isinstance(conf, dict)
    count = len(FILTERS)
    source.rodata["conf"] = {
        **conf,
        "num_progs_enabled": count,
        "chain_call_actions": [1 << PASS | 1 << UNCHANGED] * 10,
    }
    with source.start() as runtime:
        yield runtime["xdp_dispatcher"]


@pytest.fixture
def filters(debian_objects: Path) -> Iterator[list[RunningProgram]]:
    with ExitStack() as stack:
        runtimes: list[Runtime] = [
            stack.enter_context(load(debian_objects, name).start()) for name in FILTERS
        ]
        yield [runtime[name] for runtime, name in zip(runtimes, FILTERS, strict=True)]


def one_by_one(filters: list[RunningProgram], data: bytes) -> int:
    verdict = PASS
    for program in filters:
        verdict = program.run(data).verdict
        if verdict != PASS:
            break
    return verdict


def test_the_dispatcher_runs_filters_as_they_run_alone(
    dispatcher: RunningProgram, filters: list[RunningProgram]
) -> None:
    expected = [one_by_one(filters, data) for data in PACKETS]
    assert len(set(expected)) > 1
    with ExitStack() as links:
        for number, program in enumerate(filters):
            links.enter_context(program.attach_freplace(dispatcher, f"prog{number}"))
        assert [dispatcher.run(data).verdict for data in PACKETS] == expected
        assert list(dispatcher.run_batch(PACKETS)) == expected
    assert one_by_one(filters, PACKETS[0]) == expected[0]


def test_a_filter_is_swapped_while_packets_flow(
    dispatcher: RunningProgram, filters: list[RunningProgram]
) -> None:
    first, second = filters[0], filters[1]
    allowed = [{first.run(data).verdict, second.run(data).verdict, PASS, UNCHANGED} for data in PACKETS]
    done = threading.Event()
    seen: list[set[int]] = [set() for _ in PACKETS]

    def flow() -> None:
        while not done.is_set():
            for results, verdict in zip(seen, dispatcher.run_batch(PACKETS), strict=True):
                results.add(verdict)

    thread = threading.Thread(target=flow)
    thread.start()
    for _ in range(50):
        first.attach_freplace(dispatcher, "prog0").close()
        second.attach_freplace(dispatcher, "prog0").close()
    done.set()
    thread.join()
    assert all(results <= may for results, may in zip(seen, allowed, strict=True))


def test_xdpdump_attaches_to_a_filter_of_the_dispatcher(
    debian_objects: Path, dispatcher: RunningProgram, filters: list[RunningProgram]
) -> None:
    with (
        load(debian_objects, "xdpdump_bpf").start() as dump,
        filters[1].attach_freplace(dispatcher, "prog0") as link,
    ):
        plain = [dispatcher.run(data).verdict for data in PACKETS]
        with (
            bpfc.enable_stats(),
            dump["trace_on_entry"].attach_fentry(link),
            dump["trace_on_exit"].attach_fexit(link),
        ):
            assert [dispatcher.run(data).verdict for data in PACKETS] == plain
        counts = [dump[name].statistics.run_cnt for name in ("trace_on_entry", "trace_on_exit")]
    assert counts == [len(PACKETS)] * 2
    assert len(set(plain)) > 1


@pytest.mark.host_only("the demo starts processes of its own")
def test_the_demo_shows_what_it_says(debian_objects: Path) -> None:
    """`make demo`: ten filters attached one by one, one swapped, one traced, while another thread runs packets."""
    if next(debian_objects.rglob("xdp-dispatcher.o"), None) is None:
        pytest.skip("no xdp-dispatcher.o among the Debian objects")
    lines: list[str] = []
    run_demo(debian_objects, OBJECTS / "sample.pcap", lines.append)
    assert lines[0].startswith("xdp-dispatcher.o: 10 programs enabled; 500 packets of")
    stages = [line for line in lines if line.endswith("as one by one")]
    assert [line.split()[0] for line in stages] == [f"prog{number}" for number in range(10)]
    assert "XDP_PASS  77, XDP_DROP 374, XDP_ABORTED  49" in stages[-1]
    assert lines[11].startswith("prog8 <- xdpfilt_dny_udp  XDP_PASS  28, XDP_DROP 423, XDP_ABORTED  49")
    assert "1000 captured" in lines[12]
    assert lines[13] == "detached: every packet passes again"


@pytest.mark.host_only("the demo starts processes of its own")
def test_the_demo_says_what_it_misses(tmp_path: Path) -> None:
    with pytest.raises(DemoError) as caught:
        run_demo(tmp_path, OBJECTS / "sample.pcap", lambda _: None)
    assert "run tools/fetch_objects.sh (Debian's package libxdp1)" in str(caught.value)
