"""Names for perf: a line of /tmp/perf-PID.map for each function, as `perf report` looks for it.

    START SIZE NAME        hexadecimal without 0x (tools/perf/Documentation/jit-interface.txt)

The file only grows: perf has no word for code that went, and takes the last line of an address.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from runtime.linker import LinkedImage


def write_perf_map(image: LinkedImage, name_of: Callable[[str], str] = str, path: Path | None = None) -> None:
    """Add the functions of an image, under the names that `name_of` gives their symbols."""
    lines = [f"{f.address:x} {f.length:x} {name_of(f.name)}\n" for f in image.functions]
    target = path or Path(f"/tmp/perf-{os.getpid()}.map")
    # O_NOFOLLOW, because /tmp is everybody's: a link put there must not make us write elsewhere.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(target, flags, 0o644), "w", encoding="utf-8") as file:
        file.write("".join(lines))
