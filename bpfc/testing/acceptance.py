"""Compare verdicts with the running kernel's: `python -m bpfc.testing.acceptance [--report FILE] PATH...`.

Every program of every object (`*.o` and `*.elf` below a folder) is loaded by libbpf, and verified here; nothing
is attached. Prints how many verdicts are the same, and what the others are about, by the reason that was
given. FILE takes one line of JSON a program, as they come; objects that it already holds are not measured again, and
`--linux OTHER` takes the kernel's verdicts from an earlier report. Exit code 1 when something crashed or did not end.

Each object is measured in a child, which is given up when a program takes longer than a minute.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from re import sub
from time import process_time_ns
from typing import Final

from bpfc.kernel_types import running_kernel
from bpfc.loaded import Loaded, load
from bpfc.testing.libbpf import Said, Verdict, can_open, judged, program_names, sized_maps
from bpfc.verification import verify_object
from ir.diagnostics import DiagnosticError

PATIENCE: Final = 60
"""Seconds until a program that got no verdict is given up."""
NO_VERDICT: Final = "no-verdict"
SUFFIXES: Final = (".o", ".elf")
SIZES: Final = ((0, 10), (10, 50), (50, 200), (200, 1000), (1000, 5000), (5000, 1 << 20), (0, 1 << 20))


@dataclass(frozen=True, slots=True)
class Row:
    """One program and both verdicts on it. `code` is why it is refused here, "" when it is not; `linux` is a `Said`.

    `object` is the hash of the file's content, `ns` is CPU time, `linux_ns` what the kernel says it took.
    """

    path: str
    object: str
    program: str
    section: str = ""
    insns: int = 0
    linux: str = Said.UNDECIDED.value
    linux_reason: str = ""
    linux_ns: int = 0
    code: str = ""
    reason: str = ""
    ns: int = 0
    steps: int = 0

    @property
    def is_decided(self) -> bool:
        """Whether the kernel gave a verdict."""
        return self.linux != Said.UNDECIDED.value

    @property
    def is_same(self) -> bool:
        """Whether both say the same."""
        return (self.linux == Said.ACCEPTED.value) == (not self.code)


def find_objects(paths: Iterable[str]) -> Iterator[Path]:
    """The objects that are named, and those below the folders that are named, in order."""
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(found for found in path.rglob("*") if found.suffix in SUFFIXES)
        else:
            yield path


def measure(path: Path, known: Mapping[str, Row] | None = None) -> list[Row]:
    """Both verdicts on every program of an object; the kernel's are those of `known`, by program, where it is given."""
    data = path.read_bytes()
    start = Row(str(path), _identity(path), "")
    if known is None and not can_open(data):
        return []
    names = list(known) if known is not None else list(program_names(data))
    rows: list[Row] = []
    while len(rows) < len(names):
        rows += _in_a_child(replace(start, program=names[len(rows)]), data, names[len(rows) :], known)
    return rows


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """The table: verdicts, what differs, times."""
    decided = [row for row in rows if row.is_decided]
    for said in (Said.ACCEPTED, Said.REFUSED):
        ones = [row for row in decided if row.linux == said.value]
        same = sum(row.is_same for row in ones)
        if ones:
            yield f"{said.value} by Linux: {len(ones)} programs, {same} here too ({same / len(ones):.2%})"
    yield f"undecided: {len(rows) - len(decided)}"
    yield from _differences("accepted by Linux, refused here", Said.ACCEPTED, decided)
    yield from _differences("refused by Linux, accepted here", Said.REFUSED, decided)
    yield from _times([row for row in decided if row.linux == Said.ACCEPTED.value and not row.code])


def _differences(title: str, said: Said, rows: Sequence[Row]) -> Iterator[str]:
    """What one sort of difference is about, the largest class first, each with one example."""
    classes: dict[str, list[Row]] = {}
    for row in rows:
        if row.linux == said.value and not row.is_same:
            reason = row.code or sub(r"0x[0-9a-f]+|-?\d+", "N", row.linux_reason)[:90]
            classes.setdefault(reason, []).append(row)
    if classes:
        yield f"{title}:"
    for reason, ones in sorted(classes.items(), key=lambda item: (-len(item[1]), item[0])):
        yield f"  {len(ones):5} {reason}  (such as {ones[0].path}: {ones[0].program})"


