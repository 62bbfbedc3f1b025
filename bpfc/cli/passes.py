"""`bpfc passes`: what the optimizer can do, and what each level does."""

from __future__ import annotations

import click

from bpfc.cli.root import Command
from bpfc.cli.terminal import Terminal, bold, indent, table


@click.command(cls=Command)
@click.pass_obj
def command(terminal: Terminal, /) -> None:
    """The optimization passes with their options, and the pipeline of each level.

    A pipeline is written as `fold-constants,prune-branches`, options in braces: `pass{option=value}`. It is
    what `bpfc dump ir --passes` takes.
    """
    from dataclasses import fields

    from bpfc.codegen import PIPELINES
    from ir.pipeline import PASSES, PROGRAM_PASSES

    passes = [
        {
            "name": name,
            "summary": kind.summary,
            "options": {one.name: one.default for one in fields(kind)},
        }
        for name, kind in sorted({**PASSES, **PROGRAM_PASSES}.items())
    ]
    pipelines = {level: str(pipeline) for level, pipeline in PIPELINES.items()}
    rows = [
        (one["name"], " ".join(f"{name}={value}" for name, value in one["options"].items()), one["summary"])
        for one in passes
    ]
    lines = [*table(rows, ("pass", "options", "what it does")), "", bold("pipelines")]
    lines += indent(table([(level, text or "nothing") for level, text in pipelines.items()]))
    terminal.result("bpfc.passes/1", {"passes": passes, "pipelines": pipelines}, "\n".join(lines))
