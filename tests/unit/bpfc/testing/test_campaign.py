"""Campaigns: every case is judged once, whatever dies; finds are kept, small, and can be replayed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bpfc.testing.campaign import Plan, executor_of, run
from bpfc.testing.finds import read, write
from bpfc.testing.oracle import Surroundings
from bpfc.testing.reduce import judge_apart
from bpfc.testing.registry import ORACLES
from bpfc.testing.store import Store
from ir.diagnostics import RejectedError

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
    campaign(tmp_path, Plan("claims", HOUR, cases=30, plant="transfer-xor"))
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


@pytest.mark.parametrize("spec", ["threads-of-mine", "no.such.module:Pool", "json:dumps"])
def test_an_executor_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(RejectedError, match="executor"):
        executor_of(spec, 1)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a dask scheduler on loopback, and its two workers."""
    pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")
    said = tmp_path / "scheduler.json"
    base = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONWARNINGS": "ignore"}

    def start(*command: str) -> subprocess.Popen[bytes]:
        out = (tmp_path / "dask.log").open("ab")
        return subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=os.getcwd())

    processes = [
        start(*base, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(said))
    ]
    try:
        while not said.exists():
            assert processes[0].poll() is None, (tmp_path / "dask.log").read_text()
            time.sleep(0.1)
        address = json.loads(said.read_text())["address"]
        worker = [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            address,
            "--no-dashboard",
            "--no-nanny",
        ]
        processes += [start(*worker, "--nthreads", "1") for _ in range(2)]
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_loses_nothing_when_a_worker_is_killed(
    tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, workers = cluster
    monkeypatch.setattr("bpfc.testing.campaign.SHARD_SEEDS", 20)
    killed = []

    def kill_one(store: Store, elapsed: float) -> None:
        if not killed and store.totals().get("cases", 0) >= 20:
            workers[0].send_signal(signal.SIGKILL)
            killed.append(workers[0].wait())

    plan = Plan("claims", HOUR, cases=120, plant="transfer-xor")
    with Store(tmp_path / "campaign") as store, executor_of(f"dask:{address}", 2) as pool:
        store.begin({"campaign": plan.campaign, "archs": (), "seed": 0})
        run(plan, store, pool, 2, kill_one)
        assert killed == [-signal.SIGKILL]
        assert store.totals()["cases"] == 120
        assert "claims:claim:xor64 reg" in {find.finding.signature for find, _, _ in store.finds()}
