"""Measuring side by side: contestants take turns at short batches, so that what disturbs one disturbs all.

round 1   native  bpfc  kernel        each the CPU time of one batch, by packet
round 2   bpfc  kernel  native        the order turns
...
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

ROUNDS: Final = 25
MOST_ROUNDS: Final = 100
AGREED: Final = 0.02
NOISY: Final = 0.15

Contestant = Callable[[], float]  # runs one batch; nanoseconds by packet


@final
@dataclass(frozen=True, slots=True)
class Timing:
    """Nanoseconds by packet of each batch, in order."""

    ns: tuple[float, ...]

    @property
    def best(self) -> float:
        """The least: what the code costs when nothing disturbs it."""
        return min(self.ns)

    @property
    def median(self) -> float:
        """The usual cost."""
        return statistics.median(self.ns)

    @property
    def is_noisy(self) -> bool:
        """Whether the usual is far from the least."""
        return self.median > self.best * (1 + NOISY)


def timed(run: Callable[[], object], count: int) -> Contestant:
    """A contestant that times `run`, which handles `count` packets, in CPU time of this thread."""

    def contestant() -> float:
        before = time.thread_time_ns()
        run()
        return (time.thread_time_ns() - before) / count

    return contestant


def race(contestants: Mapping[str, Contestant], rounds: int = ROUNDS) -> dict[str, Timing]:
    """Let every contestant run once a round, for `rounds` rounds and on until the least times settled."""
    names = list(contestants)
    seen: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for number in range(MOST_ROUNDS):
            if number >= rounds and all(_is_settled(ns) for ns in seen.values()):
                break
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                seen[name].append(contestants[name]())
    finally:
        gc.enable()
    return {name: Timing(tuple(ns)) for name, ns in seen.items()}


def _is_settled(ns: list[float]) -> bool:
    """Whether the later half found nothing faster than the earlier, nor stayed far above it."""
    half = len(ns) // 2
    return abs(min(ns[:half]) / min(ns[half:]) - 1) <= AGREED


def paired_ratio(one: Timing, other: Timing) -> float:
    """The median of the ratios round by round: steady where both are slowed down together."""
    return statistics.median(a / b for a, b in zip(one.ns, other.ns, strict=True))
