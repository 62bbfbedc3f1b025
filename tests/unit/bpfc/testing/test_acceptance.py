"""Verdicts beside the running kernel's: over this project's objects, and the table that is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bpfc.testing.acceptance import Row, main, measure, summary
from bpfc.testing.libbpf import Said, is_installed, judged

OBJECTS = Path(__file__).parents[3] / "objects"
needs_linux = [
    pytest.mark.kernel,
    pytest.mark.skipif(not is_installed(), reason="libbpf.so.1 is not installed"),
]


def row(program: str, linux: str, code: str, insns: int = 4, ms: int = 1) -> Row:
    return Row(
        "a.o", "1", program, "xdp", insns, linux, f"R{insns} is bad", 1_000_000, code, code, 1_000_000 * ms
    )


def test_the_summary_counts_and_groups_what_differs() -> None:
    rows = [
        row("fine", "accepted", "", ms=1),
        row("slow", "accepted", "", 20, ms=3),
        row("lost", "accepted", "leaked", 30),
        row("bad", "refused", "leaked"),
        row("worse", "refused", "", 7),
        row("worst", "refused", "", 8),
        row("unknown", "undecided", "leaked"),
    ]
    assert list(summary(rows)) == [
        "accepted by Linux: 3 programs, 2 here too (66.67%)",
        "refused by Linux: 3 programs, 1 here too (33.33%)",
        "undecided: 1",
        "accepted by Linux, refused here:",
        "      1 leaked  (such as a.o: lost)",
        "refused by Linux, accepted here:",
        "      2 RN is bad  (such as a.o: worse)",
        "insns           programs     median        99 %   Linux, median   Linux, 99 %   an insn",
        "    0 to       9      1     1.00 ms       1.00 ms       1.00 ms       1.00 ms    250.0 us",
        "   10 to      49      1     3.00 ms       3.00 ms       1.00 ms       1.00 ms    150.0 us",
        "    0 to 1048575      2     3.00 ms       3.00 ms       1.00 ms       1.00 ms    166.7 us",
    ]


class TestAgainstLinux:
    pytestmark = needs_linux

    @pytest.mark.parametrize("name", ["globals.o", "map_ops.o", "packet_ops.o", "xdp_stats.o"])
    def test_own_objects_get_the_verdicts_of_linux(self, name: str) -> None:
        rows = measure(OBJECTS / name)
        assert rows
        assert [row.program for row in rows if row.is_decided and not row.is_same] == []
        assert "accepted" in {row.linux for row in rows}

    def test_a_refusal_comes_with_the_last_line_of_the_log(self) -> None:
        verdict = judged((OBJECTS / "tables.o").read_bytes(), "proved")
        assert verdict.said is Said.REFUSED
        assert verdict.reason == "unknown opcode 8d"

    def test_a_program_that_the_verifier_never_saw_is_undecided(self) -> None:
        data = (OBJECTS / "own_kfuncs.o").read_bytes()
        rows = measure(OBJECTS / "own_kfuncs.o")
        assert {judged(data, row.program).said for row in rows} == {Said.UNDECIDED}

    def test_what_a_report_holds_is_not_measured_again(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        report = tmp_path / "report.jsonl"
        arguments = ["--report", str(report), str(OBJECTS / "xdp_stats.o")]
        assert main(arguments) == 0
        (line,) = report.read_text().splitlines()
        report.write_text(json.dumps({**json.loads(line), "code": "altered"}) + "\n")
        capsys.readouterr()
        assert main(arguments) == 0
        assert "altered" in capsys.readouterr().out
        assert len(report.read_text().splitlines()) == 1

    def test_the_verdicts_of_linux_can_come_from_a_report(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        report = tmp_path / "report.jsonl"
        assert main(["--report", str(report), str(OBJECTS / "xdp_stats.o")]) == 0
        line = json.loads(report.read_text())
        report.write_text(json.dumps({**line, "linux": "refused", "linux_reason": "no"}) + "\n")
        capsys.readouterr()
        assert main(["--linux", str(report), str(OBJECTS / "xdp_stats.o")]) == 0
        assert "refused by Linux: 1 programs, 0 here too" in capsys.readouterr().out
