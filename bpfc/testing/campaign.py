"""Runs a campaign on any `concurrent.futures.Executor`: shards go out, what they come to goes into the store.

seeds   0 ........ n ........ 2n ........ 3n ...
        | shard 0  | shard 1  | shard 2   |          each a process, wherever the executor runs it
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, final

from bpfc.testing.oracle import Surroundings
from bpfc.testing.registry import oracles_of
from bpfc.testing.store import Store
from bpfc.testing.supervisor import NotStartedError, supervise
from ir.diagnostics import Diagnostic, RejectedError, UnsupportedError

SHARD_SECONDS: Final = 60.0  # a shard ends after that long, so that what it found is told
SHARD_SEEDS: Final = 4096
MOST_LOST: Final = 20  # shards that an executor may lose, one after the other
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
    except (ImportError, AttributeError, TypeError, ValueError, OSError) as error:
        said = f"no executor '{spec}': {error}"
        raise RejectedError([Diagnostic("no-such-executor", said)]) from None
    if not isinstance(made, AbstractContextManager) or not hasattr(made, "submit"):
        raise RejectedError([Diagnostic("no-such-executor", f"'{spec}' makes no executor")])
    return made


def require(plan: Plan) -> tuple[str, ...]:
    """The oracles of a plan that work here. Raises UnsupportedError, saying why, when none does."""
    oracles = oracles_of(plan.campaign)
    assert oracles is not None, "whoever makes a plan looks the campaign up"
    surroundings = Surroundings(plan.archs)
    found = tuple(oracle.name for oracle in oracles if not oracle.lacks(surroundings))
    if not found:
        why = "; ".join(f"{oracle.name}: {oracle.lacks(surroundings)}" for oracle in oracles)
        raise _unsupported("nothing-to-judge", f"no oracle works here ({why})")
    return found


def run(plan: Plan, store: Store, executor: Executor, jobs: int, progress: Progress) -> None:
    """Run until the time is over, the cases are done, or Ctrl-C; KeyboardInterrupt then, when all is in the store.

    A shard that an executor lost is sent out again. UnsupportedError when it loses them all, or where shards do not start.
    """
    _Campaign(plan, store, executor, jobs, progress).run()


@final
class _Campaign:
    def __init__(self, plan: Plan, store: Store, executor: Executor, jobs: int, progress: Progress) -> None:
        self.oracles = require(plan)
        self.plan, self.store, self.executor = plan, store, executor
        self.width, self.progress = jobs * AHEAD, progress
        self.begin = time.monotonic()
        self.waiting: dict[Future[dict[str, Any]], tuple[int, int]] = {}
        self.again = store.open_shards()
        self.lost = 0
        self.stop = store.folder / "stop"
        self.stop.unlink(missing_ok=True)  # a campaign before this one was stopped
        self.seed = store.next_seed() or plan.seed

    def run(self) -> None:
        """Keep the executor busy, take in what it gives."""
        try:
            while self._send() or self.waiting:
                self._gather()
        except BaseException as error:
            # Shards on this machine look for the file and end, with what they have; others, when their time is over.
            with suppress(OSError):
                self.stop.touch()
            if isinstance(error, KeyboardInterrupt):
                while self.waiting:
                    self._gather()
            raise

    def _gather(self) -> None:
        done, _ = wait(self.waiting, timeout=1.0, return_when=FIRST_COMPLETED)
        for future in done:
            self._take(future)
        self.progress(self.store, time.monotonic() - self.begin)

    def _left(self) -> float:
        return self.plan.seconds - (time.monotonic() - self.begin)

    def _send(self) -> bool:
        """Send shards until enough are waiting; whether any may still come."""
        while len(self.waiting) < self.width and self._left() > 0:
            shard = self._next_shard()
            if shard is None:
                return False
            first, count = shard
            order = {
                "oracles": self.oracles,
                "first": first,
                "count": count,
                "seconds": min(SHARD_SECONDS, self._left()),
                "archs": self.plan.archs,
                "known": self.store.known(),
                "plant": self.plan.plant,
                "stop": str(self.stop.absolute()),
            }
            try:
                self.waiting[self.executor.submit(supervise, order)] = first, count
            except (RuntimeError, OSError) as error:
                raise _unsupported("executor-broken", f"the executor takes no more shards: {error}") from None
        return self._left() > 0

    def _next_shard(self) -> tuple[int, int] | None:
        """(first seed, how many) of the next shard, None when all cases were sent out."""
        last = self.plan.seed + self.plan.cases if self.plan.cases else None
        while self.again:
            first, count = self.again.pop()
            if last is None or first < last:
                return first, count if last is None else min(count, last - first)
        first, count = self.seed, SHARD_SEEDS if last is None else min(SHARD_SEEDS, last - self.seed)
        if count <= 0:
            return None
        self.seed += count
        self.store.plan(first, count)
        return first, count

    def _take(self, future: Future[dict[str, Any]]) -> None:
        first, count = self.waiting.pop(future)
        error = future.exception()
        if isinstance(error, NotStartedError):
            raise _unsupported("no-shard", str(error)) from None
        if error is not None:
            self.again.append((first, count))  # the executor lost it: a worker died
            self.lost += 1
            if self.lost == MOST_LOST:
                raise _unsupported("executor-broken", f"the executor loses every shard: {error!r}") from None
            return
        self.lost = 0
        result = future.result()
        self.store.add(result)
        if not result["done"]:
            self.again.append((result["next"], first + count - result["next"]))


def _unsupported(code: str, said: str) -> UnsupportedError:
    return UnsupportedError([Diagnostic(code, said)])
