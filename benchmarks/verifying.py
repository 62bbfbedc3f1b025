"""`python -m benchmarks.verifying FOLDER...`: how long verifying takes, program by program, in one process.

Every program of every object below the folders, and the largest ones of the micro programs: fitted, lifted and proved as
`obj.verify()` does it, in CPU time, the least of some tries. Programs that are refused are counted and left out.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import bpfc
from benchmarks.micros import MICROS
from bpfc.kernel_types import running_kernel
from bpfc.testing.acceptance import SIZES, find_objects
from bpfc.verification import verify_program
from ir.diagnostics import DiagnosticError

TRIES: Final = 3
_LARGE: Final = 900


@final
@dataclass(frozen=True, slots=True)
class Took:
    """CPU time that verifying a program of `insns` slots of text took."""

    insns: int
    ns: int
    is_accepted: bool


def measure(paths: Sequence[Path], tries: int = TRIES) -> Iterator[Took]:
    """Each program of these objects; objects that cannot be read are left out."""
    kernel = running_kernel()
    if kernel is not None:
        kernel.names.index()  # once for all programs, so it is not the first one's
    for path in paths:
        try:
            loaded = bpfc.load(path)
        except DiagnosticError:
            continue
        for program in loaded.programs.values():
            ns = []
            for _ in range(tries):
                before = time.thread_time_ns()
                report = verify_program(loaded.object, program)
                ns.append(time.thread_time_ns() - before)
            yield Took(program.starts[-1], min(ns), report.is_accepted)
        gc.collect()


def table(took: Sequence[Took]) -> Iterator[str]:
    """By size: median, 99 %, the most, and by instruction."""
    yield f"{'insns':>16} {'programs':>8} {'median':>10} {'99 %':>10} {'most':>10} {'an insn':>9}"
    for low, high in SIZES:
        ns = sorted(each.ns for each in took if low <= each.insns < high)
        if not ns:
            continue
        insns = sum(each.insns for each in took if low <= each.insns < high)
        times = (ns[len(ns) // 2], ns[int(0.99 * len(ns))], ns[-1])
        cells = " ".join(f"{each / 1e6:7.2f} ms" for each in times)
        yield f"{low:7}..{high - 1:7} {len(ns):8} {cells} {sum(ns) / 1e3 / insns:6.1f} us"


def main(arguments: Sequence[str]) -> int:
    """Print the table, and the most memory that the process had."""
    large = [micro.object for micro in MICROS if micro.object.stat().st_size > 8 * _LARGE]
    took = list(measure([*find_objects(arguments), *large]))
    accepted = [each for each in took if each.is_accepted]
    print("\n".join(table(accepted)))
    print(f"refused: {len(took) - len(accepted)}")
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(f"most memory: {peak * 1024 / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
