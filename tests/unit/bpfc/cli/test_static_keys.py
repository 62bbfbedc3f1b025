"""Static keys on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bpfc.cli.root import root

OBJECT = str(Path(__file__).parents[3] / "objects" / "static_keys.o")


@pytest.mark.parametrize(("state", "verdict"), [("off", "9"), ("on", "21")])
def test_run_starts_with_a_key_in_the_state_asked_for(state: str, verdict: str) -> None:
    result = CliRunner().invoke(root, ["run", OBJECT, "three_sites", "--static-key", f"debug={state}"])
    assert result.exit_code == 0
    assert f"  {verdict}  1  100.0 %" in result.stdout


@pytest.mark.parametrize("given", ["nope=on", "debug=maybe", "debug"])
def test_run_refuses_unknown_keys_and_states(given: str) -> None:
    result = CliRunner().invoke(root, ["run", OBJECT, "three_sites", "--static-key", given])
    assert result.exit_code == 2


def test_jited_marks_the_sites_of_a_key() -> None:
    pytest.importorskip("capstone")
    result = CliRunner().invoke(root, ["dump", "jited", OBJECT, "likely"])
    assert "static site, 5 bytes, insn 1 of key debug, jump, jumps to 0x" in result.stdout


@pytest.mark.parametrize("arch", ["i386", "armv7"])
def test_jited_says_that_a_branch_is_a_test_of_memory(arch: str) -> None:
    pytest.importorskip("capstone")
    result = CliRunner().invoke(root, ["dump", "jited", "--arch", arch, OBJECT, "likely"])
    assert result.exit_code == 0
    assert (
        "bpfc.flag.1: 01 00 00 00  ; static flag, 4 bytes, insn 1 of key debug, 1: code tests it in memory"
        in (result.stdout)
    )


def test_xlated_shows_calls_with_symbols() -> None:
    result = CliRunner().invoke(root, ["dump", "xlated", "--symbols", OBJECT, "with_callee"])
    assert "call pc+4#bpf_prog_8cbf6ec89584130a_callee" in result.stdout
