"""What comes before and around the code: compiling, reloading, importing, verifying, the batch loop."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

import bpfc
from backends.registry import NAMES
from benchmarks.measure import race, timed
from benchmarks.micros import EMPTY, MICROS, Micro
from benchmarks.native import Compiler, Native
from benchmarks.speed import PROGRAM, lay_out
from bpfc.compile import compile_for
from bpfc.pcap import read_pcap

TRIES: Final = 8
SAMPLES: Final = Path(__file__).parent.parent / "tests" / "objects"
SAMPLE_ROUNDS: Final = 40
PACKETS: Final = 100_000
COMPILE_TARGETS_MS: Final = {"random_1k": None, "random_4k": 200.0, "random_16k": 1000.0}
OVERHEAD_TARGET_NS: Final = 5.0
RELOAD_TARGET_MS: Final = 1.0
IMPORT_TARGET_MS: Final = 100.0


@final
@dataclass(frozen=True, slots=True)
class Cost:
    """A cost in `unit`, the least of some tries; `target` is the most it should be, None when nobody says.

    `section` is what it is about, `kernel` what the same costs in the running kernel, where that was asked.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    section: str = ""
    kernel: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether the target, if there is one, is kept."""
        return self.target is None or self.value <= self.target


def measure_costs(compiler: Compiler | None, folder: Path) -> Iterator[Cost]:
    """Each cost as it is measured."""
    yield from batch_overhead(compiler, folder)
    yield from sample_run()
    sized = [micro for micro in MICROS if micro.name in COMPILE_TARGETS_MS]
    with own_cache():
        for micro in sized:
            yield from compile_time(micro)
        for micro in (EMPTY, *sized):
            yield from reload_time(micro)
    yield from emission_time()
    for micro in sized:
        yield from verify_time(micro)
    yield from import_time()
    yield from memory_use()


def batch_overhead(compiler: Compiler | None, folder: Path) -> Iterator[Cost]:
    """What a packet of an empty program costs over a native loop, laid out before and laid out each time."""
    if compiler is None:
        return
    native = Native(compiler, EMPTY, folder)
    batch = lay_out(EMPTY, PACKETS)
    with bpfc.load(EMPTY.object).start() as runtime:
        program = runtime[PROGRAM]
        contestants = {
            "native": timed(lambda: native.run_batch(batch), PACKETS),
            "ready": timed(lambda: program.run_batch(batch), PACKETS),
        }
        rows = _rows()
        if rows is not None:
            contestants["rows"] = timed(lambda: program.run_batch(rows), PACKETS)
        seen = race(contestants)
    base = seen["native"].best
    yield Cost("batch overhead a packet", seen["ready"].best - base, "ns", OVERHEAD_TARGET_NS)
    if "rows" in seen:
        name = "batch overhead, from a numpy array"
        yield Cost(name, seen["rows"].best - base, "ns", OVERHEAD_TARGET_NS)


def sample_run() -> Iterator[Cost]:
    """A packet of the sample capture through the sample program, with its two maps and counters."""
    packets = [bytearray(bytes(packet)) for packet in read_pcap(SAMPLES / "sample.pcap")]
    batch = bpfc.Batch(packets * SAMPLE_ROUNDS)
    with bpfc.load(SAMPLES / "xdp_stats.o").start() as runtime:
        program = runtime["xdp_stats"]
        seen = race({"sample": timed(lambda: program.run_batch(batch), len(batch))})
    yield Cost("a packet through tests/objects/xdp_stats.o", seen["sample"].best, "ns")


def compile_time(micro: Micro) -> Iterator[Cost]:
    """Instructions to callable code at the default tier, in CPU time, once LLVM is imported."""
    loaded = bpfc.load(micro.object)

    def run() -> int:
        with loaded.start(bpfc.Options(cache=False)) as runtime:
            before = time.thread_time_ns()
            assert not runtime[PROGRAM].compiled.from_cache
            return time.thread_time_ns() - before

    run()
    value = min(run() for _ in range(TRIES)) / 1e6
    yield Cost(f"compile {micro.name}", value, "ms", COMPILE_TARGETS_MS.get(micro.name))


def emission_time() -> Iterator[Cost]:
    """All targets in one call, as a multiple of the mean of one: a program is checked and optimized once."""
    loaded = bpfc.load(SAMPLES / "xdp_stats.o")
    program = replace(loaded.program("xdp_stats"), section="")  # bare: in both byte orders
    options = bpfc.Options(cache=False)

    def cpu(targets: Sequence[str]) -> int:
        before = time.thread_time_ns()
        compile_for(program, loaded.maps, options, targets)
        return time.thread_time_ns() - before

    cpu(NAMES)
    alone = sum(min(cpu([name]) for _ in range(TRIES)) for name in NAMES) / len(NAMES)
    value = min(cpu(NAMES) for _ in range(TRIES)) / alone
    yield Cost(f"{len(NAMES)} targets in one call, one alone being 1", value, "x", float(len(NAMES)))


def reload_time(micro: Micro) -> Iterator[Cost]:
    """From the object cache: finding and reading the code; and then linking it."""
    loaded = bpfc.load(micro.object)

    def run() -> tuple[int, int]:
        with loaded.start() as runtime:
            before = time.perf_counter_ns()
            compiled = runtime[PROGRAM].compiled
            return compiled.ns, time.perf_counter_ns() - before - compiled.ns

    run()
    seen = [run() for _ in range(TRIES)]
    yield Cost(f"reload {micro.name}", min(ns for ns, _ in seen) / 1e6, "ms", RELOAD_TARGET_MS)
    yield Cost(f"link {micro.name}", min(ns for _, ns in seen) / 1e6, "ms")


def verify_time(micro: Micro) -> Iterator[Cost]:
    """The verifier, where there is one."""
    verify: Callable[[], object] | None = getattr(bpfc.load(micro.object), "verify", None)
    if verify is None:
        return
    took = []
    for _ in range(3):
        before = time.thread_time_ns()
        verify()
        took.append(time.thread_time_ns() - before)
    yield Cost(f"verify {micro.name}", min(took) / 1e6, "ms")


def import_time() -> Iterator[Cost]:
    """CPU time of `import bpfc` in a new process, over that of an empty one."""
    empty, whole = (min(_cpu_ms(text) for _ in range(TRIES)) for text in ("pass", "import bpfc"))
    yield Cost("import bpfc", whole - empty, "ms", IMPORT_TARGET_MS)


def memory_use() -> Iterator[Cost]:
    """The most memory that a process needs to import bpfc, to verify and to compile the largest program."""
    largest = next(micro for micro in MICROS if micro.name == "random_16k").object
    load = f"import bpfc; loaded = bpfc.load({str(largest)!r})"
    compile_ = f"{load}; loaded.start(bpfc.Options(cache=False))[{PROGRAM!r}]"
    for name, text in (
        ("memory of a process that imported bpfc", "import bpfc"),
        ("memory to verify random_16k", f"{load}; loaded.verify()"),
        ("memory to compile random_16k", compile_),
    ):
        yield Cost(name, _peak_mb(text), "MB")


@contextmanager
def own_cache() -> Iterator[None]:
    """Inside, the object cache is a folder of its own, empty at first."""
    before = os.environ.get("BPFC_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BPFC_CACHE_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["BPFC_CACHE_DIR"]
            if before is not None:
                os.environ["BPFC_CACHE_DIR"] = before


def _rows() -> list[bytes] | None:
    """The empty program's packets as an array of rows; None without numpy. A list only to its type."""
    try:
        import numpy
    except ImportError:
        return None
    rows: list[bytes] = numpy.zeros((PACKETS, len(EMPTY.packet)), dtype=numpy.uint8)  # type: ignore[assignment]
    return rows


def _peak_mb(text: str) -> float:
    """The most memory a process had that ran `text`; VmHWM starts anew with exec, ru_maxrss takes over the parent's."""
    told = f"{text}\nprint(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    done = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024 / 1e6


def _cpu_ms(text: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", text], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000
