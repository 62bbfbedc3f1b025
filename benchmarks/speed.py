"""Code speed: each micro program as bpfc compiles it, natively, and by what peers there are, in one race."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol, final

import bpfc
from benchmarks.measure import ROUNDS, Contestant, Timing, paired_ratio, race, timed
from benchmarks.micros import EMPTY, MICROS, Micro
from benchmarks.native import Compiler, Native, UnavailableError

BATCH_NS: Final = 2_000_000
RING_BYTES: Final = 8192  # packets in turn, small enough for the first cache
MOST_PACKETS: Final = 1 << 18
PROGRAM: Final = "bench"
BPFC: Final = "bpfc"
NATIVE: Final = "native"


class WrongError(Exception):
    """A program gave another result than its native twin."""


class Peer(Protocol):
    """Another runtime: makes contestants, each returning nanoseconds by run. Raises UnavailableError."""

    @property
    def name(self) -> str: ...

    @property
    def floor_ns(self) -> float: ...  # less than that cannot be told from nothing

    def contestant(self, micro: Micro, batch_ns: int) -> Contestant: ...


@final
@dataclass(frozen=True, slots=True)
class Speed:
    """How a micro program did: timings by contestant, and why others did not take part."""

    micro: Micro
    level: str
    timings: dict[str, Timing]
    absent: dict[str, str] = field(default_factory=dict)

    def ratio(self, name: str) -> float | None:
        """Least time over the native least time."""
        if NATIVE not in self.timings or name not in self.timings:
            return None
        return self.timings[name].best / self.timings[NATIVE].best

    def paired(self) -> float | None:
        """The median over rounds of bpfc's time over the native time of the same round."""
        if NATIVE not in self.timings:
            return None
        return paired_ratio(self.timings[BPFC], self.timings[NATIVE])


def measure_speed(
    micros: Iterable[Micro],
    compiler: Compiler | None,
    peers: Sequence[Peer],
    folder: Path,
    options: bpfc.Options,
    progress: Callable[[Speed], None],
    rounds: int = ROUNDS,
) -> list[Speed]:
    """Race every program; `progress` hears of each as it ends. Raises WrongError."""
    results = []
    for micro in micros:
        results.append(_measure(micro, compiler, peers, folder, options, rounds))
        progress(results[-1])
    return results


def geometric_mean(ratios: Sequence[float]) -> float:
    """The geometric mean of ratios."""
    return math.exp(statistics.fmean(map(math.log, ratios)))


def find_micros(names: Sequence[str]) -> list[Micro]:
    """The programs named, all of them when none is. Raises KeyError for a name that is none."""
    known = {micro.name: micro for micro in (*MICROS, EMPTY)}
    return [known[name] for name in names] if names else list(MICROS)


def _measure(
    micro: Micro,
    compiler: Compiler | None,
    peers: Sequence[Peer],
    folder: Path,
    options: bpfc.Options,
    rounds: int,
) -> Speed:
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        runtime = stack.enter_context(bpfc.load(micro.object).start(options))
        program = runtime[PROGRAM]
        contestants: dict[str, Contestant] = {}
        native = None
        if compiler is not None:
            native = Native(compiler, micro, folder)
            check_same(micro, program.run_batch, native.run_batch)
        count = _calibrate(micro, native.run_batch if native is not None else program.run_batch)
        batch = lay_out(micro, count)
        if native is not None:
            contestants[NATIVE] = timed(lambda: native.run_batch(batch), count)
        contestants[BPFC] = timed(lambda: program.run_batch(batch), count)
        for peer in peers:
            try:
                contestants[peer.name] = peer.contestant(micro, BATCH_NS)
            except UnavailableError as error:
                absent[peer.name] = str(error)
        timings = race(contestants, rounds)
        for peer in peers:
            if peer.name in timings and timings[peer.name].best < peer.floor_ns:
                del timings[peer.name]
                absent[peer.name] = "too short to be told from what a run costs"
        return Speed(micro, program.compiled.level, timings, absent)


def lay_out(micro: Micro, count: int) -> bpfc.Batch:
    """A batch of `count` packets, all the same, in a small ring of buffers."""
    ring = [bytearray(micro.packet) for _ in range(max(1, RING_BYTES // len(micro.packet)))]
    return bpfc.Batch([ring[number % len(ring)] for number in range(count)])


def check_same(micro: Micro, *loops: Callable[[bpfc.Batch], object]) -> None:
    """Run each loop once over fresh packets and compare verdicts and packets."""
    seen = []
    for loop in loops:
        packets = [bytearray(micro.packet) for _ in range(3)]
        batch = bpfc.Batch(packets)
        loop(batch)
        seen.append((list(batch.rets), packets))
    if micro.is_exact and any(result != seen[0] for result in seen):
        raise WrongError(
            f"{micro.name}: {seen[0][0]} and {seen[1][0]} are not the same, or the packets are not"
        )


def _calibrate(micro: Micro, loop: Callable[[bpfc.Batch], object]) -> int:
    """How many packets take about BATCH_NS."""
    count = 1
    while count < MOST_PACKETS:
        run = timed(partial(loop, lay_out(micro, count)), count)
        took = min(run() for _ in range(3)) * count
        if took >= BATCH_NS / 8:
            return max(1, min(MOST_PACKETS, round(count * BATCH_NS / took)))
        count *= 4
    return MOST_PACKETS
