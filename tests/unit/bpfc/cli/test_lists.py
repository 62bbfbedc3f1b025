"""`bpfc feature`, `bpfc passes`, `bpfc targets`."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

from bpfc.cli.feature import EXTRAS

ROOT = Path(__file__).parents[4]
Run = Callable[..., Result]
RunJson = Callable[..., dict[str, Any]]


def test_features_are_told(bpfc: Run, bpfc_json: RunJson) -> None:
    said = bpfc_json("feature")
    assert said["host"]["machine"] == platform.machine()
    assert said["host"]["llvm"].split(".")[0].isdigit()
    assert said["host"]["publish"]["mode"] in ("none", "remap", "rwx")
    assert isinstance(said["kernel"]["bpf"], bool)
    assert said["extras"]["emu"]["package"] == "unicorn"
    assert "bpf(2)" in bpfc("feature").stdout


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"dev"}


def test_passes_and_pipelines_are_listed(bpfc: Run, bpfc_json: RunJson) -> None:
    said = bpfc_json("passes")
    assert {"fold-constants", "remove-dead-code"} <= {one["name"] for one in said["passes"]}
    assert said["pipelines"]["O0"] == ""
    assert "fold-rodata" in said["pipelines"]["O2"]
    assert "fold-constants" in bpfc("passes").stdout


def test_targets_are_listed(bpfc: Run, bpfc_json: RunJson) -> None:
    targets = {one["name"]: one for one in bpfc_json("targets")["targets"]}
    assert targets["x86_64"]["byte_order"] == "little"
    assert sum(one["host"] for one in targets.values()) <= 1
    assert "x86_64-unknown-linux-gnu" in bpfc("targets").stdout
