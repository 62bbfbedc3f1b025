"""Read many malformed objects: `python -m bpfc.testing.read_campaign COUNT OBJECT...`.

Every object is mutated in turn, on every processor; what is neither an Object nor a Diagnostic, or takes
more than a second, is printed with the seed that makes it again. Exit code 1 when there was such a thing.
"""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from os import cpu_count
from pathlib import Path
from time import process_time

from bpfc.elf.reader import read_object
from bpfc.testing.mutation import mutate
from ir.btf_check import check_btf
from ir.core_relocation import relocate
from ir.diagnostics import DiagnosticError

SLOW = 1.0
BATCH = 250


def read_everything(data: bytes, name: str) -> str:
    """Read an object and what is read late; "object" or the code of the first diagnostic."""
    try:
        found = read_object(data, name)
    except DiagnosticError as error:
        list(map(str, error.diagnostics))
        return error.diagnostics[0].code
    if found.btf is not None:
        list(map(str, check_btf(found.btf)))
    for program in found.programs.values():
        list(map(program.location, program.starts))
        try:
            if found.btf is not None:
                relocate(program, found.btf, found.btf)
        except DiagnosticError as error:
            list(map(str, error.diagnostics))
    return "object"


def run_batch(path: str, seeds: range) -> tuple[Counter[str], list[str]]:
    """Read the object at `path` mutated by each of `seeds`: outcomes, and what must not happen."""
    data = Path(path).read_bytes()
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    for seed in seeds:
        mutated = mutate(data, seed)
        begin = process_time()
        try:
            outcomes[read_everything(mutated, Path(path).name)] += 1
        except BaseException:  # noqa: BLE001  # whatever it is, it is the finding
            findings.append(f"{path} seed {seed}\n{traceback.format_exc()}")
        seconds = process_time() - begin
        if seconds > SLOW:
            findings.append(f"{path} seed {seed}\n{seconds:.1f} seconds\n")
    return outcomes, findings


def main(arguments: Sequence[str]) -> int:
    """Run the campaign; a summary to stdout, findings to stderr."""
    count, paths = int(arguments[0]), arguments[1:]
    each = -(-count // len(paths))
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    with ProcessPoolExecutor(cpu_count()) as pool:
        jobs = [
            pool.submit(run_batch, path, range(first, min(first + BATCH, each)))
            for first in range(0, each, BATCH)
            for path in paths
        ]
        for job in jobs:
            seen, found = job.result()
            outcomes += seen
            findings += found
    sys.stderr.write("".join(findings[:20]))
    for outcome, times in outcomes.most_common():
        sys.stdout.write(f"{times:8} {outcome}\n")
    sys.stdout.write(f"{outcomes.total() + len(findings):8} read, {len(findings)} findings\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
