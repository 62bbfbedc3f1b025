"""What all commands have in common: global options, errors, exit codes, help."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bpfc.cli.root import SUMMARIES

Run = Callable[..., Result]
RunJson = Callable[..., dict[str, Any]]
ESCAPE = "\x1b["


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_global_option_may_stand_anywhere(bpfc: Run, xdp: Path, place: int) -> None:
    words = ["show", str(xdp)]
    words.insert(place, "--json")
    assert json.loads(bpfc(*words).stdout)["schema"] == "bpfc.show/1"


def test_pretty_is_json_on_many_lines(bpfc: Run, xdp: Path) -> None:
    said = bpfc("show", "-p", xdp).stdout
    assert len(said.splitlines()) > 50
    assert json.loads(said)["object"] == "xdp_stats"


def test_help_names_every_command(bpfc: Run) -> None:
    result = bpfc("--help")
    assert result.exit_code == 0
    assert set(SUMMARIES) <= set(result.stdout.split())


@pytest.mark.parametrize("command", sorted(set(SUMMARIES) - {"conformance-plugin"}))
def test_every_command_has_help(bpfc: Run, command: str) -> None:
    result = bpfc(command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: bpfc {command}")


def test_the_version_is_the_package_s(bpfc: Run) -> None:
    assert bpfc("show", "-V").stdout == "bpfc 0.1.0\n"


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["shwo"], 2, "usage"),
        (["show"], 2, "usage"),
        (["show", "--nope", "x"], 2, "usage"),
        (["show", "/no/such/file"], 3, "cannot-read"),
        (["show", __file__], 3, "not-elf"),
        (["show", "OBJ", "nope"], 1, "no-such-program"),
        (["run", "OBJ", "--pcap", "/no/such/file"], 3, "cannot-open"),
        (["run", "OBJ", "--pcap", __file__], 3, "bad-pcap"),
        (["run", "OBJ", "--set", "nope=1"], 1, "no-such-variable"),
        (["run", "OBJ", "--set", "debug"], 2, "usage"),
        (["run", "OBJ", "--ctx", "nope=1"], 1, "unknown-context-field"),
        (["run", "OBJ", "--map", "nope=x.json"], 2, "usage"),
        (["run", "OBJ", "--data-in", "hex:xyz"], 1, "not-hex"),
        (["run", "OBJ", "--data-in", "hex:00", "--pcap", "x"], 2, "usage"),
        (["compile", "OBJ", "--arch", "vax"], 4, "unknown-target"),
        (["dump", "ir", "OBJ", "--passes", "nope"], 1, "unknown-pass"),
        (["btf", "dump", "OBJ", "--type", "nope"], 1, "no-such-type"),
    ],
)
def test_an_error_has_an_exit_code_and_a_kind(
    bpfc: Run, bpfc_json: RunJson, xdp: Path, words: list[str], code: int, kind: str
) -> None:
    words = [str(xdp) if word == "OBJ" else word for word in words]
    answer = bpfc_json(*words, code=code)
    assert answer["error"]["kind"] == kind
    assert answer["error"]["message"]
    assert "hint" in answer["error"]
    plain = bpfc(*words)
    assert plain.exit_code == code
    assert plain.stdout == ""
    assert answer["error"]["message"] in plain.stderr


def test_json_is_understood_even_where_the_words_are_not(bpfc: Run) -> None:
    assert json.loads(bpfc("-p", "shwo").stdout)["error"]["message"].startswith("no such command")


def test_color_is_for_who_asks(bpfc: Run, xdp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ESCAPE not in bpfc("show", xdp).stdout
    assert ESCAPE in bpfc("--color", "always", "show", xdp).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert ESCAPE not in bpfc("show", xdp).stdout
    assert ESCAPE in bpfc("show", xdp, "--color=always").stdout


def test_quiet_leaves_the_result_alone(bpfc: Run, xdp: Path) -> None:
    assert bpfc("-q", "show", xdp).stdout == bpfc("show", xdp).stdout


def test_the_shell_completes_commands_and_programs(
    bpfc: Run, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_BPFC_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "bpfc tar")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert bpfc().stdout.split(",") == ["plain", "targets\n"]
    monkeypatch.setenv("COMP_WORDS", f"bpfc show {objects / 'tc_classify.o'} cl")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert bpfc().stdout.split(",") == ["plain", "classify\n"]
