"""Campaigns: every case is judged once, whatever dies; finds are kept, small, and can be replayed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bpfc.testing.campaign import Plan, executor_of, run
from bpfc.testing.finds import read, write
from bpfc.testing.oracle import Surroundings
from bpfc.testing.reduce import judge_apart
from bpfc.testing.registry import ORACLES
from bpfc.testing.shard import read_current
from bpfc.testing.store import Store, kept
from ir.diagnostics import RejectedError, UnreadableError

HOUR = 3600.0


def quiet(store: Store, elapsed: float) -> None:
    """No progress."""


def campaign(folder: Path, plan: Plan, jobs: int = 1) -> None:
    with Store(folder) as store, ThreadPoolExecutor(jobs) as pool:
        store.begin({"campaign": plan.campaign, "archs": plan.archs, "seed": plan.seed})
        run(plan, store, pool, jobs, quiet)


def test_every_case_is_judged_once_and_a_campaign_goes_on_where_it_was(tmp_path: Path) -> None:
    campaign(tmp_path, Plan("claims", HOUR, cases=40))
    campaign(tmp_path, Plan("claims", HOUR, cases=100))
    with Store(tmp_path) as store:
        totals = store.totals()
        assert totals["cases"] == 100
        assert totals["accepted"] > 30
        assert totals["row:exit"] >= 1
        assert sum(name.startswith("branch:") for name in totals) > 100
        assert store.finds() == []


@pytest.mark.slow
def test_a_crash_costs_one_case_and_is_a_find(tmp_path: Path) -> None:
    campaign(tmp_path, Plan("native", HOUR, cases=8, plant="crash"))
    with Store(tmp_path) as store:
        totals = store.totals()
        ((find, times, known),) = store.finds()
        assert totals["cases"] == 8
        assert totals["crashes"] == times
        assert (find.finding.signature, known) == ("native:crash:SIGSEGV", False)
        assert find.case.program is not None
        assert any(data.startswith(b"\xff\xff") for data in find.case.inputs)
        assert not store.open_shards()


def test_a_find_is_small_and_can_be_replayed_from_its_file(tmp_path: Path) -> None:
    campaign(tmp_path, Plan("claims", HOUR, cases=60, plant="transfer-xor"))
    with Store(tmp_path) as store:
        found = {find.finding.signature: find for find, _, _ in store.finds()}
    find = found["claims:claim:xor64 reg"]
    assert find.case.program is not None
    assert len(find.case.program.insns) <= 16
    path = write(find, tmp_path)
    assert read(path).case == find.case
    assert judge_apart(ORACLES["claims"], read(path).case, Surroundings()) is None, "nothing is planted here"
    text = path.with_suffix(".txt").read_text()
    assert text.startswith("=== claims:claim:xor64 reg\ntype ")
    assert "    exit\n" in text


def test_known_finds_are_counted_and_hide_no_others(tmp_path: Path) -> None:
    campaign(tmp_path, Plan("claims", HOUR, cases=20, plant="transfer-xor"))
    with Store(tmp_path) as store:
        signatures = [find.finding.signature for find, _, _ in store.finds()]
        store.know(signatures[:1])
    campaign(tmp_path, Plan("claims", HOUR, cases=60, plant="transfer-xor"))
    with Store(tmp_path) as store:
        finds = store.finds()
        assert [find.finding.signature for find, _, known in finds if known] == signatures[:1]
        assert len(finds) >= len(signatures)


def test_a_shard_that_is_killed_from_outside_goes_on_with_the_same_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed: list[int] = []

    def kill_the_shard(store: Store, elapsed: float) -> None:
        if not killed and _seed_at(tmp_path) > 2:
            killed.extend(_shards_of(os.getpid()))
            os.kill(killed[0], signal.SIGKILL)

    plan = Plan("claims", HOUR, cases=4000)  # some seconds: progress is told once a second
    with Store(tmp_path) as store, ThreadPoolExecutor(1) as pool:
        store.begin({"campaign": plan.campaign, "archs": (), "seed": 0})
        run(plan, store, pool, 1, kill_the_shard)
        totals = store.totals()
    assert killed
    assert (totals["cases"], totals.get("crashes", 0), totals["outcome:killed from outside"]) == (4000, 0, 1)


def _shards_of(process: int) -> list[int]:
    """The children that are shards: tests before this one may have left emulators running."""
    folder = Path(f"/proc/{process}/task")
    found = [child for task in folder.iterdir() for child in (task / "children").read_text().split()]
    return [
        int(child) for child in found if b"bpfc.testing.shard" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def _seed_at(folder: Path) -> int:
    """The seed of the case that a shard is at, whose files are in `folder`; -1 before the first."""
    current = [read_current(path) for path in folder.glob("bpfc-fuzz-*/current")]
    return max((each[1]["seed"] for each in current if each is not None), default=-1)


def test_an_interrupted_campaign_keeps_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def interrupt(store: Store, elapsed: float) -> None:
        if _seed_at(tmp_path) > 2:
            raise KeyboardInterrupt

    plan = Plan("claims", HOUR)
    with Store(tmp_path) as store, ThreadPoolExecutor(1) as pool:
        store.begin({"campaign": plan.campaign, "archs": (), "seed": 0})
        with pytest.raises(KeyboardInterrupt):
            run(plan, store, pool, 1, _once(interrupt))
        done = int(store.totals()["cases"])
        assert done > 2
        assert store.open_shards() == [(done, 4096 - done)]
    campaign(tmp_path, Plan("claims", HOUR, cases=done + 20))
    with Store(tmp_path) as store:
        assert store.totals()["cases"] == done + 20


def _once(progress: Callable[[Store, float], None]) -> Callable[[Store, float], None]:
    """Raises but once."""
    raised: list[bool] = []

    def once(store: Store, elapsed: float) -> None:
        if not raised:
            try:
                progress(store, elapsed)
            except KeyboardInterrupt:
                raised.append(True)
                raise

    return once


def test_one_process_at_a_time_runs_a_campaign(tmp_path: Path) -> None:
    with kept(tmp_path, to_run=True), pytest.raises(RejectedError, match="another process"):
        kept(tmp_path, to_run=True).__enter__()
    with kept(tmp_path, to_run=True):
        pass


def test_a_store_that_is_damaged_or_in_the_way_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "campaign.sqlite").write_bytes(b"not a database, though long enough for one" * 100)
    for folder in (tmp_path, tmp_path / "campaign.sqlite"):
        with pytest.raises(UnreadableError, match="cannot be kept"), kept(folder):
            pass


@pytest.mark.parametrize("spec", ["threads-of-mine", "no.such.module:Pool", "json:dumps", "os:getpid"])
def test_an_executor_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(RejectedError, match="executor"):
        executor_of(spec, 1)
