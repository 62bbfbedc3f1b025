"""Writes docs/object-table.md: which programs of the Debian objects compile and run here, and what the others need.

    python -m tools.object_table FOLDER > docs/object-table.md        (FOLDER as tools/fetch_objects.sh leaves it)

Every program runs once over 256 synthetic bytes. Maps whose size the tool's own loader would choose get 64 entries.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import bpfc
from ir.diagnostics import Diagnostic, DiagnosticError
from tools.collect_objects import find_objects

PACKET = bytes(range(256))


@dataclass
class Entry:
    """One object's row: how many programs ran, and why the others did not."""

    name: str
    ran: int = 0
    programs: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def iterate_objects(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every object under `folder`, by its path there."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            for number, (start, end) in enumerate(find_objects(data), 1):
                name = str(path.relative_to(folder))
                yield name if start == 0 else f"{name}-{number}.o", data[start:end]


def try_object(name: str, data: bytes) -> Entry:
    """Load an object, and compile and run each of its programs."""
    entry = Entry(name)
    try:
        loaded = bpfc.load(data, name)
        for declared in list(loaded.maps.values()):
            if not declared.max_entries:
                loaded.resize(declared.name, 64)
        entry.programs = len(loaded.programs)
        with loaded.start() as runtime:
            for program in loaded.programs:
                _try_program(runtime, program, entry)
    except DiagnosticError as error:
        entry.reasons[_reason(error.diagnostics[0])] += max(1, entry.programs)
    return entry


def _try_program(runtime: object, program: str, entry: Entry) -> None:
    try:
        runtime[program].run(PACKET)  # type: ignore[index]  # a bpfc Runtime
        entry.ran += 1
    except DiagnosticError as error:
        entry.reasons[_reason(error.diagnostics[0])] += 1


def _reason(diagnostic: Diagnostic) -> str:
    if diagnostic.code == "missing-helper":
        return diagnostic.message.split(" ", 1)[0] + " has no meaning here"
    if diagnostic.code == "out-of-bounds":
        return "follows a kernel pointer that synthetic input does not have (trapped)"
    if diagnostic.code == "foreign-byte-order":
        return "big-endian: run with --arch s390x"
    return f"{diagnostic.code}: {diagnostic.message}"


def main() -> int:
    """Print the table."""
    if len(sys.argv) != 2:
        print("usage: python -m tools.object_table FOLDER", file=sys.stderr)  # noqa: T201  # a tool of ours
        return 2
    entries = [try_object(name, data) for name, data in iterate_objects(Path(sys.argv[1]))]
    ran, programs = sum(entry.ran for entry in entries), sum(entry.programs for entry in entries)
    lines = [
        "# Which of Debian's objects run",
        "",
        f"{ran} of {programs} programs in {len(entries)} objects compile to native code and run once over 256 synthetic",
        "bytes on x86-64. Written by `python -m tools.object_table`; how to get the objects: docs/objects.md.",
        "",
        "| object | programs that run | the others |",
        "| --- | --- | --- |",
    ]
    for entry in entries:
        others = "; ".join(f"{count}: {reason}" for reason, count in entry.reasons.most_common())
        lines.append(f"| {entry.name} | {entry.ran} of {entry.programs} | {others.replace('|', '/')} |")
    print("\n".join(lines))  # noqa: T201  # the result
    return 0


if __name__ == "__main__":
    sys.exit(main())
