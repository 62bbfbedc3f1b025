"""Runs a campaign on any `concurrent.futures.Executor`: shards go out, what they come to goes into the store.

seeds   0 ........ n ........ 2n ........ 3n ...
        | shard 0  | shard 1  | shard 2   |          each a process, wherever the executor runs it
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, final

from bpfc.testing.registry import oracles_of
from bpfc.testing.store import Store
from bpfc.testing.supervisor import supervise
from ir.diagnostics import Diagnostic, RejectedError, UnsupportedError

SHARD_SECONDS: Final = 60.0  # a shard ends after that long, so that what it found is told
SHARD_SEEDS: Final = 4096
AHEAD: Final = 1  # shards out for each worker; more would have to wait, and their time runs out meanwhile
Progress = Callable[[Store, float], None]


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign: its name, how long, on which emulated targets, from which seed on; `plant` a bug for it to find."""

    campaign: str
    seconds: float
    archs: tuple[str, ...] = ()
    seed: int = 0
    cases: int = 0
    plant: str = ""


def executor_of(spec: str, jobs: int) -> AbstractContextManager[Executor]:
    """The executor that `spec` names: threads (that supervise processes here), dask:ADDRESS, or MODULE:CALLABLE.

    Raises RejectedError for a spec that is none of those, UnsupportedError where dask.distributed is not installed.
    """
    kind, _, rest = spec.partition(":")
    if kind == "threads":
        return ThreadPoolExecutor(jobs)
    if kind == "dask":
        from bpfc.testing.cluster import connect  # late: an extra

        return connect(rest)
    if not rest:
        said = f"no executor '{spec}' (threads, dask:ADDRESS, MODULE:CALLABLE)"
        raise RejectedError([Diagnostic("no-such-executor", said)])
    try:
        made = getattr(import_module(kind), rest)(jobs)
    except (ImportError, AttributeError) as error:
        said = f"no executor '{spec}': {error}"
        raise RejectedError([Diagnostic("no-such-executor", said)]) from None
    if not isinstance(made, AbstractContextManager) or not hasattr(made, "submit"):
        raise RejectedError([Diagnostic("no-such-executor", f"'{spec}' makes no executor")])
    return made


def run(plan: Plan, store: Store, executor: Executor, jobs: int, progress: Progress) -> None:
    """Run until the time is over or the cases are done. A shard that an executor lost is sent out again."""
    _Campaign(plan, store, executor, jobs, progress).run()


@final
class _Campaign:
    def __init__(self, plan: Plan, store: Store, executor: Executor, jobs: int, progress: Progress) -> None:
        oracles = oracles_of(plan.campaign)
        assert oracles is not None, "whoever makes a plan looks the campaign up"
        from bpfc.testing.oracle import Surroundings

        surroundings = Surroundings(plan.archs)
        self.oracles = tuple(oracle.name for oracle in oracles if not oracle.lacks(surroundings))
        if not self.oracles:
            why = "; ".join(f"{oracle.name}: {oracle.lacks(surroundings)}" for oracle in oracles)
            raise UnsupportedError([Diagnostic("nothing-to-judge", f"no oracle works here ({why})")])
        self.plan, self.store, self.executor = plan, store, executor
        self.width, self.progress = jobs * AHEAD, progress
        self.begin = time.monotonic()
        self.waiting: dict[Future[dict[str, Any]], tuple[int, int]] = {}
        self.again = store.open_shards()
        self.seed = store.next_seed() or plan.seed

    def run(self) -> None:
        """Keep the executor busy, take in what it gives."""
        while self._send() or self.waiting:
            done, _ = wait(self.waiting, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in done:
                self._take(future)
            self.progress(self.store, time.monotonic() - self.begin)

    def _left(self) -> float:
        return self.plan.seconds - (time.monotonic() - self.begin)

    def _send(self) -> bool:
        """Send shards until enough are waiting; whether any may still come."""
        while len(self.waiting) < self.width and self._left() > 0:
            if self.again:
                first, count = self.again.pop()
            else:
                first, count = self.seed, SHARD_SEEDS
                if self.plan.cases:
                    count = min(count, self.plan.seed + self.plan.cases - first)
                if count <= 0:
                    return False
                self.seed += count
                self.store.plan(first, count)
            order = {
                "oracles": self.oracles,
                "first": first,
                "count": count,
                "seconds": min(SHARD_SECONDS, self._left()),
                "archs": self.plan.archs,
                "known": self.store.known(),
                "plant": self.plan.plant,
            }
            self.waiting[self.executor.submit(supervise, order)] = first, count
        return self._left() > 0

    def _take(self, future: Future[dict[str, Any]]) -> None:
        first, count = self.waiting.pop(future)
        error = future.exception()
        if error is not None:
            if isinstance(error, RuntimeError) and "did not start" in str(error):
                raise error
            self.again.append((first, count))  # the executor lost it: a worker died
            return
        result = future.result()
        self.store.add(result)
        if not result["done"]:
            self.again.append((result["next"], first + count - result["next"]))
