"""The native side: a C source compiled to a shared object, and its loop over packets called as bpfc's own is.

Safe because the loop is given the addresses of a Batch, which holds its buffers, and a context of its own.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import bpfc
from benchmarks.micros import FOLDER, Micro

COMPILERS: Final = ("clang", "clang-22", "clang-21", "clang-20", "clang-19", "gcc", "cc")
FLAGS: Final = ("-O2", "-fPIC", "-shared")


class UnavailableError(Exception):
    """Something to compare with is not there; the text says what and why."""


@final
@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler: where it is and what it calls itself."""

    path: str
    version: str

    @property
    def is_clang(self) -> bool:
        """Whether it can compile for BPF too."""
        return "clang" in self.version


def find_compiler(given: str | None = None) -> Compiler:
    """The compiler named, or the first there is. Raises UnavailableError."""
    for name in (given,) if given else COMPILERS:
        path = shutil.which(name)
        if path is not None:
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            return Compiler(path, said.splitlines()[0])
    raise UnavailableError(f"no C compiler (looked for {given or ', '.join(COMPILERS)})")


def compile_library(compiler: Compiler, folder: Path, name: str, text: str) -> Path:
    """C text as a shared library. Raises UnavailableError."""
    source = folder / f"{name}.c"
    source.write_text(text)
    return _compile(compiler, folder / f"{name}.so", source)


@final
class Native:
    """A micro program as native code, compiled with more `flags` where the header asks for some."""

    def __init__(self, compiler: Compiler, micro: Micro, folder: Path, *flags: str) -> None:
        library = folder / f"{micro.name}{''.join(flags)}.so"
        _compile(compiler, library, micro.source(folder), FOLDER / "native.c", flags=flags)
        self._loop = ctypes.CDLL(str(library)).bench_batch
        self._loop.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_uint64, ctypes.c_void_p]
        self._loop.restype = None
        self._context = (ctypes.c_void_p * 2)()

    def run_batch(self, batch: bpfc.Batch) -> None:
        """Run over every packet of `batch`, in place; the results are in its `rets`."""
        self._loop(
            self._context,
            batch.addresses.buffer_info()[0],
            batch.lengths.buffer_info()[0],
            batch.count,
            batch.rets_address,
        )


def _compile(compiler: Compiler, library: Path, *sources: Path, flags: Sequence[str] = ()) -> Path:
    command = [compiler.path, *FLAGS, *flags, "-o", str(library), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{compiler.path} fails on {sources[0].name}: {done.stderr.strip()[:200]}")
    return library
