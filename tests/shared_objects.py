"""Shared objects compiled while tests run, with the C compilers that are installed."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "libraries"


def build_library(
    folder: Path, source: str, compiler: str, *flags: str, debug: bool = True, name: str = ""
) -> ctypes.CDLL:
    """`source` of tests/libraries, compiled and loaded. Skips the test where there is no such compiler."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} to compile {source} with")
    pic = [] if "-fno-pic" in flags else ["-fPIC"]
    words = [compiler, "-O2", *(["-g"] if debug else []), *pic, "-shared", *flags, str(SOURCES / source)]
    path = folder / f"{name or Path(source).stem}-{abs(hash(tuple(words))):x}.so"
    done = subprocess.run([*words, "-o", str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{compiler} refuses {' '.join(flags)}: {done.stderr.splitlines()[0]}")
    return ctypes.CDLL(str(path))


def build_text(folder: Path, name: str, text: str, compiler: str, *flags: str) -> ctypes.CDLL:
    """C text, compiled and loaded as `build_library` does."""
    path = folder / f"{name}.c"
    path.write_text(text)
    return build_library(folder, str(path), compiler, *flags, name=name)
