"""Native code kept on disk between processes: a folder of files named by digests, each written whole.

    $BPFC_CACHE_DIR, or bpfc/ under $XDG_CACHE_HOME or ~/.cache; mode 0700: what is in it gets executed
        4f/4f09...e1    one NativeCode (backends/native_code); its time of last change is that of last use

A file appears by rename, so readers see all of it or nothing and writers of one key don't disturb each other.
What cannot be read is no entry, and the next `put` replaces it. The folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import stat
import threading
import time
from functools import cache
from pathlib import Path
from typing import Final, final

from backends.native_code import NativeCode, from_bytes
from ir.diagnostics import UnreadableError

LARGEST: Final = 256 << 20
_KEPT: Final = 0.75  # what is left of the bound after eviction, so that it happens seldom
_TOUCH_EVERY: Final = 3600.0  # seconds by which a time of last use may be behind
_COUNT_EVERY: Final = 64  # writes of one process between two looks at the folder's size


@final
class ObjectCache:
    """A cache folder of at most `largest` bytes. Errors of the file system make it miss, never fail."""

    def __init__(self, folder: Path, largest: int = LARGEST) -> None:
        self.folder = folder
        self.largest = largest
        self._writes = 0

    @classmethod
    def default(cls) -> ObjectCache:
        """The user's cache: where the environment says."""
        return cls(default_folder())

    def get(self, key: bytes) -> NativeCode | None:
        """The code stored under `key`; None when there is none, or none that is whole."""
        path = self._path(key)
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    return None
                code = from_bytes(file.read())
                if time.time() - status.st_mtime > _TOUCH_EVERY:
                    os.utime(path)
        except (OSError, UnreadableError):
            return None
        return code

    def put(self, key: bytes, code: NativeCode) -> None:
        """Store `code` under `key`, in place of what was there; what was used longest ago may go."""
        path = self._path(key)
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _write_whole(path, code.to_bytes())
        self._writes += 1
        if self._writes % _COUNT_EVERY == 1:
            self.evict()

    def evict(self) -> None:
        """Delete the entries used longest ago while all together are larger than the bound."""
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        if total <= self.largest:
            return
        for _, size, path in entries:
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size
            if total <= self.largest * _KEPT:
                return

    def usage(self) -> tuple[int, int]:
        """How many entries there are, and their bytes together."""
        sizes = [size for _, size, _ in self._entries()]
        return len(sizes), sum(sizes)

    def _entries(self) -> list[tuple[float, int, str]]:
        """(time of last use, size, path) of every file, half-written ones of dead writers too."""
        found = []
        for parent, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(parent, name)
                with contextlib.suppress(OSError):
                    status = os.stat(path)
                    found.append((status.st_mtime, status.st_size, path))
        return found

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self.folder / name[:2] / name


@cache
def toolchain() -> tuple[str, ...]:
    """What compiled code depends on of this installation: LLVM's version and the processor's features.

    llvmlite's own version file is read: a tenth of the time that importing it, or package metadata, takes.
    """
    found = importlib.util.find_spec("llvmlite")
    assert found is not None, "llvmlite is a dependency"
    assert found.origin is not None, "llvmlite is a package with files"
    version = Path(found.origin).with_name("_version.py").read_text()
    cpu = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        wanted = ("flags", "model name", "Features")
        with info.open() as file:  # only the first processor is read, there may be hundreds
            first = itertools.takewhile(str.strip, file)
            cpu = "".join(line for line in first if line.startswith(wanted))
    return (version, os.uname().machine, cpu)


def default_folder() -> Path:
    """Where the environment puts the cache: BPFC_CACHE_DIR, else XDG_CACHE_HOME, else ~/.cache."""
    own = os.environ.get("BPFC_CACHE_DIR")
    if own:
        return Path(own)
    # The XDG base directory specification: a relative path is to be ignored.
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "bpfc"


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file under a name of its own, then give it its name: others see all of it or nothing."""
    own = f".{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}"
    temporary = path.with_name(own)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
