"""`bpfc bench`: what a program costs, from verifying it to running it; and an estimate for other processors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from bpfc.cli.dump import level_option
from bpfc.cli.objects import select_programs, with_object
from bpfc.cli.root import Command
from bpfc.cli.terminal import Terminal, bold, indent, table

if TYPE_CHECKING:
    from bpfc.loaded import Loaded
    from bpfc.measuring import Costs, Estimate

MOST_PACKETS: Final = 256


@click.command(cls=Command)
@with_object
@level_option
@click.option("--pcap", metavar="F", help="Run over these packets; by default over one of 64 zeros.")
@click.option("--data-in", metavar="F|hex:...", help="Run over this packet.")
@click.option("--mca", metavar="CPU", help="What llvm-mca estimates for this processor, instead of running.")
@click.option("--arch", "archs", multiple=True, metavar="A", help="With --mca: for this target; repeat it.")
def command(
    terminal: Terminal, loaded: Loaded, program: str | None, level: str, pcap: str | None, data_in: str | None,
    mca: str | None, archs: tuple[str, ...],
) -> None:  # fmt: skip
    """What the programs of an object cost: to verify, to compile stage by stage, to reload, to link, to run.

    Each figure is CPU time, the least of some tries. --mca asks llvm-mca how many cycles the code takes on a processor
    that need not be here, taking it for one straight line.
    """
    from bpfc.measuring import estimate, measure
    from bpfc.options import Options

    chosen, options = select_programs(loaded, program), Options(level=level)
    if archs and mca is None:
        raise click.UsageError("--arch goes with --mca CPU")
    if mca is not None:
        found = [
            (one.name, estimate(loaded, one, options, mca, arch))
            for one in chosen
            for arch in archs or (None,)
        ]
        terminal.result(
            "bpfc.bench.mca/1", {"programs": [_estimate(*each) for each in found]}, _mca_text(found)
        )
        return
    packets = _packets(data_in, pcap)
    costs = [(one.name, measure(loaded, one, options, packets)) for one in chosen]
    terminal.result("bpfc.bench.object/1", {"programs": [_costs(*each) for each in costs]}, _text(costs))


def _packets(data_in: str | None, pcap: str | None) -> list[bytes]:
    from itertools import islice

    from bpfc.cli.inputs import packets

    if data_in is None and pcap is None:
        return [bytes(64)]
    return [bytes(packet.data) for packet in islice(packets(data_in, pcap), MOST_PACKETS)]


def _costs(name: str, costs: Costs) -> dict[str, Any]:
    return {
        "name": name,
        "insns": costs.insns,
        "level": costs.level,
        "accepted": costs.is_accepted,
        "verify_ns": costs.verify,
        "compile_ns": costs.compile,
        "stages_ns": dict(costs.stages),
        "reload_ns": costs.reload,
        "link_ns": costs.link,
        "code_bytes": costs.code_bytes,
        "run_ns": costs.run,
    }


def _estimate(name: str, found: Estimate) -> dict[str, Any]:
    return {
        "name": name,
        "target": found.target,
        "cpu": found.cpu,
        "instructions": found.instructions,
        "cycles": found.cycles,
        "ipc": found.ipc,
        "throughput": found.throughput,
    }


def _text(costs: list[tuple[str, Costs]]) -> str:
    return "\n\n".join("\n".join(_lines(name, each)) for name, each in costs)


def _lines(name: str, costs: Costs) -> Iterator[str]:
    verdict = "proved safe" if costs.is_accepted else "not proved safe"
    yield bold(f"{name}: {costs.insns} insns, {costs.level}, {costs.code_bytes} bytes of code")
    rows = [("verify", _ms(costs.verify), verdict), ("compile", _ms(costs.compile), "")]
    rows += [
        (f"  {stage}", _ms(ns), f"{100 * ns / max(costs.compile, 1):.0f} %") for stage, ns in costs.stages
    ]
    rows += [("reload from the cache", _ms(costs.reload), ""), ("link", _ms(costs.link), "")]
    if costs.run is not None:
        rows.append(("run", f"{costs.run:.1f} ns", "a packet"))
    yield from indent(table([(what, value.rjust(11), more) for what, value, more in rows]))


def _mca_text(found: list[tuple[str, Estimate]]) -> str:
    rows = [
        (
            name,
            each.target,
            each.cpu,
            each.instructions,
            f"{each.cycles:.1f}",
            f"{each.ipc:.2f}",
            f"{each.throughput:.1f}",
        )
        for name, each in found
    ]
    return "\n".join(table(rows, ("program", "target", "cpu", "insns", "cycles", "ipc", "throughput")))


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.3f} ms"
