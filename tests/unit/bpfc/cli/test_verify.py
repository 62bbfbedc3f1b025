"""`bpfc verify`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
ROOT = Path(__file__).parents[4]
SAMPLE = str(ROOT / "tests/objects/xdp_stats.o")


@pytest.fixture
def unsafe(tmp_path: Path) -> str:
    path = tmp_path / "unsafe.s"
    path.write_text("r0 = *(u64 *)(r10 - 520)\nexit\n")
    return str(path)


def test_safe_programs_are_a_yes(bpfc: Run) -> None:
    result = bpfc("verify", SAMPLE)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].split() == [SAMPLE, "xdp_stats", "safe"]


def test_one_unsafe_program_is_a_no_that_says_why(bpfc: Run, unsafe: str) -> None:
    result = bpfc("verify", SAMPLE, unsafe)
    assert result.exit_code == 1
    assert "insn 0: error:" in result.stdout
    assert result.stdout.splitlines()[-1].split() == [unsafe, "main", "rejected"]


def test_what_root_may_load_others_may_not(bpfc: Run) -> None:
    result = bpfc("verify", "--unprivileged", SAMPLE)
    assert result.exit_code == 1
    assert "programs of type XDP take CAP_BPF" in result.stdout


def test_json_has_a_verdict_for_each_program(bpfc: Run, unsafe: str) -> None:
    said = json.loads(bpfc("verify", "-j", SAMPLE, unsafe).stdout)
    assert said["schema"] == "bpfc.verify/1"
    assert said["ok"] is False
    assert [(one["name"], one["accepted"]) for one in said["programs"]] == [
        ("xdp_stats", True),
        ("main", False),
    ]
    assert said["programs"][1]["diagnostics"][0]["at"]["insn"] == 0


def test_sarif_has_a_result_for_each_finding(bpfc: Run, unsafe: str) -> None:
    said: dict[str, Any] = json.loads(bpfc("verify", "--sarif", unsafe).stdout)
    assert said["version"] == "2.1.0"
    (run,) = said["runs"]
    (result,) = run["results"]
    assert result["ruleId"] in {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert result["level"] == "error"