def _times(rows: Sequence[Row]) -> Iterator[str]:
    """CPU times by the number of instructions, beside the kernel's."""
    if rows:
        yield "insns           programs     median        99 %   Linux, median   Linux, 99 %   an insn"
    for low, high in SIZES:
        ones = [row for row in rows if low <= row.insns < high]
        if ones:
            ours, theirs = sorted(row.ns for row in ones), sorted(row.linux_ns for row in ones)
            cells = (value[int(len(value) * part)] / 1e6 for value in (ours, theirs) for part in (0.5, 0.99))
            shown = "   ".join(f"{cell:8.2f} ms" for cell in cells)
            by_insn = sum(ours) / 1e3 / max(sum(row.insns for row in ones), 1)
            yield f"{low:5} to {high - 1:7} {len(ones):6} {shown}   {by_insn:6.1f} us"


def _in_a_child(
    first: Row, data: bytes, names: Sequence[str], known: Mapping[str, Row] | None
) -> Iterator[Row]:
    """The rows of as many programs as a child measures before it is given up, and one for that which stopped it."""
    context = get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(there, first, data, names, known))
    child.start()
    there.close()
    for name in names:
        try:
            row = here.recv() if here.poll(PATIENCE) else None
        except EOFError:
            row = None
        if row is None:
            yield replace(
                first, program=name, code=NO_VERDICT, reason=f"none within {PATIENCE} s, or a crash"
            )
            break
        yield row
    child.kill()
    child.join()


def _measure(
    sink: Connection, first: Row, data: bytes, names: Sequence[str], known: Mapping[str, Row] | None
) -> None:
    """Send the row of each of `names`."""
    try:
        loaded, refusal = _read(data, first.path), None
    except DiagnosticError as error:
        loaded, refusal = None, error.diagnostics[0]
    for name in names:
        type = loaded.programs[name].type if loaded is not None and name in loaded.programs else 0
        row = (
            known[name]
            if known is not None
            else _asked(replace(first, program=name), judged(data, name, type))
        )
        if loaded is None or name not in loaded.programs:
            code, reason = (refusal.code, str(refusal)) if refusal else ("no-such-program", "")
            sink.send(replace(row, code=code, reason=reason))
        else:
            sink.send(_verified(row, loaded))


def _read(data: bytes, name: str) -> Loaded:
    """The object, fitted to the running kernel, its maps as large as the kernel's."""
    loaded = load(data, name)
    for map_, size in sized_maps(data).items():
        if map_ in loaded.maps:
            loaded.resize(map_, size.max_entries, size.value_size or None)
    loaded.fit()
    return loaded


def _asked(row: Row, verdict: Verdict) -> Row:
    return replace(row, linux=verdict.said.value, linux_reason=verdict.reason, linux_ns=verdict.ns)


def _verified(row: Row, loaded: Loaded) -> Row:
    """`row` with the verdict from here."""
    program = loaded.programs[row.program]
    begin = process_time_ns()
    report = verify_object(loaded.object, {program.name: program}, loaded.kernel)[program.name]
    took = process_time_ns() - begin
    found = report.diagnostics[0] if report.diagnostics else None
    return replace(
        row,
        section=program.section,
        insns=program.starts[-1],
        code=found.code if found else "",
        reason=str(found) if found else "",
        ns=took,
        steps=report.steps,
    )


def _identity(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()[:16]


def _warm_up() -> None:
    """Read the kernel's types and their names once, for all children."""
    if (kernel := running_kernel()) is not None:
        kernel.names.index()


def _read_report(path: Path | None) -> dict[str, dict[str, Row]]:
    """The rows of an earlier report, by object and program."""
    known: dict[str, dict[str, Row]] = {}
    if path is not None and path.exists():
        for line in path.read_text().splitlines():
            row = Row(**json.loads(line))
            known.setdefault(row.object, {})[row.program] = row
    return known


def main(arguments: Sequence[str]) -> int:
    """Measure, with progress on stderr; the table to stdout."""
    parser = ArgumentParser("bpfc.testing.acceptance", description=__doc__)
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="add the rows to it, and skip what it holds"
    )
    parser.add_argument(
        "--linux", type=Path, metavar="FILE", help="the kernel's verdicts of an earlier report"
    )
    options = parser.parse_args(arguments)
    _warm_up()
    done, known = _read_report(options.report), _read_report(options.linux)
    rows: list[Row] = []
    for number, path in enumerate(paths := list(find_objects(options.paths))):
        identity = _identity(path)
        found = done.get(identity)
        measured = list(found.values()) if found else measure(path, known.get(identity))
        if options.report and not found:
            with options.report.open("a") as sink:
                sink.writelines(json.dumps(asdict(row)) + "\n" for row in measured)
        rows += measured
        sys.stderr.write(f"{number + 1}/{len(paths)} {path}: {len(measured)} programs\n")
    sys.stdout.writelines(f"{line}\n" for line in summary(rows))
    return any(row.code == NO_VERDICT for row in rows)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
