"""`bpfc run`: a program over packets; verdicts by name, what is in the maps, how long it took."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import click

from bpfc.cli.errors import NO, OK, diagnostic_json
from bpfc.cli.objects import object_argument, open_object, program_argument, select_program
from bpfc.cli.root import Command
from bpfc.cli.run_report import packet_json, packet_line, report_json, report_text
from bpfc.cli.terminal import Terminal
from bpfc.cli.values import read_hex, read_value

if TYPE_CHECKING:
    from bpfc.loaded import Loaded
    from bpfc.pcap import Packet
    from bpfc.running import RunningProgram, Runtime
    from ir.diagnostics import Diagnostic
    from ir.object import Program
    from runtime.execution import RunResult

LEVELS: Final = ("auto", "O0", "O1", "O2", "O3")


@final
@dataclass(slots=True)
class Tally:
    """What the runs of a program came to."""

    program: Program
    source: str
    verdicts: Counter[str] = field(default_factory=Counter)
    traps: list[Diagnostic] = field(default_factory=list)
    printk: list[str] = field(default_factory=list)
    ns: int = 0
    runs: int = 0
    only: RunResult | None = None


def _assignment(
    context: click.Context, option: click.Parameter, values: Sequence[str]
) -> list[tuple[str, str]]:
    """NAME=VALUE, each once or more."""
    for value in values:
        if "=" not in value:
            raise click.BadParameter(f"'{value}' is not {option.metavar}", context, option)
    return [(name, text) for name, _, text in (value.partition("=") for value in values)]


def _assignments(name: str, metavar: str, help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    variable = f"{name.lstrip('-')}_values"
    return click.option(name, variable, multiple=True, metavar=metavar, callback=_assignment, help=help)


@click.command(cls=Command)
@object_argument
@program_argument
@click.option(
    "--data-in", metavar="F|hex:..", help="One packet, or a program's memory: a file, - or hexadecimal."
)
@click.option("--pcap", metavar="F", help="The packets of a pcap file.")
@click.option("--pcap-out", metavar="F", help="Write there what is not dropped, as the program left it.")
@click.option(
    "--repeat", metavar="N", type=click.IntRange(1), default=1, help="Run N times over each packet."
)
@click.option(
    "--batch", is_flag=True, help="One native loop over all packets, which have no head and tail room."
)
@_assignments("--ctx", "FIELD=V", "Set a field of the context: ingress_ifindex=3.")
@_assignments("--map", "NAME=F.json", "Fill a map before the run.")
@_assignments("--set", "VAR=V", "Set a global variable before the program is compiled.")
@click.option("--level", type=click.Choice(LEVELS), default="auto", help="How hard to optimize.")
@click.option("--trace", is_flag=True, help="A line for each run; with -j one JSON object.")
@click.option("--no-cache", is_flag=True, help="Compile, whether it was compiled before or not.")
@click.pass_obj
def command(
    terminal: Terminal, /, object_path: str, program: str | None, ctx_values: list[tuple[str, str]],
    map_values: list[tuple[str, str]], set_values: list[tuple[str, str]], level: str, no_cache: bool,
    **runs: Any,
) -> int:  # fmt: skip
    """Run a program over packets, and say what it answered, what is in its maps and how long it took.

    PROG may be left out when there is only one. Without input it runs once, over nothing. Exit code 1: a run
    ended at a check.
    """
    from bpfc.options import Options

    loaded = open_object(object_path)
    chosen = select_program(loaded, program)
    _set_globals(loaded, set_values)
    ctx = {name: _number(name, text) for name, text in ctx_values}
    with loaded.start(Options(level=level, cache=not no_cache)) as runtime:
        _fill_maps(loaded, runtime, map_values)
        running = runtime[chosen.name]
        tally = _run(terminal, running, ctx, **runs)
        data = report_json(loaded, runtime, running, tally)
        if terminal.speaks_json or not runs["trace"]:
            terminal.result("bpfc.run/1", data, report_text(data, terminal.verbose > 0))
    return NO if tally.traps else OK


def _set_globals(loaded: Loaded, assignments: list[tuple[str, str]]) -> None:
    for name, text in assignments:
        loaded.globals[name] = read_value(text)


def _fill_maps(loaded: Loaded, runtime: Runtime, assignments: list[tuple[str, str]]) -> None:
    from bpfc.cli.contents import fill_map  # late: only who fills maps

    for name, path in assignments:
        live = runtime.world.live.get(name)
        if live is None:
            raise click.UsageError(f"no map '{name}' (there are: {', '.join(runtime.world.live) or 'none'})")
        fill_map(loaded.object.btf, live, path)


def _number(name: str, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise click.UsageError(f"--ctx {name} wants a number, not '{text}'") from None


def _run(
    terminal: Terminal, running: RunningProgram, ctx: dict[str, int], data_in: str | None, pcap: str | None,
    pcap_out: str | None, repeat: int, batch: bool, trace: bool,
) -> Tally:  # fmt: skip
    from bpfc.pcap import PcapWriter

    if data_in is not None and pcap is not None:
        raise click.UsageError("--data-in and --pcap exclude each other")
    tally = Tally(running.program, pcap or data_in or "")
    if batch:
        if pcap_out or trace:
            raise click.UsageError("--batch has neither --pcap-out nor --trace")
        return _run_batch(running, [one.data for one in _packets(data_in, pcap)], ctx, repeat, tally)
    writer = PcapWriter(pcap_out) if pcap_out else None
    try:
        for number, packet in enumerate(_progress(terminal, _packets(data_in, pcap), pcap)):
            for _ in range(repeat):
                result = _once(running, packet, ctx, tally)
            if writer is not None and result is not None and not running.drops(result):
                writer.write(replace(packet, data=result.data))
            if trace:
                _trace(terminal, tally, number, packet, result)
    finally:
        if writer is not None:
            writer.close()
    return tally


def _once(running: RunningProgram, packet: Packet, ctx: dict[str, int], tally: Tally) -> RunResult | None:
    """One run, counted; None when it ended at a check."""
    from bpfc.verdicts import name_verdict
    from ir.diagnostics import TrapError

    tally.runs += 1
    try:
        result = running.run(packet.data, ctx)
    except TrapError as error:
        tally.traps += error.diagnostics
        tally.verdicts[f"trap: {error.diagnostics[0].code}"] += 1
        return None
    tally.verdicts[name_verdict(tally.program.type, result.ret)] += 1
    tally.ns += result.ns
    tally.printk += result.printk
    tally.only = result if tally.runs == 1 else None
    return result


def _run_batch(
    running: RunningProgram, packets: list[bytes], ctx: dict[str, int], repeat: int, tally: Tally
) -> Tally:
    from time import perf_counter_ns

    from bpfc.batch import Batch
    from bpfc.verdicts import name_verdict

    for _ in range(repeat):
        laid_out = Batch([bytearray(one) for one in packets])
        before = perf_counter_ns()
        rets = running.run_batch(laid_out, ctx=ctx)
        tally.ns += perf_counter_ns() - before
        for ret, count in Counter(rets).items():
            tally.verdicts[name_verdict(tally.program.type, int(ret))] += count
        tally.runs += len(packets)
    return tally


def _packets(data_in: str | None, pcap: str | None) -> Iterator[Packet]:
    from bpfc.pcap import Packet, read_pcap

    if pcap is not None:
        yield from read_pcap(pcap)
        return
    data = b""
    if data_in == "-":
        data = sys.stdin.buffer.read()
    elif data_in is not None:
        data = read_hex(data_in[4:]) if data_in.startswith("hex:") else Path(data_in).read_bytes()
    yield Packet(data)


def _progress(terminal: Terminal, packets: Iterator[Packet], pcap: str | None) -> Iterator[Packet]:
    """The packets, with a bar for those who wait."""
    if pcap is None or not terminal.shows_progress:
        return packets
    from bpfc.cli.progress import with_bar  # late: rich

    return with_bar(packets, Path(pcap).stat().st_size)


def _trace(terminal: Terminal, tally: Tally, number: int, packet: Packet, result: RunResult | None) -> None:
    trap = tally.traps[-1] if result is None else None
    if terminal.speaks_json:
        said = packet_json(tally.program, number, packet, result)
        terminal.record(
            "bpfc.run.packet/1", {**said, "trap": diagnostic_json(trap) if trap is not None else None}
        )
        return
    terminal.say("\n".join(packet_line(tally.program, number, packet, result, trap)))
