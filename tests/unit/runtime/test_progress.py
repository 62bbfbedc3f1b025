"""Waiting until every thread of the process has moved on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from runtime import progress
from runtime.progress import Progress


def _wait(found: Progress, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not found.is_over and time.monotonic() < end:
        time.sleep(1e-3)
    return found.is_over


def test_threads_that_sleep_have_moved_on() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert _wait(Progress(), 5)
    finally:
        done.set()
        thread.join()


def test_threads_that_run_have_moved_on_when_they_ran_for_a_while() -> None:
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            sum(range(1000))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        assert _wait(Progress(), 20)
    finally:
        done.set()
        thread.join()


def test_where_threads_cannot_be_looked_at_time_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_TASKS", tmp_path / "missing")
    monkeypatch.setattr(progress, "_BLIND", 0.05)
    found = Progress()
    assert not found.is_over
    assert _wait(found, 5)


def test_a_thread_of_which_nothing_is_known_is_waited_for_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither sleeps (state R) nor says how long it has run."""
    task = tmp_path / "1"
    task.mkdir()
    (task / "stat").write_bytes(b"1 (a) b) R 0 0")
    monkeypatch.setattr(progress, "_TASKS", tmp_path)
    monkeypatch.setattr(progress, "_BLIND", 0.05)
    assert not Progress().is_over
    found = Progress()
    assert _wait(found, 5)
    (task / "stat").write_bytes(b"1 (a) b) S 0 0")
    assert Progress().is_over


def test_a_stopped_thread_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tmp_path / "1"
    task.mkdir()
    (task / "stat").write_bytes(b"1 (a) T 0 0")
    (task / "schedstat").write_bytes(b"1000 0 1")
    monkeypatch.setattr(progress, "_TASKS", tmp_path)
    monkeypatch.setattr(progress, "_BLIND", 0.0)
    found = Progress()
    assert not found.is_over
    (task / "stat").write_bytes(b"1 (a) R 0 0")
    (task / "schedstat").write_bytes(b"1000000 0 2")
    assert not found.is_over
    (task / "schedstat").write_bytes(b"30000000 0 3")
    assert found.is_over
