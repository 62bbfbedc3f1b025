"""libxdp's demo from Debian's own objects: `make demo`, or `python -m tools.demo [FOLDER] [PCAP]`.

    xdp-dispatcher.o   | prog0 | prog1 | ... | prog9 |     ten empty functions, called one after another
                           ^       ^             ^
    xdpfilt_*.o          alw_tcp alw_udp       alw_tcp     put in their places while another thread runs packets

Each stage is compared with the filters run one by one; the other thread may only see verdicts of some stage.
FOLDER is as tools/fetch_objects.sh leaves it.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import bpfc
from bpfc.pcap import read_pcap
from bpfc.verdicts import name_verdict
from ir.kinds import ProgramType

if TYPE_CHECKING:
    from bpfc.links import Link
    from bpfc.loaded import Loaded
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram

FOLDER: Final = Path(".cache/debian")
PCAP: Final = Path("tests/objects/sample.pcap")
PASS: Final = 2
UNREPLACED: Final = 31  # what an empty function of the dispatcher returns (XDP_DISPATCHER_RETVAL of libxdp)
INTERFACE: Final = 1  # that xdpdump looks at: only the packets of one batch come from it
DESTINATION, TCP, UDP = 2, 4, 8  # flags of xdp-filter's map entries

ECHO, TELNET, DNS, HTTP, HTTPS = map(socket.htons, (7, 23, 53, 80, 443))  # as packets have them
Rules = Mapping[str, Mapping[int | bytes, int]]
DENIED: Final[Rules] = {
    "filter_ports": {TELNET: DESTINATION | TCP, ECHO: DESTINATION | UDP},
    "filter_ipv4": {bytes([198, 51, 100, 6]): DESTINATION},
    "filter_ethernet": {bytes.fromhex("020000000006"): DESTINATION},
}
ALLOWED: Final[Rules] = {
    "filter_ports": dict.fromkeys((DNS, HTTP, HTTPS), DESTINATION | TCP | UDP),
    "filter_ipv4": {bytes([198, 51, 100, last]): DESTINATION for last in range(1, 8)},
    "filter_ethernet": {bytes.fromhex(f"02000000000{last}"): DESTINATION for last in range(8)},
}
NO_HOST_7: Final[Rules] = {"filter_ipv4": {bytes([198, 51, 100, 7]): DESTINATION}}
NO_HTTP: Final[Rules] = {"filter_ports": {HTTP: DESTINATION | TCP}}
CHAIN: Final = (
    *(("xdpfilt_alw_tcp", DENIED), ("xdpfilt_alw_udp", DENIED), ("xdpfilt_alw_ip", DENIED)),
    *(("xdpfilt_alw_eth", DENIED), ("xdpfilt_alw_all", NO_HOST_7), ("xdpfilt_dny_eth", ALLOWED)),
    *(("xdpfilt_dny_ip", ALLOWED), ("xdpfilt_dny_all", ALLOWED), ("xdpfilt_dny_tcp", ALLOWED)),
    ("xdpfilt_alw_tcp", NO_HTTP),
)
SWAPPED: Final = 8  # the place of dny_tcp, which dny_udp takes
TRACED: Final = 0

Say = Callable[[str], None]


class DemoError(Exception):
    """Something is not there, or did not come out as it must."""


def main() -> None:
    """The demo on stdout; exit code 1 when something does not come out as it must."""
    folder, pcap = (*map(Path, sys.argv[1:3]), *(FOLDER, PCAP)[len(sys.argv[1:3]) :])
    try:
        run_demo(folder, pcap, _print)
    except DemoError as error:
        sys.exit(f"demo: {error}")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run_demo(folder: Path, pcap: Path, say: Say) -> None:
    """Attach, swap and trace filters while packets flow. Raises DemoError."""
    packets = [packet.data for packet in read_pcap(pcap)]
    with ExitStack() as stack:
        dispatcher = stack.enter_context(_start_dispatcher(folder, len(CHAIN)))
        filters = [_start_filter(stack, folder, name, rules) for name, rules in CHAIN]
        other = _start_filter(stack, folder, "xdpfilt_dny_udp", ALLOWED)
        say(f"xdp-dispatcher.o: {len(CHAIN)} programs enabled; {len(packets)} packets of {pcap}")
        chains = [filters[:count] for count in range(len(filters) + 1)]
        swapped = [*filters[:SWAPPED], other, *filters[SWAPPED + 1 :]]
        legal = [one_by_one(chain, packets) for chain in [*chains, swapped]]
        with _flow(dispatcher, packets) as flow:
            links = _attach(say, dispatcher, filters, packets, legal)
            _swap(say, dispatcher, links, other, packets, legal[-1])
            _trace(say, folder, dispatcher, links[TRACED], packets)
            for link in reversed(links):
                link.close()
            _expect(dispatcher.run_batch(packets), legal[0], "after the last filter was detached")
            say("detached: every packet passes again")
        strange = flow.strange(legal)
        if strange:
            raise DemoError(f"packets under way got verdicts of no stage: {strange}")
        say(f"meanwhile: {flow.batches} batches in another thread, each verdict that of one of the stages")


def one_by_one(filters: Sequence[RunningProgram], packets: Sequence[bytes]) -> list[int]:
    """The verdict on each packet of filters that run one after another until one does not pass it."""
    return [next((v for v in _verdicts(filters, data) if v != PASS), PASS) for data in packets]


def _verdicts(filters: Sequence[RunningProgram], data: bytes) -> Iterator[int]:
    return (program.run(data).verdict for program in filters)


def _load(folder: Path, name: str) -> Loaded:
    path = next(iter(sorted(folder.rglob(f"{name}.o"))), None)
    if path is None:
        raise DemoError(f"no {name}.o below {folder}: run tools/fetch_objects.sh (Debian's package libxdp1)")
    return bpfc.load(path)


@contextmanager
def _start_dispatcher(folder: Path, count: int) -> Iterator[RunningProgram]:
    """The dispatcher, configured in .rodata for `count` programs, going on after what passes."""
    source = _load(folder, "xdp-dispatcher")
    conf: Any = source.rodata["conf"]
    actions = [1 << PASS | 1 << UNREPLACED] * len(conf["chain_call_actions"])
    source.rodata["conf"] = {**conf, "num_progs_enabled": count, "chain_call_actions": actions}
    with source.start() as runtime:
        yield runtime["xdp_dispatcher"]


def _start_filter(stack: ExitStack, folder: Path, name: str, rules: Rules) -> RunningProgram:
    """A filter with entries in those of its maps that `rules` names."""
    runtime: Runtime = stack.enter_context(_load(folder, name).start())
    for map_, entries in rules.items():
        for key, flags in entries.items() if map_ in runtime.maps else ():
            runtime.maps[map_][key] = flags
    return runtime[name]


def _attach(
    say: Say,
    dispatcher: RunningProgram,
    filters: Sequence[RunningProgram],
    packets: Sequence[bytes],
    legal: Sequence[list[int]],
) -> list[Link]:
    links: list[Link] = []
    for number, program in enumerate(filters):
        links.append(dispatcher.replace(f"prog{number}", program))
        rets = dispatcher.run_batch(packets)
        _expect(rets, legal[number + 1], f"with {number + 1} filters")
        say(f"prog{number} <- {program.program.name:<16} {_summary(rets)}, as one by one")
    return links


def _swap(
    say: Say,
    dispatcher: RunningProgram,
    links: list[Link],
    other: RunningProgram,
    packets: Sequence[bytes],
    wanted: list[int],
) -> None:
    place = f"prog{SWAPPED}"
    before, first = dispatcher.run_batch(packets), links[SWAPPED].program
    links[SWAPPED] = dispatcher.replace(place, other, instead_of=links[SWAPPED])
    rets = dispatcher.run_batch(packets)
    _expect(rets, wanted, "with one filter swapped")
    say(f"{place} <- {other.program.name:<16} {_summary(rets)}, swapped live")
    links[SWAPPED] = dispatcher.replace(place, first, instead_of=links[SWAPPED])
    _expect(dispatcher.run_batch(packets), list(before), "swapped back")


def _trace(say: Say, folder: Path, dispatcher: RunningProgram, link: Link, packets: Sequence[bytes]) -> None:
    """xdpdump's programs around the filter of a link: how often they ran, what they captured."""
    source = _load(folder, "xdpdump_bpf")
    config: Any = source.data["trace_cfg"]
    source.data["trace_cfg"] = {**config, "capture_if_ifindex": INTERFACE, "capture_snaplen": 64}
    plain = list(dispatcher.run_batch(packets))
    with source.start() as dump:
        with dump["trace_on_entry"].attach_fentry(link), dump["trace_on_exit"].attach_fexit(link):
            rets = dispatcher.run_batch(packets, ctx={"ingress_ifindex": INTERFACE})
        captured = sum(1 for _ in dump.maps["xdpdump_perf_map"])
    _expect(rets, plain, "while xdpdump looks on")
    if captured != 2 * len(packets):
        raise DemoError(f"xdpdump captured {captured} packets of {2 * len(packets)}")
    say(f"{link.function} -> {'xdpdump_bpf.o':<16} {captured} captured: each packet on entry and on exit")


