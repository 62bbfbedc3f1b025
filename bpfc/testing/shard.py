"""One shard of a campaign, in a process of its own: `python -m bpfc.testing.shard`, its order as JSON on stdin.

Before a case is executed it is written down, so that whoever started the shard knows what it died of. What is
done is told on stdout as it goes, a JSON object a line:

    {"next": seed, "tally": {...}}     everything before `next` is done, this is what it came to since the last line
    {"find": {...}}                    a find, reduced
    {"reducing": true}                 while that takes long
    {"done": true}
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO, final

from bpfc.testing.case import Case, to_json
from bpfc.testing.coverage import Coverage
from bpfc.testing.finds import Find
from bpfc.testing.oracle import Oracle, Surroundings, Tally, judge
from bpfc.testing.plants import planted
from bpfc.testing.reduce import reduce
from bpfc.testing.registry import ORACLES

MOST_REDUCED: Final = 2  # finds of one signature that a shard reduces; later ones are counted
COVERED_EVERY: Final = 128  # one of how many cases is traced for what it covers of the verifier
TOLD_TOGETHER: Final = 64  # cases in a row of an oracle in Python that are told as one
TELL_EVERY: Final = 10.0  # seconds
TOGETHER: Final = 48  # cases that are prepared at once, by oracles that can
NEAR: Final = 640  # seeds among which they are: a shard surely gets that far before its time is over


@final
@dataclass(frozen=True, slots=True)
class Order:
    """Judge seeds first..first+count-1, each by the oracle whose turn it is, until `seconds` are over.

    `known` signatures are not told again. `place` is where the current case is written down; `plant` the bug to plant.
    Seeds before `alone` are prepared one by one: a process died over them.
    """

    oracles: tuple[str, ...]
    first: int
    count: int
    place: str
    seconds: float = 3600.0
    archs: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    plant: str = ""
    alone: int = 0


def turns(oracles: tuple[Oracle, ...]) -> tuple[Oracle, ...]:
    """The order in which oracles take turns, by their shares."""
    rounds = range(max(oracle.share for oracle in oracles))
    return tuple(oracle for number in rounds for oracle in oracles if oracle.share > number)


def run(order: Order, out: TextIO) -> None:
    """Do what `order` says."""
    taking_turns = turns(tuple(ORACLES[name] for name in order.oracles))
    surroundings = Surroundings(order.archs)
    finds = _Finds(order, out, surroundings)
    coverage = Coverage()
    rows: set[str] = set()
    prepared: dict[int, Oracle] = {}
    told = order.first
    tally = Tally()
    end = time.monotonic() + order.seconds
    current = os.open(order.place, os.O_RDWR | os.O_CREAT, 0o600)
    seed = order.first
    while seed < order.first + order.count and time.monotonic() < end:
        oracle = taking_turns[seed % len(taking_turns)]
        before = time.process_time()
        case = oracle.draw(seed)
        if oracle.company is not None and seed >= order.alone and seed not in prepared:
            cases = _company(oracle, taking_turns, seed, order.first + order.count)
            _write_down(current, oracle.name, to_json(case), cases[-1].seed)
            judge_one = oracle.company(cases, surroundings)
            prepared = {each.seed: replace(oracle, judge=judge_one) for each in cases}
        if oracle.is_python and seed >= order.alone:
            if seed == told:
                _write_down(current, oracle.name, to_json(case), seed + TOLD_TOGETHER - 1)
        else:
            _write_down(current, oracle.name, to_json(case))
        oracle = prepared.get(seed, oracle)
        with coverage if oracle.verifies and seed % COVERED_EVERY == 0 else nullcontext():
            finding = judge(oracle, case, tally, surroundings)
        tally.seconds += time.process_time() - before
        if finding is not None:
            finds.add(ORACLES[oracle.name], case, finding)
        seed += 1
        is_last = (
            seed == order.first + order.count or taking_turns[seed % len(taking_turns)].name != oracle.name
        )
        if oracle.is_python and finding is None and seed - told < TOLD_TOGETHER and not is_last:
            continue
        tally.rows -= rows
        rows |= tally.rows
        # After every case that could have killed the process, so that nothing is lost when the next one does.
        _tell(out, seed, oracle.name, tally, finds, coverage)
        told, tally = seed, Tally()
    if seed > told:
        _tell(out, seed, oracle.name, tally, finds, coverage)
    _say(out, {"done": True})
    os.close(current)


def _company(oracle: Oracle, taking_turns: tuple[Oracle, ...], first: int, end: int) -> list[Case]:
    """The case of `first` and the next ones that are the oracle's."""
    near = range(first, min(end, first + NEAR))
    seeds = (seed for seed in near if taking_turns[seed % len(taking_turns)] is oracle)
    return [oracle.draw(seed) for seed in islice(seeds, TOGETHER)]


