"""Campaigns against the readers: what they count, and that they find."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfc.testing import read_campaign, readers
from bpfc.testing.readers import Format

SAMPLE = Path(__file__).parents[3] / "objects" / "sample.pcap"


def reading(monkeypatch: pytest.MonkeyPatch, read: object) -> None:
    """Let `read` be how every file is read."""
    format = Format("file", read, readers.BYTES)  # type: ignore[arg-type]  # whatever a test gives
    monkeypatch.setattr(read_campaign, "format_of", lambda path, data: format)


def test_a_campaign_counts_what_came_of_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_campaign.main(["--jobs", "1", "--first", "7", "30", str(SAMPLE)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.splitlines()[-1] == "      30 read, 0 findings"
    assert sum(int(line.split()[0]) for line in told.out.splitlines()[:-1]) == 30


def test_other_errors_are_findings_told_once_with_their_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(data: bytes, name: str) -> None:
        raise ValueError("planted")

    reading(monkeypatch, fail)
    assert read_campaign.main(["--jobs", "1", "--first", "7", "3", str(SAMPLE)]) == 1
    told = capsys.readouterr()
    assert told.out == "       3 read, 3 findings\n"
    assert told.err.startswith(f"{SAMPLE} seed 7\n")
    assert told.err.count("ValueError: planted") == 1


def test_so_is_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_campaign, "SLOW", -1.0)
    reading(monkeypatch, lambda data, name: None)
    outcomes, findings = read_campaign.run_batch(str(SAMPLE), range(2))
    assert not outcomes
    assert [finding.split()[-1] for finding in findings] == ["seconds", "seconds"]


def test_so_is_what_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(data: bytes, name: str) -> None:
        while True:
            pass

    monkeypatch.setattr(read_campaign, "ENDLESS", 0.05)
    reading(monkeypatch, hang)
    _, (finding,) = read_campaign.run_batch(str(SAMPLE), range(1))
    assert "EndlessError" in finding
