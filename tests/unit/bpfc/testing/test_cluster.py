"""Campaigns on a dask cluster of two workers: they find what is planted, and a worker that is killed loses nothing.

A few plants here; all of them by `make plants`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bpfc.testing.campaign import Plan, executor_of, run
from bpfc.testing.plants import PLANTS, Plant
from bpfc.testing.store import Store

pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ALL = os.environ.get("BPFC_PLANTS") == "all"
CHOSEN = [plant for plant in PLANTS.values() if ALL or plant.name == "transfer-and"]
MOST_CASES = 20_000
MOST_INSNS = 24
HOUR = 3600.0


@contextmanager
def running_cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a dask scheduler on loopback, and its two workers."""
    said = folder / "scheduler.json"
    base = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONWARNINGS": "ignore"}

    def start(*command: str) -> subprocess.Popen[bytes]:
        out = (folder / "dask.log").open("ab")
        return subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=os.getcwd())

    processes = [
        start(*base, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(said))
    ]
    try:
        while not said.exists():
            assert processes[0].poll() is None, (folder / "dask.log").read_text()
            time.sleep(0.1)
        address = json.loads(said.read_text())["address"]
        options = ["--no-dashboard", "--no-nanny", "--nthreads", "1", "--local-directory", str(folder)]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, *options]
        processes += [start(*worker) for _ in range(2)]
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster for several tests."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as (address, _):
        yield address


@pytest.mark.parametrize("plant", CHOSEN, ids=lambda plant: plant.name)
def test_two_workers_find_what_is_planted(
    plant: Plant, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpfc.testing.campaign.SHARD_SEEDS", 50)

    def end_when_found(store: Store, elapsed: float) -> None:
        if store.signatures() and not (tmp_path / "stop").exists():
            raise KeyboardInterrupt

    plan = Plan(plant.oracle, HOUR, seed=5000, cases=MOST_CASES, plant=plant.name)
    with Store(tmp_path) as store, executor_of(f"dask:{cluster}", 2) as pool:
        store.begin({"campaign": plan.campaign, "archs": (), "seed": plan.seed})
        with pytest.raises(KeyboardInterrupt):
            run(plan, store, pool, 2, end_when_found)
        finds = [find for find, _, _ in store.finds()]
    assert finds
    for find in finds:
        assert find.finding.oracle == plant.oracle
        assert find.case.program is not None
        assert len(find.case.program.insns) <= MOST_INSNS


def test_a_cluster_loses_nothing_when_a_worker_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpfc.testing.campaign.SHARD_SEEDS", 20)
    killed = []

    def kill_one(store: Store, elapsed: float) -> None:
        if not killed and store.totals().get("cases", 0) >= 20:
            workers[0].send_signal(signal.SIGKILL)
            killed.append(workers[0].wait())

    plan = Plan("claims", HOUR, cases=120, plant="transfer-xor")
    with (
        running_cluster(tmp_path) as (address, workers),
        Store(tmp_path / "campaign") as store,
        executor_of(f"dask:{address}", 2) as pool,
    ):
        store.begin({"campaign": plan.campaign, "archs": (), "seed": 0})
        run(plan, store, pool, 2, kill_one)
        assert killed == [-signal.SIGKILL]
        assert store.totals()["cases"] == 120
        assert "claims:claim:xor64 reg" in {find.finding.signature for find, _, _ in store.finds()}
