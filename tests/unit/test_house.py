"""The laws of the house that no linter knows."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FLOORS = ("ir", "backends", "runtime", "bpfc")
BESIDE = ("tests", "benchmarks", "tools", "docs")
SLOW_TO_IMPORT = {"llvmlite", "networkx", "numpy", "elftools", "rich"}
IMPORT_AND_LIST = "import sys, {module}; print(*sorted(sys.modules))"
PACKAGE_HOSTS = re.compile(
    r"pypi[.]org|pythonhosted[.]org|(deb|security|snapshot)[.]debian[.]org|crates[.]io|npmjs[.]com|ghcr[.]io"
)


@pytest.mark.parametrize("module", ["bpfc", "bpfc.cli", "bpfc.api", "bpfc.running"])
def test_importing_what_every_run_needs_imports_nothing_slow(
    module: str, record_property: Callable[[str, object], None]
) -> None:
    start = children_cpu_seconds()
    command = [sys.executable, "-c", IMPORT_AND_LIST.format(module=module)]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    record_property("cpu_ms", round(1000 * (children_cpu_seconds() - start)))
    assert module in listed
    assert not SLOW_TO_IMPORT & set(listed)


@pytest.mark.parametrize("floor", ["ir", "backends", "runtime"])
def test_the_init_of_a_floor_is_a_docstring_and_nothing_else(floor: str) -> None:
    module = ast.parse((ROOT / floor / "__init__.py").read_text())
    assert ast.get_docstring(module)
    assert len(module.body) == 1


def test_no_file_names_a_package_host() -> None:
    found = [str(path.relative_to(ROOT)) for path in source_files() if PACKAGE_HOSTS.search(path.read_text())]
    assert found == []


def test_the_architecture_shows_the_folders_there_are() -> None:
    tree = (ROOT / "ARCHITECTURE.md").read_text().partition("```\n")[2].partition("```")[0]
    shown = re.findall(r"^ *(\w+)/", tree, re.MULTILINE)
    packages = [path.parent.name for floor in FLOORS for path in (ROOT / floor).rglob("__init__.py")]
    assert sorted(shown) == sorted([*packages, *BESIDE])


def source_files() -> Iterator[Path]:
    """Yield the text files of the checkout that people write."""
    yield from (path for path in ROOT.iterdir() if path.suffix in {".md", ".toml", ".in"})
    yield ROOT / "Makefile"
    for folder in (*FLOORS, *BESIDE, ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {"", ".py", ".sh", ".md", ".c", ".h"} and path.is_file():
                yield path


def children_cpu_seconds() -> float:
    """Return the CPU time that this process's finished children took."""
    times = os.times()
    return times.children_user + times.children_system
