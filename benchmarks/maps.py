"""`python -m benchmarks.maps [NAMES]`: map operations of compiled programs, beside the same in the kernel.

Each program (programs/maps.c) does 256 operations of a kind; the loop around them is measured too and taken off. The
kernel's part is missing where bpf(2) is not permitted.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, final

import bpfc
from benchmarks.costs import Cost
from benchmarks.kernel import create_maps, load_into, run_ns
from benchmarks.measure import Contestant, Timing, race, timed
from benchmarks.native import UnavailableError
from bpfc.running import Runtime
from bpfc.testing.kernel import create_map, write_map

OBJECT: Final = Path(__file__).parent / "programs" / "maps.o"
OPERATIONS: Final = 256
TAIL_CALLS: Final = 33
RUNS: Final = 1000
PACKET: Final = bytes(64)
HELPING: Final = ("fill", "empty")
_KINDS: Final = {"l": "lookup", "u": "update", "d": "insert and delete"}
_SAID: Final = {
    "tail": "tail call",
    "global": "add to a global",
    "queue_both": "queue, push and pop",
    "ringbuf_both": "ring buffer, reserve and submit",
}
BIG: Final = 1_000_000
PAGE: Final = mmap.PAGESIZE


@final
@dataclass(frozen=True, slots=True)
class Row:
    """Nanoseconds by operation, without the loop."""

    name: str
    bpfc: float
    kernel: float | None

    def __str__(self) -> str:
        ours = f"{self.name:<20}{self.bpfc:>9.2f} ns"
        if self.kernel is None:
            return ours
        return f"{ours}{self.kernel:>11.2f} ns{self.bpfc / max(self.kernel, 0.01):>9.2f}x"


def main() -> int:
    """Measure and print."""
    wanted = sys.argv[1:]
    loaded = bpfc.load(OBJECT)
    names = [name for name in loaded.programs if name not in HELPING and (not wanted or name in wanted)]
    print(f"{'operation':<20}{'bpfc':>12}{'kernel':>14}{'ratio':>10}")
    with loaded.start() as runtime:
        runtime["fill"].run(PACKET)
        peer = _peer(loaded)
        loops = race(_contestants("empty", runtime, peer))
        for name in names:
            print(_row(name, race(_contestants(name, runtime, peer)), loops), flush=True)
        if not wanted:
            print()
            for line in (*_threads(runtime), *_memory(peer)):
                print(line, flush=True)
    return 0


def measure_maps() -> Iterator[Cost]:
    """Each operation as it is measured, and the kernel's beside it."""
    loaded = bpfc.load(OBJECT)
    with loaded.start() as runtime:
        runtime["fill"].run(PACKET)
        peer = _peer(loaded)
        loops = race(_contestants("empty", runtime, peer))
        for name in loaded.programs:
            if name not in HELPING:
                row = _row(name, race(_contestants(name, runtime, peer)), loops)
                yield Cost(said(row.name), row.bpfc, "ns", kernel=row.kernel)


def said(name: str) -> str:
    """What a program of maps.c does, for people: `l_lru_hash` is "lookup, lru hash"."""
    kind, _, map = name.partition("_")
    if kind in _KINDS:
        return f"{_KINDS[kind]}, {map.replace('_', ' ')}"
    return _SAID[name]


def _peer(loaded: bpfc.Loaded) -> _KernelObject | None:
    try:
        return _KernelObject(loaded)
    except (UnavailableError, OSError) as error:
        print(f"no kernel to compare with: {error}", file=sys.stderr)
        return None


def _contestants(name: str, runtime: Runtime, peer: _KernelObject | None) -> dict[str, Contestant]:
    found = {"bpfc": _ours(name, runtime)}
    if peer is not None:
        found["kernel"] = peer.contestant(name)
    return found


def _ours(name: str, runtime: Runtime) -> Contestant:
    program = runtime[name]
    packets = bpfc.Batch([bytearray(PACKET)] * RUNS)
    run = timed(lambda: program.run_batch(packets), RUNS)

    def contestant() -> float:
        if name == "ringbuf_both":
            runtime.maps["ringbuf"].skip()
        return run()

    return contestant


