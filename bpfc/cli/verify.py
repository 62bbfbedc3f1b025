"""`bpfc verify`: are the programs safe, and if not, why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import click

from bpfc.cli.errors import diagnostic_json
from bpfc.cli.objects import open_object, select_programs
from bpfc.cli.root import Command
from bpfc.cli.terminal import Json, Terminal, bold, table

if TYPE_CHECKING:
    from ir.diagnostics import Diagnostic, Location
    from ir.verify.prove import Report

SARIF: Final = "https://json.schemastore.org/sarif-2.1.0.json"


@click.command(cls=Command)
@click.argument("objects", metavar="OBJ...", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option("--prog", metavar="PROG", help="Only these programs: a function, section or glob.")
@click.option(
    "--btf", metavar="F|kernel", help="The kernel types to verify against. Default: the running kernel's."
)
@click.option(
    "--unprivileged", is_flag=True, help="By the rules for loaders without CAP_BPF and CAP_PERFMON."
)
@click.option("--sarif", is_flag=True, help="Findings as SARIF 2.1.0, for code scanning.")
@click.option("--stats", is_flag=True, help="Steps, states and time of each program.")
@click.pass_obj
def command(
    terminal: Terminal,
    /,
    objects: tuple[str, ...],
    prog: str | None,
    btf: str | None,
    unprivileged: bool,
    sarif: bool,
    stats: bool,
) -> int:
    """Are the programs safe? For each that is not: what is wrong, where, and what leads there.

    Exit code 0 when all are proved safe, 1 when any is not.
    """
    from bpfc.verification import verify_object

    checked: list[tuple[str, Report]] = []
    for path in objects:
        loaded = open_object(path, btf)
        chosen = {program.name: program for program in select_programs(loaded, prog)}
        reports = verify_object(loaded.object, chosen, loaded.kernel, unprivileged)
        checked += [(path, report) for report in reports.values()]
    if sarif:
        import json  # late: most people read text

        terminal.say(json.dumps(_sarif([one for _, report in checked for one in report.diagnostics])))
    else:
        terminal.result(
            "bpfc.verify/1", _json(checked), "\n".join(_text(checked, stats or terminal.verbose > 0))
        )
    return 0 if all(report.is_accepted for _, report in checked) else 1


def _json(checked: Sequence[tuple[str, Report]]) -> Json:
    programs = [
        {
            "object": path,
            "name": report.name,
            "accepted": report.is_accepted,
            "steps": report.steps,
            "states": report.states,
            "tries": report.tries,
            "ns": report.ns,
            "diagnostics": [diagnostic_json(diagnostic) for diagnostic in report.diagnostics],
        }
        for path, report in checked
    ]
    return {"ok": all(report.is_accepted for _, report in checked), "programs": programs}


def _text(checked: Sequence[tuple[str, Report]], stats: bool) -> Iterator[str]:
    for _, report in checked:
        yield from (str(diagnostic) for diagnostic in report.diagnostics)
    rows: list[Sequence[object]] = []
    for path, report in checked:
        verdict = "safe" if report.is_accepted else bold("rejected")
        counts = (report.steps, report.states, f"{report.ns / 1e6:.2f} ms") if stats else ()
        rows.append((path, report.name, verdict, *counts))
    heads = ("object", "program", "verdict", *(("steps", "states", "time") if stats else ()))
    yield from table(rows, heads)


def _sarif(diagnostics: Sequence[Diagnostic]) -> Json:
    """Findings in the Static Analysis Results Interchange Format (OASIS, 2.1.0)."""
    results: list[dict[str, object]] = []
    for diagnostic in diagnostics:
        result: dict[str, object] = {
            "ruleId": diagnostic.code,
            "level": "error",
            "message": {"text": "\n".join((diagnostic.message, *_advice(diagnostic)))},
            "locations": [_place(diagnostic.at)],
        }
        if diagnostic.why is not None and diagnostic.why.causes:
            result["relatedLocations"] = [
                {**_place(cause.at), "id": number, "message": {"text": str(cause)}}
                for number, cause in enumerate(diagnostic.why.causes)
            ]
        results.append(result)
    categories = {one.code: one.why.category for one in diagnostics if one.why is not None}
    rules = [
        {"id": code, "properties": {"category": categories.get(code, "")}}
        for code in sorted({one.code for one in diagnostics})
    ]
    driver = {"name": "bpfc", "rules": rules}
    return {"$schema": SARIF, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _advice(diagnostic: Diagnostic) -> tuple[str, ...]:
    hint = diagnostic.why.hint if diagnostic.why is not None else ""
    return (*diagnostic.notes, *((hint,) if hint else ()))


def _place(at: Location) -> dict[str, object]:
    """A location in SARIF: the instruction by its qualified name, and the place in C where that is known."""
    place: dict[str, object] = {"logicalLocations": [{"name": at.function, "fullyQualifiedName": str(at)}]}
    if at.source is not None:
        region = {"startLine": max(at.source.line, 1), "startColumn": max(at.source.column, 1)}
        place["physicalLocation"] = {"artifactLocation": {"uri": at.source.file}, "region": region}
    return place
