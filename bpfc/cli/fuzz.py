"""`bpfc fuzz`: campaigns of random cases against the compiler, and what became of them.

bpfc fuzz all -j 2 --time 30m       run one
bpfc fuzz report DIR                what it did and found
bpfc fuzz replay FIND.json          judge a find again
bpfc fuzz reduce FIND.json          make it smaller
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import click

from bpfc.cli.codes import INTERRUPTED
from bpfc.cli.root import Command, Group
from bpfc.cli.terminal import Json, Terminal, bold, indent, table

if TYPE_CHECKING:
    from bpfc.testing.finds import Find
    from bpfc.testing.oracle import Finding
    from bpfc.testing.store import Store

FOLDER: Final = "bpfc-fuzz"
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_SHOWN: Final = 12
MOST_SEEDS: Final = 1 << 60  # as SQLite's integers have room for, and a few shards more


@final
class _Fuzz(Group):
    """The campaigns are commands too."""

    def list_commands(self, context: click.Context) -> list[str]:
        from bpfc.testing.registry import (
            CAMPAIGNS,
            ORACLES,
        )  # late: hypothesis is not needed, but all else is

        return [*super().list_commands(context), *CAMPAIGNS, *ORACLES]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        found = super().get_command(context, name)
        if found is not None:
            return found
        from bpfc.testing.registry import CAMPAIGNS, ORACLES  # late, as above

        if name not in CAMPAIGNS and name not in ORACLES:
            return None
        said = ORACLES[name].summary if name in ORACLES else f"Campaign: {', '.join(CAMPAIGNS[name])}."
        made = Command(name, callback=_run_campaign(name), params=_options(), help=said, short_help=said)
        for param in made.params:
            if param.name == "json":
                param.opts = ["--json"]  # -j is for the jobs here, as make has it
        return made


def _options() -> list[click.Parameter]:
    return [
        click.Option(
            ("-j", "--jobs", "jobs"), type=click.IntRange(1), help="Processes; by default one a core."
        ),
        click.Option(
            ("--executor",), default="threads", metavar="SPEC", help="dask:ADDRESS or MODULE:CALLABLE."
        ),
        click.Option(("--time", "limit"), default="5m", metavar="T", help="How long: 90s, 30m, 1h."),
        click.Option(
            ("--cases",),
            type=click.IntRange(0, MOST_SEEDS),
            default=0,
            metavar="N",
            help="End after so many cases, too.",
        ),
        click.Option(
            ("--seed",),
            type=click.IntRange(0, MOST_SEEDS),
            default=0,
            help="The first case's; the same gives the same cases.",
        ),
        click.Option(
            ("--arch", "archs"), multiple=True, help="Compare with this emulated target; repeat it."
        ),
        click.Option(
            ("--dir", "folder"), default=FOLDER, metavar="DIR", help=f"Where results go ({FOLDER})."
        ),
        click.Option(("--resume",), metavar="DIR", help="Go on with the campaign in DIR."),
    ]


@click.group(cls=_Fuzz)
def command() -> None:
    """Random programs, objects and schedules, judged by oracles; finds are kept, reduced, to replay.

    A case that crashes costs one case: each shard is a process, and what it died of is a find.
    """


def _run_campaign(name: str) -> Any:
    def run(**chosen: Any) -> int:
        return _run(click.get_current_context().find_object(Terminal), name, **chosen)

    return run


def _run(
    terminal: Terminal | None,
    name: str,
    jobs: int | None,
    executor: str,
    limit: str,
    cases: int,
    seed: int,
    archs: tuple[str, ...],
    folder: str,
    resume: str | None,
) -> int:
    from backends.registry import target_named
    from bpfc.testing.campaign import Plan, executor_of, require, run
    from bpfc.testing.plants import ENVIRONMENT
    from bpfc.testing.store import NAME, kept

    assert terminal is not None
    place = Path(resume or folder)
    if resume and not (place / NAME).is_file():
        raise click.UsageError(f"there is no campaign in '{resume}'")
    jobs = jobs or os.cpu_count() or 1
    targets = tuple(dict.fromkeys(target_named(arch).name for arch in archs))
    plan = Plan(name, seconds_of(limit), targets, seed, cases, os.environ.get(ENVIRONMENT, ""))
    if not resume:
        require(plan)  # before there is anything of it on disk
    with executor_of(executor, jobs) as pool, kept(place, to_run=True) as store:
        before = store.campaign()
        if before is not None:
            _check_resumed(before, name, place, bool(resume))
            plan = replace(plan, archs=tuple(before["archs"]), seed=before["seed"])
            require(plan)
        store.begin({"campaign": name, "archs": targets, "seed": seed})
        # `timeout` and service managers end it as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            run(plan, store, pool, jobs, _Progress(terminal, plan.seconds))
        except KeyboardInterrupt:
            _report(terminal, store)
            terminal.note(f"interrupted; --resume {place} goes on with it")
            return INTERRUPTED
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return _report(terminal, store)


def _check_resumed(before: Mapping[str, Any], name: str, place: Path, is_resumed: bool) -> None:
    if before["campaign"] != name:
        raise click.UsageError(f"'{place}' holds a campaign '{before['campaign']}': choose another --dir")
    if not is_resumed:
        raise click.UsageError(f"'{place}' holds a campaign already: --resume it, or choose another --dir")


@final
class _Progress:
    """A line on stderr now and then, and one for each find."""

    def __init__(self, terminal: Terminal, seconds: float) -> None:
        self.terminal, self.seconds = terminal, seconds
        self.said = 0.0
        self.finds: set[str] | None = None
        self.before = 0.0

    def __call__(self, store: Store, elapsed: float) -> None:
        found = store.signatures()
        if self.finds is None:
            self.finds, self.before = set(found), store.totals().get("cases", 0)
        for signature in found:
            if signature not in self.finds:
                self.terminal.note(f"find: {signature}")
                self.finds.add(signature)
        if elapsed - self.said < (5 if self.terminal.shows_progress else 30):
            return
        self.said = elapsed
        totals = store.totals()
        done = totals.get("cases", 0)
        rows, ways = (sum(name.startswith(kind) for name in totals) for kind in ("row:", "branch:"))
        self.terminal.note(
            f"{_clock(elapsed)} of {_clock(self.seconds)}  {done:,.0f} cases ({(done - self.before) / elapsed:.0f}/s), "
            f"{totals.get('native', 0):,.0f} native runs of {store.distinct():,} programs, {rows} rows, "
            f"{ways} ways through the verifier, {len(found)} finds"
        )


def _clock(seconds: float) -> str:
    """Minutes and seconds, with hours when there are any."""
    hours, rest = divmod(int(seconds), 3600)
    minutes = f"{rest // 60:02}:{rest % 60:02}"
    return f"{hours}:{minutes}" if hours else minutes


@command.command("report")
@click.argument("folder", default=FOLDER)
@click.option(
    "--known", multiple=True, metavar="SIGNATURE", help="This find is a known bug: skip it from now on."
)
@click.option(
    "--again", is_flag=True, help="Judge the open finds again, and forget those that do not show any more."
)
@click.pass_obj
def report(terminal: Terminal, /, folder: str, known: tuple[str, ...], again: bool) -> int:
    """What the campaign in DIR did and found; finds are written beside it. Exit code 1 for open finds."""
    from bpfc.testing.store import NAME, kept

    if not (Path(folder) / NAME).is_file():
        raise click.UsageError(f"there is no campaign in '{folder}'")
    with kept(Path(folder)) as store:
        store.know(known)
        if again:
            _forget_mended(terminal, store)
        return _report(terminal, store)


def _forget_mended(terminal: Terminal, store: Store) -> None:
    for find, _, known in store.finds():
        if not known and _judged_again(find) is None:
            signature = find.finding.signature
            store.forget(signature)
            terminal.note(f"does not show any more: {signature}")


def _judged_again(find: Find) -> Finding | None:
    from bpfc.testing.oracle import Surroundings
    from bpfc.testing.reduce import judge_apart
    from bpfc.testing.registry import ORACLES

    return judge_apart(ORACLES[find.finding.oracle], find.case, Surroundings(find.archs))


def _report(terminal: Terminal, store: Store) -> int:
    from bpfc.testing.finds import write

    finds = store.finds()
    for find, _, _ in finds:
        write(find, store.folder / "finds")
    terminal.result("bpfc.fuzz/1", _json(store), "\n".join(_text(store)))
    return 1 if any(not known for _, _, known in finds) else 0


def _json(store: Store) -> Json:
    from bpfc.testing.coverage import branches
    from ir.isa import ROWS

    totals = store.totals()
    kinds = ("row", "branch", "outcome", "trait")
    named = {kind: [n for n in totals if n.startswith(f"{kind}:")] for kind in kinds}
    ways = {name.split(":")[1] + name.split(":")[2]: 0 for name in named["branch"]}
    return {
        "campaign": (store.campaign() or {}).get("campaign"),
        "cases": int(totals.get("cases", 0)),
        "native_executions": int(totals.get("native", 0)),
        "native_programs": store.distinct(),
        "steps": int(totals.get("steps", 0)),
        "accepted": int(totals.get("accepted", 0)),
        "proved_programs": store.distinct_proved(),
        "crashes": int(totals.get("crashes", 0)),
        "oracles": _oracles(totals),
        "rows": [len(named["row"]), len(ROWS)],
        "verifier_branches": [len(ways), branches(), len(named["branch"])],
        "outcomes": {name.partition(":")[2]: int(totals[name]) for name in sorted(named["outcome"])},
        "traits": {name.partition(":")[2]: int(totals[name]) for name in sorted(named["trait"])},
        "finds": [
            {
                "signature": find.finding.signature,
                "times": times,
                "known": known,
                "file": f"finds/{find.name}.json",
            }
            for find, times, known in store.finds()
        ],
    }


def _oracles(totals: Mapping[str, float]) -> dict[str, Json]:
    """What each oracle got: cases, native executions, seconds of CPU."""
    names = [name.partition(":")[2] for name in totals if name.startswith("cases:")]
    return {
        name: {
            "cases": int(totals[f"cases:{name}"]),
            "native_executions": int(totals.get(f"native:{name}", 0)),
            "cpu_seconds": round(totals.get(f"seconds:{name}", 0), 1),
        }
        for name in sorted(names)
    }


def _text(store: Store) -> list[str]:
    said: Any = _json(store)
    numbers = [
        ("cases", said["cases"]),
        ("native executions", said["native_executions"]),
        ("of different programs", said["native_programs"]),
        ("accepted programs", said["accepted"]),
        ("different ones, every claim compared", said["proved_programs"]),
        ("steps compared", said["steps"]),
        ("crashed processes", said["crashes"]),
    ]
    lines = [bold(f"campaign {said['campaign']}"), *indent(table(numbers))]
    lines.append("  rows of the instruction set {} of {}".format(*said["rows"]))
    lines.append("  branches of the verifier {} of {}, {} ways".format(*said["verifier_branches"]))
    rows = [
        (name, got["cases"], got["native_executions"], round(got["cpu_seconds"]))
        for name, got in sorted(said["oracles"].items(), key=lambda item: -item[1]["cpu_seconds"])
    ]
    lines += ["", *indent(table(rows, ("oracle", "cases", "native runs", "CPU s")))]
    outcomes = sorted(said["outcomes"].items(), key=lambda item: -item[1])
    lines += ["", bold("outcomes"), *indent(table([(times, name) for name, times in outcomes[:_SHOWN]]))]
    if said["traits"]:
        traits = sorted(said["traits"].items(), key=lambda item: -item[1])
        lines += [
            "",
            bold("of those compared have"),
            *indent(table([(times, name) for name, times in traits])),
        ]
    finds = said["finds"]
    lines += ["", bold(f"{sum(not find['known'] for find in finds)} open finds")]
    lines += indent(
        table([(f["times"], "known" if f["known"] else "open", f["signature"], f["file"]) for f in finds])
    )
    return lines


@command.command("replay")
@click.argument("find", type=click.Path(exists=True, dir_okay=False))
@click.pass_obj
def replay(terminal: Terminal, /, find: str) -> int:
    """Judge a find again. Exit code 1 when it still shows."""
    from bpfc.testing.finds import golden_case

    found = _read(find)
    again = _judged_again(found)
    said = {"shows": again is not None, "signature": again.signature if again is not None else ""}
    lines = [
        f"it shows: {again.signature}\n{again.said}" if again is not None else "it does not show any more"
    ]
    if found.case.program is not None and terminal.verbose:
        lines.append(golden_case(found))
    terminal.result("bpfc.fuzz.replay/1", said, "\n".join(lines))
    return 0 if again is None else 1


@command.command("reduce")
@click.argument("find", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "-o", "--output", metavar="DIR", help="Where the smaller find goes; by default in place of this one."
)
@click.option("--time", "limit", default="60s", metavar="T", help="How long to try.")
@click.pass_obj
def reduce(terminal: Terminal, /, find: str, output: str | None, limit: str) -> int:
    """Make a find smaller while it shows the same."""
    from bpfc.testing.finds import Find, write
    from bpfc.testing.oracle import Surroundings
    from bpfc.testing.reduce import judge_apart
    from bpfc.testing.reduce import reduce as shrink
    from bpfc.testing.registry import ORACLES

    found = _read(find)
    oracle, surroundings = ORACLES[found.finding.oracle], Surroundings(found.archs)
    again = judge_apart(oracle, found.case, surroundings)
    if again is None:
        terminal.result("bpfc.fuzz.reduce/1", {"shows": False}, "it does not show any more")
        return 0
    case, finding = shrink(oracle, found.case, again, surroundings, seconds_of(limit), isolated=True)
    smaller = Find.of(finding, case, found.seed, found.archs)
    path = write(smaller, Path(output) if output else Path(find).parent)
    insns = len(case.program.insns) if case.program is not None else 0
    said = {"shows": True, "insns": insns, "inputs": len(case.inputs), "path": str(path)}
    terminal.result("bpfc.fuzz.reduce/1", said, f"{insns} instructions, {len(case.inputs)} inputs: {path}")
    return 1


def _read(path: str) -> Find:
    from bpfc.testing.finds import read
    from bpfc.testing.registry import ORACLES
    from ir.diagnostics import Diagnostic, Location, UnreadableError

    try:
        found = read(Path(path))
        ORACLES[found.finding.oracle]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableError(
            [Diagnostic("no-find", f"this is no find: {error!r}", Location(file=path))]
        ) from None
    return found


def seconds_of(text: str) -> float:
    """The seconds of 90s, 30m, 1h. Raises click.UsageError."""
    found = _TIME.fullmatch(text)
    if found is None or not float(found[1]):
        raise click.UsageError(f"'{text}' is no time (90s, 30m, 1h)")
    return float(found[1]) * _SECONDS[found[2]]