def _row(name: str, timings: dict[str, Timing], loops: dict[str, Timing]) -> Row:
    count = TAIL_CALLS if name == "tail" else OPERATIONS

    def cost(who: str) -> float:
        loop = 0.0 if name == "tail" else loops[who].best
        return max(0.0, timings[who].best - loop) / count

    return Row(name, cost("bpfc"), cost("kernel") if "kernel" in timings else None)


def _threads(runtime: Runtime) -> Iterator[str]:
    """How much longer a thread takes when another does the same on another cpu."""
    for name in ("l_hash", "l_lru_hash", "u_hash"):
        program = runtime[name]
        packets = [bpfc.Batch([bytearray(PACKET)] * (2 * RUNS)) for _ in range(2)]
        best: dict[int, float] = {}
        for _ in range(12):
            for count in (1, 2):
                took = _together([partial(program.run_batch, one) for one in packets[:count]])
                best[count] = min(best.get(count, took), took)
        yield f"{name}: two threads take {best[2] / best[1]:.2f}x the CPU time of one, each"


def _together(work: list[Callable[[], object]]) -> float:
    """The most CPU time that one of several threads needs, in ns."""
    took = [0.0] * len(work)

    def run(number: int) -> None:
        before = time.thread_time_ns()
        work[number]()
        took[number] = time.thread_time_ns() - before

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(took)


def _memory(peer: _KernelObject | None) -> Iterator[str]:
    """What a hash of a million entries of 4 and 8 bytes costs."""
    loaded = bpfc.load(OBJECT)
    loaded.resize("hash", BIG)
    before = _resident()
    start = time.perf_counter()
    with loaded.start() as runtime:
        created = time.perf_counter() - start
        block = runtime.maps["hash"].live.block
        size = block.size
        ctypes.memset(block.address + PAGE, 0, size - PAGE)  # as if every entry was used
        resident = _resident() - before
        runtime.maps["hash"].clear()
    yield f"hash of a million 4 B keys, 8 B values: started in {created * 1e3:.1f} ms, block {size / 1e6:.1f} MB"
    said = f"resident when full {resident / 1e6:.1f} MB"
    if peer is not None:
        said += f", the kernel charges {peer.charge(BIG) / 1e6:.1f} MB"
    yield said


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


@final
class _KernelObject:
    """The programs in the kernel, sharing their maps. Raises UnavailableError, OSError."""

    def __init__(self, loaded: bpfc.Loaded) -> None:
        self._loaded = loaded
        self._stack = ExitStack()
        self.maps = create_maps(self._stack, loaded)
        self._programs = {
            name: load_into(self._stack, program, self.maps) for name, program in loaded.programs.items()
        }
        write_map(self.maps["programs"], bytes(4), struct.pack("=I", self._programs["tail"]))
        run_ns(self._programs["fill"], PACKET, 1)
        self._empty_call = min(run_ns(self._programs["tail"], PACKET, 1) for _ in range(50))
        consumer = mmap.mmap(self.maps["ringbuf"], PAGE)
        producer = mmap.mmap(self.maps["ringbuf"], PAGE, prot=mmap.PROT_READ, offset=PAGE)
        self._positions = consumer, producer

    def contestant(self, name: str) -> Contestant:
        """Runs a program over and over."""

        def run() -> float:
            consumer, producer = self._positions
            consumer[:8] = producer[:8]
            return max(0.01, (run_ns(self._programs[name], PACKET, RUNS) - self._empty_call) / RUNS)

        return run

    def charge(self, entries: int) -> int:
        """The bytes that the kernel charges for the hash with so many entries."""
        declared = replace(self._loaded.maps["hash"], max_entries=entries)
        with create_map(declared) as descriptor, open(f"/proc/self/fdinfo/{descriptor}") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("memlock")), 0)


if __name__ == "__main__":
    sys.exit(main())
