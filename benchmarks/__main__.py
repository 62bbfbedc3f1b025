"""`python -m benchmarks [NAMES]`: measure, print tables, write reports."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import bpfc
from benchmarks.calls import measure_calls
from benchmarks.command import CommandPeer
from benchmarks.costs import measure_costs
from benchmarks.extensions import measure_extensions
from benchmarks.kernel import KernelPeer
from benchmarks.measure import ROUNDS
from benchmarks.native import Compiler, UnavailableError, find_compiler
from benchmarks.page import page
from benchmarks.report import Report, cost_line, describe_host, row, table, to_json
from benchmarks.speed import Peer, WrongError, find_micros, measure_speed
from benchmarks.static_keys import measure_static_keys
from benchmarks.tracing import measure_tracing


def main(given: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 0, 1 when a program gave a wrong result, 2 for bad usage."""
    arguments = _parser().parse_args(given)
    try:
        micros = find_micros(arguments.names)
    except KeyError as error:
        print(f"benchmarks: no program {error}", file=sys.stderr)
        return 2
    compiler = _compiler(arguments.cc)
    report = Report(describe_host(compiler))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peers = list(_peers(arguments.peer, compiler, folder))
        others = ["bpfc", *(peer.name for peer in peers)]
        print(table((), ["native", *others])[0])
        try:
            report.speeds.extend(
                measure_speed(
                    micros,
                    compiler,
                    peers,
                    folder,
                    bpfc.Options(level=arguments.level),
                    lambda speed: print(row(speed, others), flush=True),
                    arguments.rounds,
                )
            )
        except WrongError as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 1
        if report.ratios:
            print(f"{'geomean':<12}{'':>11}" + "".join(_geomean(report, other) for other in others))
        if not arguments.names:
            print()
            for cost in chain(
                measure_costs(compiler, folder),
                measure_calls(compiler, folder),
                measure_static_keys(),
                measure_extensions(),
                measure_tracing(compiler, folder),
            ):
                report.costs.append(cost)
                print(cost_line(cost), flush=True)
    values = to_json(report)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")
    if arguments.html is not None:
        earlier = json.loads(arguments.compare.read_text()) if arguments.compare is not None else None
        arguments.html.write_text(page(values, earlier))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure bpfc's code against native code of the same C."
    )
    parser.add_argument("names", nargs="*", help="micro programs (default: all, and the costs around them)")
    parser.add_argument("--level", default="auto", help="optimization level (default: auto)")
    parser.add_argument("--cc", metavar="COMPILER", help="the native C compiler (default: clang, else gcc)")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="batches of each contestant (default: %(default)s)"
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another runtime (docs/benchmarks.md)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the results as a page with charts")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="JSON of an earlier run, drawn into the page's chart"
    )
    return parser


def _peers(commands: Sequence[str], compiler: Compiler | None, folder: Path) -> Iterator[Peer]:
    makers: list[tuple[str, Callable[[], Peer]]] = [("kernel", KernelPeer)]
    for given in commands:
        name, _, command = given.partition("=")
        makers.append((name, partial(CommandPeer, name, command, compiler, folder)))
    for name, make in makers:
        try:
            yield make()
        except UnavailableError as error:
            print(f"benchmarks: {name} does not take part: {error}", file=sys.stderr)


def _compiler(name: str | None) -> Compiler | None:
    try:
        return find_compiler(name)
    except UnavailableError as error:
        print(f"benchmarks: no native side: {error}", file=sys.stderr)
        return None


def _geomean(report: Report, name: str) -> str:
    mean = report.geomean(name)
    return f"{mean:>9.2f}x" if mean is not None else f"{'-':>10}"


if __name__ == "__main__":
    sys.exit(main())
