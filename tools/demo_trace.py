"""zlib's crc32 in this Python, traced by a BPF program: `make trace`, or `python -m tools.demo_trace`.

    zlib, gzip, zipfile  ──►  Python's zlib module  ──► table entry ──► image ──► libz: crc32
                                                                         └─ count: fexit program

Nothing was compiled for it: neither Python nor the C library's zlib knows, and it takes no privileges.
"""

from __future__ import annotations

import ctypes
import gzip
import io
import sys
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Final

import bpfc
from runtime.native_entry import NativeFunction

OBJECT: Final = Path(__file__).parent.parent / "tests" / "objects" / "checksums.o"
CRC32: Final = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_uint)
TEXT: Final = b"the quick brown fox jumps over the lazy dog " * 2000
THREADS: Final = 4
WIDTH: Final = 40


def main() -> int:
    """Run some work without and with the program around it; 0, 1 when that changed a result or a count is wrong."""
    plain = work()
    with bpfc.load(OBJECT).start() as runtime, bpfc.enable_stats():
        program = runtime["count"]
        with program.attach_fexit(crc32_of_python()) as link:
            say(f"{link}: {program.program.section!r}")
            traced = work()
            seen = runtime.globals["calls"], runtime.globals["bytes"]
        untraced = work()
        counted = program.statistics
        say(f"  {seen[0]} calls over {seen[1]} bytes, the last answer {runtime.globals['last']:#010x}")
        say(f"  {counted.run_time_ns / counted.run_cnt:.0f} ns a run")
        for line in histogram(list(runtime.maps["sizes"].values())):
            say(line)
        is_still = runtime.globals["calls"] == seen[0]
    is_same = plain == traced == untraced
    say("results are the same with and without it" if is_same else "results differ")
    return 0 if is_same and is_still and counted.run_cnt == seen[0] else 1


def say(line: str) -> None:
    """A line on stdout."""
    sys.stdout.write(line + "\n")


def crc32_of_python() -> NativeFunction:
    """crc32 as Python's zlib module calls it, which is a library of its own or a part of the executable."""
    module = getattr(zlib, "__file__", None)
    return bpfc.imported(module or ctypes.CDLL(None), "crc32", CRC32)


def work() -> list[int]:
    """What Python programs do with zlib; numbers that would show if a call went wrong."""
    results = [zlib.crc32(TEXT[:length]) for length in (0, 1, 10, 100, 1000, 10_000)]
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        for start in range(0, len(TEXT), 4096):
            file.write(TEXT[start : start + 4096])
    results.append(zlib.adler32(packed.getvalue()))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as folder:
        folder.writestr(zipfile.ZipInfo("text"), TEXT)
    results.append(len(archive.getvalue()))
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(zlib.crc32(TEXT))) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results + found


def histogram(counts: list[int]) -> list[str]:
    """A line for each size that occurred."""
    most = max(counts)
    lines = []
    for bits, count in enumerate(counts):
        if count:
            low, high = (1 << bits - 1 if bits else 0), (1 << bits) - 1
            lines.append(f"  {low:>6} .. {high:<6} {count:>5} {'#' * -(-count * WIDTH // most)}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
