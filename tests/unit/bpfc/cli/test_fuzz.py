"""`bpfc fuzz`: a campaign, its report, a find replayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from bpfc import assemble
from bpfc.cli.fuzz import seconds_of
from bpfc.testing.case import Case
from bpfc.testing.finds import Find
from bpfc.testing.oracle import Finding
from bpfc.testing.store import kept

Run = Callable[..., Result]
FIND = {
    "oracle": "claims",
    "what": "",
    "where": "",
    "said": "",
    "case": {"inputs": [], "seed": 0},
    "seed": 0,
    "archs": [],
    "versions": {},
}


def test_a_campaign_reports_what_it_did_and_is_gone_on_with(bpfc: Run, tmp_path: Path) -> None:
    folder = str(tmp_path / "campaign")
    done = bpfc("-j", "fuzz", "claims", "--cases", "20", "-j", "1", "--dir", folder)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["cases"] == 20
    again = bpfc("fuzz", "claims", "--cases", "20", "-j1", "--dir", folder)
    assert again.exit_code == 2
    assert "--resume" in again.stderr
    assert bpfc("fuzz", "--json", "claims", "--cases", "30", "-j1", "--resume", folder).exit_code == 0
    report = json.loads(bpfc("fuzz", "report", folder, "-j").stdout)
    assert (report["cases"], report["finds"], report["schema"]) == (30, [], "bpfc.fuzz/1")


def test_a_campaign_goes_on_with_its_own_targets(bpfc: Run, tmp_path: Path) -> None:
    pytest.importorskip("unicorn", reason="the extra 'emu' is not installed")
    folder = str(tmp_path / "campaign")
    begun = ("fuzz", "targets", "--cases", "2", "-j", "1", "--arch", "riscv64", "--dir", folder)
    assert bpfc(*begun).exit_code == 0
    done = bpfc("-j", "fuzz", "targets", "--cases", "4", "-j", "1", "--resume", folder)
    assert json.loads(done.stdout)["cases"] == 4


def test_a_find_that_does_not_show_any_more_is_forgotten_when_asked(bpfc: Run, tmp_path: Path) -> None:
    folder = str(tmp_path / "campaign")
    assert bpfc("fuzz", "claims", "--cases", "1", "-j", "1", "--dir", folder).exit_code == 0
    program = assemble("r0 = 0\nexit").program("main")
    finding = Finding("claims", "claim", "somewhere", "it was so once")
    find = Find.of(finding, Case(program, {}, (bytes(8),)), 1, ()).to_json()
    came = {"first": 2, "next": 3, "done": True, "totals": {}, "programs": [], "proved": []}
    with kept(Path(folder)) as store:
        store.plan(2, 1)
        store.add({**came, "finds": [find], "repeated": {}})
    assert bpfc("fuzz", "report", folder).exit_code == 1
    again = bpfc("fuzz", "report", folder, "--again")
    assert (again.exit_code, "does not show any more" in again.stderr) == (0, True)
    assert bpfc("fuzz", "report", folder).exit_code == 0


def test_what_is_no_campaign_folder_or_find_is_said_so(bpfc: Run, tmp_path: Path) -> None:
    assert bpfc("fuzz", "everything").exit_code == 2
    assert bpfc("fuzz", "report", str(tmp_path)).exit_code == 2
    assert bpfc("fuzz", "claims", "--resume", str(tmp_path)).exit_code == 2
    file = tmp_path / "find.json"
    for text in ("{}", "[]", "no JSON", json.dumps({**FIND, "oracle": "none"})):
        file.write_text(text)
        assert bpfc("fuzz", "replay", str(file)).exit_code == 3


def test_a_campaign_that_cannot_start_leaves_nothing_behind(bpfc: Run, tmp_path: Path) -> None:
    folder = str(tmp_path / "campaign")
    for option in (
        ("--executor", "none"),
        ("--time", "0"),
        ("-j", "0"),
        ("--arch", "vax"),
        ("--cases", "-1"),
        ("--seed", str(1 << 64)),
    ):
        done = bpfc("fuzz", "claims", "--dir", folder, *option)
        assert done.exit_code in (1, 2, 4)
        assert "error" in done.stderr + done.stdout
    assert not Path(folder).exists()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5m", 90), ("1h", 3600), ("7", 7)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
