"""Instructions as text and as JSON, with functions, helpers, maps and C lines by name."""

from __future__ import annotations

from bpfc.cli.terminal import Json
from ir.asm import disassemble, format_insn
from ir.encoding import encode
from ir.helpers import HELPERS
from ir.object import Program


def list_xlated(program: Program, with_lines: bool) -> str:
    """The listing of a program, under a comment that says what it is."""
    names = {function.start: function.name for function in program.functions}
    helpers = {helper.id: helper.full_name for helper in HELPERS.values()}
    lines = program.lines if with_lines else {}
    text = disassemble(program.insns, names, helpers, program.references, lines)
    return f"; {program.name}: {program.type.name.lower()}, section {program.section}\n{text}\n"


def xlated_json(program: Program) -> Json:
    """A program's instructions, each with its bytes, text, reference and line."""
    return {
        "name": program.name,
        "insns": [_insn_json(program, number) for number in range(len(program.insns))],
    }


def _insn_json(program: Program, number: int) -> Json:
    insn, slot = program.insns[number], program.starts[number]
    said: dict[str, object] = {
        "slot": slot,
        "text": format_insn(insn),
        "bytes": encode((insn,), program.big_endian),
    }
    reference = program.references.get(slot)
    if reference is not None:
        said["reference"] = {"kind": reference.kind.value, "name": reference.name, "offset": reference.offset}
    line = program.lines.get(slot)
    if line is not None:
        said["source"] = {"file": line.file, "line": line.line, "column": line.column, "text": line.text}
    return said
