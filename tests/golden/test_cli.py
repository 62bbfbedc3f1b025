"""What commands print, word by word: cli/NAME.txt is the stdout of a command line run in the checkout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from bpfc.cli.root import root

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "cli"
XDP, TC, FILTER = (f"tests/objects/{name}.o" for name in ("xdp_stats", "tc_classify", "socket_filter"))
PCAP = "tests/objects/sample.pcap"

COMMANDS = {
    "help": "--help",
    "show-help": "show --help",
    "run-help": "run --help",
    "show": f"show {XDP}",
    "show-program": f"show {TC} classify",
    "show-json": f"show -p {FILTER}",
    "dump-xlated": f"dump xlated -S {FILTER}",
    "dump-xlated-dot": f"dump xlated --visual {FILTER}",
    "dump-ir": f"dump ir -S --level O0 {TC}",
    "btf-raw": f"btf dump {TC}",
    "btf-c": f"btf dump {TC} c",
    "run": f"run {XDP} --pcap {PCAP}",
    "run-json": f"run -p {FILTER} --pcap {PCAP}",
}
TIMING = ("\ntiming\n", '  "timing": {')


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_prints_what_it_printed(
    name: str, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(root, COMMANDS[name].split(), prog_name="bpfc")
    assert result.exit_code == 0, result.output
    golden(FOLDER / f"{name}.txt", without_timing(result.stdout))


def test_every_golden_file_belongs_to_a_command() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(COMMANDS)


def without_timing(text: str) -> str:
    """What is the same every time."""
    for head in TIMING:
        text = text.partition(head)[0]
    return text


def test_the_readme_shows_what_the_command_prints() -> None:
    shown = (FOLDER / "run.txt").read_text()
    assert shown in (ROOT / "README.md").read_text()
