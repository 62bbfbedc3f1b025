"""Read many malformed files: `python -m bpfc.testing.read_campaign [OPTION...] COUNT FILE...`.

Every file is mutated in turn, on every processor: objects, BTF, packets, assembly, SSA form, pinned maps, cached code,
else bytecode (bpfc/testing/readers.py). What is neither read nor refused with a Diagnostic, or takes more than a
second of CPU, is told at once, with the seed that makes it again. Exit code 1 when there was such a thing.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from os import cpu_count
from pathlib import Path
from typing import Final, NoReturn

from bpfc.testing.readers import format_of

SLOW: Final = 1.0
ENDLESS: Final = 30.0
BATCH: Final = 250
_TELL_EVERY: Final = 20.0  # seconds

Outcomes = tuple[Counter[str], list[str]]


class EndlessError(BaseException):
    """Reading went on for ENDLESS seconds of CPU; no Exception, so that no reader takes it for its own."""


def run_batch(path: str, seeds: range) -> Outcomes:
    """Read the file at `path` mutated by each of `seeds`: outcomes, and what must not happen."""
    data = Path(path).read_bytes()
    format = format_of(Path(path), data)
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    for seed in seeds:
        mutated = format.mutate(data, seed)
        begin = time.process_time()
        try:
            with _bounded():
                outcome = format.outcome(mutated, Path(path).name)
        except BaseException:  # noqa: BLE001  # whatever it is, it is the finding
            findings.append(f"{path} seed {seed}\n{traceback.format_exc()}")
            continue
        seconds = time.process_time() - begin
        if seconds > SLOW:
            findings.append(f"{path} seed {seed}\n{seconds:.1f} seconds\n")
        else:
            outcomes[outcome] += 1
    return outcomes, findings


@contextmanager
def _bounded() -> Iterator[None]:
    def end(*_: object) -> NoReturn:
        raise EndlessError

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, ENDLESS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def main(arguments: Sequence[str]) -> int:
    """Run the campaign; a summary to stdout, findings and how far it is to stderr."""
    parser = ArgumentParser("read_campaign", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("count", type=int, help="how many malformed files in all")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="where seeds begin")
    parser.add_argument("--jobs", type=int, default=cpu_count() or 1, metavar="N")
    options = parser.parse_args(arguments)
    each = -(-options.count // len(options.files))
    seeds = range(options.first, options.first + each)
    outcomes: Counter[str] = Counter()
    found = 0
    told: set[str] = set()
    with ProcessPoolExecutor(options.jobs) as pool:
        jobs = [
            pool.submit(run_batch, path, seeds[start : start + BATCH])
            for start in range(0, each, BATCH)
            for path in options.files
        ]
        for seen, findings in _results(jobs, each * len(options.files)):
            outcomes += seen
            for finding in findings:
                place = "".join(finding.splitlines()[-3:-1])
                if place not in told:  # others from there are only counted
                    told.add(place)
                    sys.stderr.write(finding)
            found += len(findings)
    for outcome, times in outcomes.most_common():
        sys.stdout.write(f"{times:8} {outcome}\n")
    sys.stdout.write(f"{outcomes.total() + found:8} read, {found} findings\n")
    return 1 if found else 0


def _results(jobs: list[Future[Outcomes]], total: int) -> Iterator[Outcomes]:
    """What comes of each job; on a terminal with a bar, else with a line now and then."""
    if sys.stderr.isatty():
        from rich.console import Console  # late: only people need it
        from rich.progress import track

        yield from track(
            map(Future.result, as_completed(jobs)), "read", len(jobs), console=Console(stderr=True)
        )
        return
    begin = told = time.monotonic()
    done = found = 0
    for job in as_completed(jobs):
        seen, findings = job.result()
        done, found = done + seen.total() + len(findings), found + len(findings)
        if time.monotonic() - told > _TELL_EVERY:
            told = time.monotonic()
            sys.stderr.write(f"{told - begin:5.0f} s  {done} of {total} read, {found} findings\n")
        yield seen, findings


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
