"""Debian's BPF objects, as `tools/fetch_objects.sh` collects them or as packages unpack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tools.collect_objects import find_objects


def iterate_objects(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every object under `folder`; those inside of executables are cut out and numbered."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        data = path.read_bytes()
        for number, (start, end) in enumerate(find_objects(data), 1):
            name = str(path.relative_to(folder))
            yield name if start == 0 else f"{name}-{number}.o", data[start:end]