@final
@dataclass
class Flow:
    """What the other thread saw: batches, and the verdicts that each packet got."""

    batches: int
    seen: list[set[int]]

    def strange(self, legal: Sequence[list[int]]) -> dict[int, set[int]]:
        """Verdicts that a packet gets at no stage, by packet."""
        allowed = [set(verdicts) for verdicts in zip(*legal, strict=True)]
        pairs = enumerate(zip(self.seen, allowed, strict=True))
        return {number: got - may for number, (got, may) in pairs if got - may}


@contextmanager
def _flow(dispatcher: RunningProgram, packets: Sequence[bytes]) -> Iterator[Flow]:
    """Packets run in another thread for as long as the block does."""
    flow = Flow(0, [set() for _ in packets])
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            for seen, verdict in zip(flow.seen, dispatcher.run_batch(packets), strict=True):
                seen.add(verdict)
            flow.batches += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield flow
    finally:
        done.set()
        thread.join()


def _expect(found: Sequence[int], wanted: list[int], when: str) -> None:
    differ = [number for number, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1]]
    if differ:
        said = f"packet {differ[0]} got {found[differ[0]]}, one by one it gets {wanted[differ[0]]}"
        raise DemoError(f"{when} {len(differ)} verdicts differ: {said}")


def _summary(rets: Sequence[int]) -> str:
    counts = sorted(Counter(rets).items(), reverse=True)
    return ", ".join(f"{name_verdict(ProgramType.XDP, ret)} {count:3}" for ret, count in counts)


if __name__ == "__main__":
    main()