def _write_down(file: int, oracle: str, case: dict[str, Any], last: int | None = None) -> None:
    """Note the case that is next; up to seed `last`, when several are prepared at once."""
    data = json.dumps({"oracle": oracle, "case": case, "last": last}).encode()
    os.pwrite(file, data, 0)
    os.ftruncate(file, len(data))


def read_current(place: Path) -> tuple[str, dict[str, Any], int | None] | None:
    """What a shard was at, by what it wrote down: the oracle, a case, and the seed of the last one prepared with it."""
    try:
        said = json.loads(place.read_bytes())
    except (OSError, ValueError):
        return None
    return said["oracle"], said["case"], said["last"]


@final
class _Finds:
    """Tells finds, the first ones of each signature reduced."""

    def __init__(self, order: Order, out: TextIO, surroundings: Surroundings) -> None:
        self._order, self._out, self._surroundings = order, out, surroundings
        self._times: dict[str, int] = {}
        self._told = time.monotonic()
        self.repeated: dict[str, int] = {}

    def add(self, oracle: Oracle, case: Any, finding: Any) -> None:
        """Reduce a find and tell it, unless it is known."""
        coarse = finding.signature
        self._times[coarse] = self._times.get(coarse, 0) + 1
        if self._times[coarse] > MOST_REDUCED:
            self.repeated[coarse] = self.repeated.get(coarse, 0) + 1
            return
        small, finding = reduce(oracle, case, finding, self._surroundings, tell=self._tell)
        if finding.signature in self._order.known:
            self.repeated[finding.signature] = self.repeated.get(finding.signature, 0) + 1
            return
        find = Find.of(finding, small, case.seed, self._surroundings.archs)
        _say(self._out, {"find": find.to_json()})

    def _tell(self) -> None:
        """Say that this process lives, every now and then."""
        if time.monotonic() - self._told > TELL_EVERY:
            self._told = time.monotonic()
            _say(self._out, {"reducing": True})


def _tell(out: TextIO, seed: int, oracle: str, tally: Tally, finds: _Finds, coverage: Coverage) -> None:
    said = {
        "oracle": oracle,
        "seconds": round(tally.seconds, 6),
        "cases": tally.cases,
        "native": tally.native,
        "steps": tally.steps,
        "accepted": tally.accepted,
        "outcomes": dict(tally.outcomes),
        "traits": dict(tally.traits),
        "programs": sorted(tally.programs),
        "proved": sorted(tally.proved),
        "rows": sorted(tally.rows),
        "repeated": finds.repeated,
        "branches": coverage.taken(),
    }
    finds.repeated = {}
    _say(out, {"next": seed, "tally": said})


def _say(out: TextIO, said: dict[str, Any]) -> None:
    out.write(json.dumps(said) + "\n")
    out.flush()


def _end_with_parent() -> None:
    """End when whoever started this process is gone: it does not notice while a case hangs."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """Read an order, do it."""
    _end_with_parent()
    said = json.loads(sys.stdin.read())
    for name in ("oracles", "archs", "known"):
        said[name] = tuple(said[name])
    order = Order(**said)
    with planted(order.plant) if order.plant else nullcontext():
        run(order, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
