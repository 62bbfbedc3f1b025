"""Starts a shard's process, reads what it tells, and goes on when it dies: a crash is a find, and costs one case.

`supervise(order)` is what an executor runs, here or on another machine: it takes and gives plain values.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Final, final

from bpfc.testing.case import from_json
from bpfc.testing.finds import Find
from bpfc.testing.oracle import Finding, Surroundings
from bpfc.testing.plants import planted
from bpfc.testing.reduce import BUSY, SECONDS, death, reduce
from bpfc.testing.registry import ORACLES
from bpfc.testing.shard import read_current

SILENT_FOR: Final = 120.0  # seconds without a word after which a shard hangs
LOOK_EVERY: Final = 1.0  # seconds between looks at whether to stop
_MOST_DEATHS: Final = 40
_MOST_EARLY: Final = 3
_COUNTED: Final = ("cases", "native", "steps", "accepted")
_FROM_OUTSIDE: Final = frozenset((signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT))
_BY_ORACLE: Final = ("cases", "native", "seconds")


class NotStartedError(RuntimeError):
    """A shard ended before its first case."""


def supervise(order: Mapping[str, Any]) -> dict[str, Any]:
    """Do an order (the fields of shard.Order but `place` and `alone`) to its end; what it came to:

    {first, next, done, totals: {name: number}, programs: [digest], proved: [digest], finds: [find],
    repeated: {signature: times}}
    """
    return _Supervisor(order).run()


def reduce_apart(said: Mapping[str, Any], plant: str) -> dict[str, Any]:
    """Reduce a find whose case kills its process; each attempt in a child of its own."""
    find = Find.from_json(said)
    oracle = ORACLES[find.finding.oracle]
    with planted(plant) if plant else nullcontext():
        case, finding = reduce(
            oracle, find.case, find.finding, Surroundings(find.archs), seconds=SECONDS, isolated=True
        )
    return Find(finding, case, find.seed, find.archs, find.versions).to_json()


@final
class _Supervisor:
    def __init__(self, order: Mapping[str, Any]) -> None:
        self.order = dict(order)
        self.first: int = order["first"]
        self.last: int = order["first"] + order["count"]
        self.next = self.first
        self.totals: dict[str, float] = defaultdict(int)
        self.programs: set[str] = set()
        self.proved: set[str] = set()
        self.finds: list[dict[str, Any]] = []
        self.repeated: Counter[str] = Counter()
        self.signatures: set[str] = set()  # of deaths
        self.killed: set[int] = set()  # seeds whose process was killed from outside: each is judged once more
        self.stop = order.get("stop", "")
        self.begin = time.monotonic()
        self.deaths = 0
        self.hangs = False

    def run(self) -> dict[str, Any]:
        """Start processes until all seeds are done or time is over."""
        is_done = False
        with tempfile.TemporaryDirectory(prefix="bpfc-fuzz-") as folder:
            place = Path(folder) / "current"
            while not is_done and self.next < self.last and self.deaths < _MOST_DEATHS:
                is_done = self._process(place)
        return {
            "first": self.first,
            "next": self.next,
            "done": self.next >= self.last,
            "totals": dict(self.totals),
            "programs": sorted(self.programs),
            "proved": sorted(self.proved),
            "finds": self.finds,
            "repeated": dict(self.repeated),
        }

    def _process(self, place: Path) -> bool:
        """One process; whether it came to its end."""
        left = self.order.get("seconds", 3600.0) - (time.monotonic() - self.begin)
        if left <= 0:
            return True
        order = {**self.order, "first": self.next, "count": self.last - self.next, "seconds": left}
        order |= {"place": str(place)}
        order.pop("stop", None)
        command = [sys.executable, "-m", "bpfc.testing.shard"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1"}
        with place.with_name("stderr").open("w+b") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,  # Ctrl-C is for who runs the campaign
            )
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                with suppress(BrokenPipeError), process.stdin:
                    process.stdin.write(json.dumps(order).encode())
                is_done = self._listen(process)
            finally:
                if process.poll() is None:
                    process.kill()
                status = process.wait()
                process.stdout.close()
            if not is_done:
                errors.seek(0)
                self._died(place, status, errors.read().decode(errors="replace"))
        return is_done

    def _listen(self, process: subprocess.Popen[bytes]) -> bool:
        """Take in what the process tells; whether it told that it is done, or need do no more."""
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        rest, heard = b"", time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not (self.stop and os.path.exists(self.stop)):
                if not selector.select(LOOK_EVERY):
                    self.hangs = time.monotonic() - heard > SILENT_FOR
                    if self.hangs:
                        return False
                    continue
                chunk = process.stdout.read()
                if not chunk:
                    return False
                heard = time.monotonic()
                *lines, rest = (rest + chunk).split(b"\n")
                ends = [self._line(json.loads(line)) for line in lines]
                if any(ends):
                    return True
        return True

    def _line(self, said: Mapping[str, Any]) -> bool:
        if "find" in said:
            self.finds.append(said["find"])
        if "tally" in said:
            self._add(said["tally"])
            self.next = said["next"]
        return "done" in said

    def _add(self, tally: Mapping[str, Any]) -> None:
        for name in _COUNTED:
            self.totals[name] += tally[name]
        for name in _BY_ORACLE:
            self.totals[f"{name}:{tally['oracle']}"] += tally[name]
        for name, times in tally["outcomes"].items():
            self.totals[f"outcome:{name}"] += times
        for name, times in tally["traits"].items():
            self.totals[f"trait:{name}"] += times
        for row in tally["rows"]:
            self.totals[f"row:{row}"] += 1
        for way in tally["branches"]:
            self.totals[f"branch:{way}"] += 1
        self.programs.update(tally["programs"])
        self.proved.update(tally["proved"])
        self.repeated.update(tally["repeated"])

    def _died(self, place: Path, status: int, errors: str) -> None:
        """The process ended without saying so: its current case is a find, and the next process begins after it."""
        self.deaths += 1
        current = read_current(place)
        is_killed = -status in _FROM_OUTSIDE and not self.hangs
        if current is None:
            if is_killed and self.deaths < _MOST_EARLY:
                return
            raise NotStartedError(f"a shard did not start (status {status}): {errors[-2000:].strip()}")
        oracle, said, last = current
        case = from_json(said)
        if is_killed and case.seed not in self.killed:
            self.killed.add(case.seed)
            self.totals["outcome:killed from outside"] += 1
            return
        if last is not None:
            self.order["alone"] = last + 1  # which of them it was comes out when each is judged alone
            return
        number = signal.SIGALRM if self.hangs else -status
        finding = death(oracle, number) if status < 0 else _broken(oracle, status, errors)
        self.totals["crashes"] += 1
        self.totals["cases"] += 1
        self.totals[f"cases:{oracle}"] += 1
        self.next = case.seed + 1
        if finding.signature in self.order.get("known", ()) or finding.signature in self.signatures:
            self.repeated[finding.signature] += 1
            return
        self.signatures.add(finding.signature)
        find = Find.of(finding, case, case.seed, tuple(self.order.get("archs", ())))
        self.finds.append(_reduced(find, self.order.get("plant", "")) if status < 0 else find.to_json())


def _broken(oracle: str, status: int, errors: str) -> Finding:
    last = errors.strip().splitlines()[-1] if errors.strip() else ""
    return Finding(oracle, "exit", str(status), f"the process ended with status {status}: {last}")


def _reduced(find: Find, plant: str) -> dict[str, Any]:
    """The find, reduced in a process of its own, as it is where that does not work."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bpfc.testing.supervisor"],
            input=json.dumps({"find": find.to_json(), "plant": plant}).encode(),
            capture_output=True,
            timeout=(BUSY + 4) * SECONDS,
            check=True,
        )
        return dict(json.loads(done.stdout))
    except (subprocess.SubprocessError, ValueError):
        return find.to_json()


if __name__ == "__main__":
    given = json.load(sys.stdin)
    json.dump(reduce_apart(given["find"], given["plant"]), sys.stdout)
