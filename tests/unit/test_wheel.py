"""The wheel: it owns the one name `bpfc`, and nothing in the user's folder gets between its parts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HOOK = "import sys, wheel_backend; getattr(wheel_backend, sys.argv[1])(sys.argv[2])"
DECOYS = ("ir.py", "runtime/__init__.py", "backends/__init__.py")
IMPORT_EVERYTHING = """
import importlib, pkgutil, bpfc
for module in pkgutil.walk_packages(bpfc.__path__, "bpfc."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
assert importlib.import_module("bpfc.ir.isa").__file__ != importlib.import_module("bpfc").__file__
"""
RUN_A_PROGRAM = """
import bpfc
with bpfc.assemble("r0 = 6\\nr0 *= 7\\nexit").start() as rt:
    print(rt["main"].run(b"").ret)
"""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source distribution of this checkout, built in a copy: building writes where it builds."""
    folder = tmp_path_factory.mktemp("built")
    tree = tmp_path_factory.mktemp("copy") / "bpfc"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "bpfc-*"))
    build("build_wheel", tree, folder)
    build("build_sdist", tree, folder)
    return folder


@pytest.fixture(scope="module")
def venv(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv that holds the wheel, and sees our dependencies but not the checkout."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A folder named in a .pth is searched, but its own .pth files (our editable install) are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = built.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", wheel)
    return folder


@pytest.fixture
def decoys(tmp_path: Path) -> Path:
    """A user's folder with an `ir.py`, a `runtime/` and a `backends/` of their own."""
    for name in DECOYS:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise ImportError('this is the decoy')\n")
    return tmp_path


def test_the_wheel_owns_the_one_name_bpfc(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"bpfc", "bpfc-0.1.0.dist-info"}
    assert {"bpfc/py.typed", "bpfc/ir/isa.py", "bpfc/backends/__init__.py"} <= set(names)


def test_every_module_imports_beside_decoys(venv: Path, decoys: Path) -> None:
    run(venv / "bin" / "python", "-c", IMPORT_EVERYTHING, cwd=decoys)


def test_a_program_runs_beside_decoys(venv: Path, decoys: Path) -> None:
    assert run(venv / "bin" / "python", "-c", RUN_A_PROGRAM, cwd=decoys) == "42\n"


@pytest.mark.parametrize("command", [("bpfc",), ("python", "-m", "bpfc")])
def test_the_command_line_starts_beside_decoys(command: tuple[str, ...], venv: Path, decoys: Path) -> None:
    assert "0.1.0" in run(venv / "bin" / command[0], *command[1:], "--version", cwd=decoys)


def test_the_source_distribution_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    build("build_wheel", tree, tmp_path)
    assert contents(tmp_path) == contents(built)


def build(hook: str, tree: Path, folder: Path) -> None:
    """Call a PEP 517 hook in `tree`, in a process of its own as every frontend does."""
    run(sys.executable, "-W", "ignore", "-c", HOOK, hook, folder, cwd=tree, PYTHONPATH=str(tree / "tools"))


def contents(folder: Path) -> dict[str, int]:
    """Return name and checksum of every file of the one wheel in `folder`."""
    (wheel,) = folder.glob("*.whl")
    return {info.filename: info.CRC for info in zipfile.ZipFile(wheel).infolist()}


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """Run a command away from the checkout's own modules; return stdout, fail with what it said."""
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
