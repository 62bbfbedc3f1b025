"""Writes docs/object-table.md: which programs of the Debian objects compile and run here, and what the others need.

    python -m tools.object_table FOLDER > docs/object-table.md        (FOLDER as tools/fetch_objects.sh leaves it)

Every program runs once over 256 synthetic bytes, big-endian ones on an emulated s390x (extra: emu). What a tool's own
loader would choose is chosen here: 64 entries for maps of no size, 127 frames a stack trace, 30 pulses an infrared
code, hashes of u32 to u64 in maps of maps, the type of qemu's program, and in infrared decoders the values of their
parameters, which they take for the addresses of these.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import bpfc
from ir.diagnostics import Diagnostic, DiagnosticError
from ir.kinds import MapType, ProgramType
from ir.object import Map, ReferenceKind
from tools.collect_objects import iterate_objects

PACKET = bytes(range(256))
BIG_ENDIAN = "s390x"
RSS_STEERING = "tun_rss_steering"  # qemu: a section that libbpf does not know
RAW_PULSES = (
    "raw_map"  # ir-keytable: struct { u32 scancode; u16 pulses[]; }, as long as the longest code of a keymap
)


@dataclass
class Entry:
    """One object's row: how many programs ran, and why the others did not."""

    name: str
    ran: int = 0
    programs: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def try_object(name: str, data: bytes) -> Entry:
    """Load an object, and compile and run each of its programs."""
    entry = Entry(name)
    try:
        loaded = bpfc.load(data, name)
        _choose_sizes(loaded)
        _fill_parameters(loaded)
        _choose_types(loaded)
        entry.programs = len(loaded.programs)
        with loaded.start(target=BIG_ENDIAN if loaded.object.big_endian else None) as runtime:
            for program in loaded.programs:
                _try_program(runtime, program, entry)
    except DiagnosticError as error:
        entry.reasons[_reason(error.diagnostics[0])] += max(1, entry.programs)
    return entry


def _choose_sizes(loaded: bpfc.Loaded) -> None:
    for declared in list(loaded.maps.values()):
        if not declared.max_entries:
            loaded.resize(declared.name, 64)
        if declared.type is MapType.STACK_TRACE and not declared.value_size:
            loaded.resize(declared.name, value_size=127 * 8)
        if declared.name == RAW_PULSES:
            loaded.resize(declared.name, value_size=4 + 2 * 30)
        if declared.type in (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS) and declared.inner is None:
            loaded.set_inner(declared.name, Map("inner", MapType.HASH, 4, 8, 64))


def _choose_types(loaded: bpfc.Loaded) -> None:
    for name, program in loaded.programs.items():
        if program.section == RSS_STEERING:
            loaded.set_type(name, ProgramType.SOCKET_FILTER)


def _fill_parameters(loaded: bpfc.Loaded) -> None:
    """As ir-keytable does: its decoders are loaded with numbers where the compiler put the addresses of variables."""
    for name, program in loaded.programs.items():
        if program.type is not ProgramType.LIRC_MODE2:
            continue
        insns, references = list(program.insns), dict(program.references)
        for number, slot in enumerate(program.starts[:-1]):
            reference = references.get(slot)
            if reference is not None and reference.kind is ReferenceKind.MAP_VALUE:
                content = loaded.maps[reference.name].initial or b""
                value = int.from_bytes(content[reference.offset : reference.offset + 4], "little")
                insns[number] = insns[number]._replace(src=0, imm=value)
                del references[slot]
        filled = replace(program, insns=tuple(insns), references=references)
        loaded.object = replace(loaded.object, programs={**loaded.programs, name: filled})


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
        "bytes on x86-64, big-endian ones on an emulated s390x. Written by `python -m tools.object_table`; how to get the",
        "objects: docs/objects.md.",
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
