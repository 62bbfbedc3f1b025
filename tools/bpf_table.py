"""Writes docs/bpf-table.md: instructions of the Debian objects before and after, as BPF output leaves them.

python -m tools.bpf_table FOLDER > docs/bpf-table.md        (FOLDER as tools/fetch_objects.sh leaves it)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bpfc
from bpfc.bpf_output import shrink_programs
from ir.diagnostics import DiagnosticError
from tools.collect_objects import iterate_objects

FINAL = bpfc.Options()
OPEN = bpfc.Options(fold=False)


@dataclass
class Row:
    """Instructions of all programs of an object, their subprograms with each: as read, with constants final, and open."""

    name: str
    programs: int
    before: int
    final: int
    open: int


def main() -> None:
    """Write the page to stdout."""
    rows = list(_rows(Path(sys.argv[1])))
    total = Row(
        "**together**",
        *(sum(getattr(row, name) for row in rows) for name in ("programs", "before", "final", "open")),
    )
    lines = [
        "# Real objects as BPF output",
        "",
        "Instructions of all programs of an object, each with the subprograms that it calls: as the package has them, as",
        "`bpfc compile --arch bpfel` writes them, and with `--keep-rodata`, for loaders that set constants themselves.",
        "Written by `python -m tools.bpf_table`; [docs/bpf-output.md](bpf-output.md) tells what is done.",
        "",
        "| object | programs | before | after | | `--keep-rodata` | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(_line(row) for row in [*rows, total]),
        "",
    ]
    sys.stdout.write("\n".join(lines))


def _rows(folder: Path) -> Iterator[Row]:
    for name, data in iterate_objects(folder):
        try:
            loaded = bpfc.load(data, name)
            counts = [_count(loaded, options) for options in (FINAL, OPEN)]
        except DiagnosticError:
            continue
        if loaded.programs:
            before = sum(program.starts[-1] for program in loaded.programs.values())
            yield Row(name, len(loaded.programs), before, *counts)


def _count(loaded: bpfc.Loaded, options: bpfc.Options) -> int:
    done = shrink_programs(loaded, loaded.programs, options)
    return sum(each.program.starts[-1] for each in done.values())


def _line(row: Row) -> str:
    counts = (f"{count} | {100 * (count / row.before - 1):+.0f} %" for count in (row.final, row.open))
    return f"| {row.name} | {row.programs} | {row.before} | {' | '.join(counts)} |"


if __name__ == "__main__":
    main()
