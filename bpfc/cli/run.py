"""`bpfc run`: a program over packets; verdicts by name, what is in the maps, how long it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, final

import click

from bpfc.cli.codes import NO, OK
from bpfc.cli.dump import level_option
from bpfc.cli.errors import diagnostic_json
from bpfc.cli.explain import explain_for, explain_option, explanation_json, explanation_text
from bpfc.cli.objects import select_program, with_object
from bpfc.cli.root import Command
from bpfc.cli.terminal import Terminal

if TYPE_CHECKING:
    from bpfc.loaded import Loaded
    from bpfc.pcap import Packet
    from bpfc.running_program import RunningProgram
    from ir.diagnostics import Diagnostic
    from ir.object import Program
    from runtime.execution import RunResult

_LONG: Final = 4 << 20  # bytes of packets that take seconds


@final
@dataclass(frozen=True, slots=True)
class Request:
    """The options of the command."""

    data_in: str | None
    pcap: str | None
    pcap_out: str | None
    repeat: int
    batch: bool
    trace: bool
    ctx: tuple[str, ...]
    map: tuple[str, ...]
    resize: tuple[str, ...]
    static_key: tuple[str, ...]
    replace: tuple[str, ...]
    attach: tuple[str, ...]
    level: str
    no_cache: bool
    explain_branches: bool
    arch: str | None
    steps: int

    def check(self) -> None:
        """Raises click.UsageError for options that exclude each other."""
        if self.data_in is not None and self.pcap is not None:
            raise click.UsageError("--data-in and --pcap exclude each other")
        if self.batch and (self.pcap_out is not None or self.trace):
            raise click.UsageError("--batch has neither --pcap-out nor --trace")
        if self.steps and self.arch is None:
            raise click.UsageError("--steps counts the instructions of an emulated machine: it needs --arch")


@final
@dataclass(slots=True)
class Tally:
    """What the runs of a program came to; `only` is the result when there was one run."""

    program: Program
    source: str
    verdicts: Counter[str] = field(default_factory=Counter)
    traps: list[Diagnostic] = field(default_factory=list)
    printk: list[str] = field(default_factory=list)
    ns: int = 0
    steps: int = 0
    runs: int = 0
    only: RunResult | None = None


@click.command(cls=Command)
@with_object
@click.option("--data-in", metavar="F|hex:..", help="One packet, or raw memory: a file, - or hexadecimal.")
@click.option("--pcap", metavar="F", help="The packets of a pcap file.")
@click.option("--pcap-out", metavar="F", help="Write there what is not dropped, as the program left it.")
@click.option("--repeat", metavar="N", type=click.IntRange(1), default=1, help="Run N times a packet.")
@click.option("--batch", is_flag=True, help="One native loop over all packets, without head and tail room.")
@click.option("--ctx", multiple=True, metavar="FIELD=V", help="Set a context field: ingress_ifindex=3.")
@click.option("--map", multiple=True, metavar="NAME=F.json", help="Fill a map before the run.")
@click.option(
    "--resize",
    multiple=True,
    metavar="NAME=N[:SIZE]",
    help="Give a map room for N entries, with values of SIZE bytes.",
)
@click.option("--static-key", multiple=True, metavar="K=on|off", help="Switch a static key.")
@click.option(
    "--replace", multiple=True, metavar="FUNC=OBJ:PROG", help="Put a program in a global function's place."
)
@click.option(
    "--attach",
    multiple=True,
    metavar="HOW:FUNC=PROG",
    help="Run PROG, or OBJ:PROG, around a function; HOW is fentry, fexit, ...",
)
@level_option
@explain_option
@click.option("--trace", is_flag=True, help="A line for each run; with -j a JSON object.")
@click.option("--no-cache", is_flag=True, help="Compile, whether it was compiled before or not.")
@click.option(
    "--arch", metavar="A", help="Emulate this machine, and count its instructions: bpfc targets lists them."
)
@click.option(
    "--steps", metavar="N", type=click.IntRange(0), default=0, help="End a run after N machine instructions."
)
def command(terminal: Terminal, loaded: Loaded, program: str | None, **options: Any) -> int:
    """Run a program over packets: what it answered, what is in its maps, how long it took.

    PROG may be left out when there is only one. Without input it runs once, over nothing. Exit code 1: a run
    ended at a check.
    """
    from bpfc.cli.attachments import Attachments
    from bpfc.cli.inputs import context_fields, fill_maps, resize_maps, switch_keys  # late, as what follows
    from bpfc.cli.replacements import replaced
    from bpfc.cli.run_report import report_json, report_text
    from bpfc.emulation import emulate
    from bpfc.options import Options
    from runtime.limits import Limits

    request = Request(**options)
    request.check()
    chosen = select_program(loaded, program)
    resize_maps(loaded, request.resize)
    switch_keys(loaded, request.static_key)
    how = Options(level=request.level, cache=not request.no_cache)
    limits = Limits(steps=request.steps)
    emulated = emulate(request.arch, limits, counts=True) if request.arch else nullcontext()
    with emulated as machine, loaded.start(how, limits, machine) as runtime:
        fill_maps(runtime, request.map)
        running = runtime[chosen.name]
        around = Attachments(running, request.attach, how)
        with replaced(running, request.replace, how) as functions, around:
            tally = _run(terminal, running, context_fields(request.ctx), request)
            attached = around.report()
        data = {**report_json(loaded, runtime, running, tally), "replaced": functions, **attached}
    if request.explain_branches:
        explanation = explain_for(loaded, chosen, request.level, request.arch)
        data = {**data, "explanation": explanation_json(explanation)}
        if not terminal.speaks_json:
            terminal.say(explanation_text([explanation]) + "\n")
    if terminal.speaks_json or not request.trace:
        terminal.result("bpfc.run/1", data, report_text(data, terminal.verbose > 0))
    return NO if tally.traps else OK


def _run(terminal: Terminal, running: RunningProgram, ctx: dict[str, int], request: Request) -> Tally:
    from bpfc.cli.inputs import packets
    from bpfc.pcap import PcapWriter

    tally = Tally(running.program, request.pcap or request.data_in or "")
    given = packets(request.data_in, request.pcap)
    if request.batch:
        _run_batch(running, [one.data for one in given], ctx, request.repeat, tally)
        return tally
    writer = PcapWriter(request.pcap_out) if request.pcap_out else None
    try:
        for number, packet in enumerate(_progress(terminal, given, request)):
            result = None
            for _ in range(request.repeat):
                result = _once(running, packet, ctx, tally)
            if writer is not None and result is not None and not running.drops(result):
                writer.write(replace(packet, data=result.data))
            if request.trace:
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
    tally.steps += result.steps or 0
    tally.printk += result.printk
    tally.only = result if tally.runs == 1 else None
    return result


def _run_batch(
    running: RunningProgram, given: list[bytes], ctx: dict[str, int], repeat: int, tally: Tally
) -> None:
    from bpfc.batch import Batch
    from bpfc.verdicts import name_verdict

    for _ in range(repeat):
        laid_out = Batch([bytearray(one) for one in given])
        before = perf_counter_ns()
        rets = running.run_batch(laid_out, ctx=ctx)
        tally.ns += perf_counter_ns() - before
        for ret, count in Counter(rets).items():
            tally.verdicts[name_verdict(tally.program.type, int(ret))] += count
        tally.runs += len(given)


def _progress(terminal: Terminal, given: Iterator[Packet], request: Request) -> Iterator[Packet]:
    """The packets, with a bar for those who wait long."""
    if request.pcap is None or request.trace or not terminal.shows_progress:
        return given
    size = Path(request.pcap).stat().st_size
    if size * request.repeat < _LONG:
        return given
    from bpfc.cli.progress import with_bar  # late: rich

    return with_bar(given, size, no_color=terminal.color == "never")


def _trace(terminal: Terminal, tally: Tally, number: int, packet: Packet, result: RunResult | None) -> None:
    from bpfc.cli.run_report import packet_json, packet_lines

    trap = tally.traps[-1] if result is None else None
    if not terminal.speaks_json:
        terminal.say("\n".join(packet_lines(tally.program, number, packet, result, trap)))
        return
    said = packet_json(tally.program, number, packet, result)
    trapped = diagnostic_json(trap) if trap is not None else None
    terminal.record("bpfc.run.packet/1", {**said, "trap": trapped})
