"""`python -m benchmarks [NAMES]`: measure, print tables, write reports."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import bpfc
from benchmarks.calls import measure_calls
from benchmarks.command import CommandPeer
from benchmarks.costs import Cost, measure_costs
from benchmarks.extensions import measure_extensions
from benchmarks.kernel import KernelPeer
from benchmarks.maps import measure_maps
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
            for cost in _costs(compiler, folder):
                if not report.costs or report.costs[-1].section != cost.section:
                    print(f"\n{cost.section}")
                report.costs.append(cost)
                print(cost_line(cost), flush=True)
    _write(to_json(report), arguments)
    return 0


def _costs(compiler: Compiler | None, folder: Path) -> Iterator[Cost]:
    """Every cost, of every section."""
    for section, costs in (
        ("around the code", measure_costs(compiler, folder)),
        ("map operations and tail calls", measure_maps()),
        ("calls", measure_calls(compiler, folder)),
        ("static keys", measure_static_keys()),
        ("extensions", measure_extensions()),
        ("programs around functions", measure_tracing(compiler, folder)),
    ):
        for cost in costs:
            yield replace(cost, section=section)


def _write(values: dict[str, object], arguments: argparse.Namespace) -> None:
    """Write the reports that were asked for."""
    html, said, compare = arguments.html, arguments.json, arguments.compare
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        before = sorted(arguments.out.glob("bench-*.json"))
        compare = compare or (before[-1] if before else None)
        said = said or arguments.out / time.strftime("bench-%Y%m%d-%H%M%S.json", time.gmtime())
        html = html or arguments.out / "index.html"
    earlier = json.loads(compare.read_text()) if compare is not None else None
    if said is not None:
        said.write_text(json.dumps(values, indent=1) + "\n")
    if html is not None:
        html.write_text(page(values, earlier))
        print(f"\n{html}")


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
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write both there, compared with the run before (make bench)"
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
