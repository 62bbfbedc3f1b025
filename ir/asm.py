"""Assembly text of instructions, both ways, in the syntax LLVM and the kernel's verifier log share.

A listing is itself assembly: `assemble(disassemble(insns))` gives `insns` back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final, final

from ir.algebra import signed
from ir.diagnostics import Diagnostic, Location, RejectedError, SourceLine
from ir.isa import WIDE_OPCODE, Insn, Row, row_of, slot_numbers
from ir.object import Program, Reference, ReferenceKind
from ir.shapes import NAMED, SLOTS, Form, Operand, Slot, forms_by_shape, keywords, tokenize

_COMMENT: Final = re.compile(r"\s*(?:;|#|//).*|\s<\S+>\s*$")
_PREFIX: Final = re.compile(r"\s*(?:\d+:)?\s*(?:\((?P<opcode>[0-9a-f]{2})\)|(?:[0-9a-f]{2}\s){8,})?")
_LABEL: Final = re.compile(r"\s*(?P<name>[A-Za-z_.$][\w.$@]*)\s*:")


@final
@dataclass(frozen=True, slots=True)
class Assembly:
    """What an assembly text says: its instructions, the slot of each label and the line of each slot."""

    insns: tuple[Insn, ...]
    labels: Mapping[str, int]
    lines: Mapping[int, SourceLine]


def format_insn(insn: Insn, name: str = "") -> str:
    """The text of a legal instruction; `name` stands for what it jumps to or calls."""
    row = row_of(insn)
    shown = {key: slot.show(insn) for key, slot in SLOTS.items()}
    if name:
        shown.update(dict.fromkeys(NAMED, name))
    return row.text.format(**shown)


def disassemble(
    insns: Iterable[Insn],
    names: Mapping[int, str] | None = None,
    helpers: Mapping[int, str] | None = None,
    references: Mapping[int, Reference] | None = None,
    lines: Mapping[int, SourceLine] | None = None,
) -> str:
    """The listing of a program, one instruction a line after its slot number.

    `names` are functions and labels by slot, `helpers` names by number, `references` and `lines` what the
    instruction at a slot refers to and the C line it comes from; these two become comments.
    """
    return "\n".join(_listing(tuple(insns), names or {}, helpers or {}, references or {}, lines or {}))


def disassemble_program(program: Program, helpers: Mapping[int, str] | None = None) -> str:
    """The listing of `program` with its functions, references and C lines."""
    names = {function.start: function.name for function in program.functions}
    return disassemble(program.insns, names, helpers, program.references, program.lines)


def jump_labels(insns: Iterable[Insn]) -> dict[int, str]:
    """A label 'L<slot>' for every instruction that is jumped to or called."""
    insns = tuple(insns)
    starts = slot_numbers(insns)
    targets = {named_slot(insn, start) for insn, start in zip(insns, starts, strict=False)}
    return {slot: f"L{slot}" for slot in starts[:-1] if slot in targets}


def named_slot(insn: Insn, start: int) -> int | None:
    """The slot that the instruction at slot `start` jumps to, calls or takes the address of, if any."""
    part = _jump_part(row_of(insn))
    return None if part is None else start + 1 + signed(32, getattr(insn, part))


def assemble(text: str, helpers: Mapping[str, int] | None = None, file: str = "asm") -> tuple[Insn, ...]:
    """The instructions of an assembly text; `helpers` gives the numbers of helpers called by name.

    Raises RejectedError with a diagnostic for every line that is not understood.
    """
    return read_assembly(text, helpers, file).insns


def read_assembly(text: str, helpers: Mapping[str, int] | None = None, file: str = "asm") -> Assembly:
    """As `assemble`, with the labels and lines too."""
    return _Assembler(helpers or {}, file).read(text)


def _listing(
    insns: tuple[Insn, ...],
    names: Mapping[int, str],
    helpers: Mapping[int, str],
    references: Mapping[int, Reference],
    lines: Mapping[int, SourceLine],
) -> Iterator[str]:
    for insn, start in zip(insns, slot_numbers(insns), strict=False):
        if start in names:
            yield f"{names[start]}:"
        if start in lines:
            line = lines[start]
            yield f"; {line.text.strip()} @ {line.file}:{line.line}"
        target = named_slot(insn, start)
        calls_helper = "{helper}" in row_of(insn).text
        name = (
            helpers.get(insn.imm, "") if calls_helper else names.get(target, "") if target is not None else ""
        )
        yield f"{start:4}: {format_insn(insn, name)}{reference_comment(references.get(start))}"


def reference_comment(reference: Reference | None) -> str:
    """What an instruction refers to, as the comment behind it in a listing; '' when nothing."""
    if reference is None or reference.kind is ReferenceKind.FUNCTION:
        return ""
    offset = f" + {reference.offset}" if reference.offset else ""
    return f"  ; {reference.kind.value} {reference.name}{offset}"


@cache
def _jump_part(row: Row) -> str | None:
    for name in ("jump", "far_jump", "pc_jump", "low_jump"):
        if f"{{{name}}}" in row.text:
            return SLOTS[name].part
    return None


@final
@dataclass(frozen=True, slots=True)
class _Statement:
    """A line that holds an instruction; `opcode` is the kernel log's `(61)`, or None."""

    line: SourceLine
    opcode: int | None
    shape: tuple[str, ...]
    operands: tuple[Operand, ...]
    forms: tuple[Form, ...]


class _MisfitError(Exception):
    def __init__(self, code: str, message: str, column: int) -> None:
        super().__init__(message)
        self.code, self.message, self.column = code, message, column


@final
@dataclass(slots=True)
class _Assembler:
    """Two passes: slots of the labels, then the instructions."""

    helpers: Mapping[str, int]
    file: str
    labels: dict[str, int] = field(default_factory=dict)
    problems: list[Diagnostic] = field(default_factory=list)

    def read(self, text: str) -> Assembly:
        statements = self._place(text)
        insns = []
        for start, statement in statements.items():
            try:
                insns.append(self._fit(statement, start))
            except _MisfitError as misfit:
                self._report(misfit, statement.line)
        if self.problems:
            raise RejectedError(sorted(self.problems, key=_text_order))
        lines = {start: statement.line for start, statement in statements.items()}
        return Assembly(tuple(insns), self.labels, lines)

    def _place(self, text: str) -> dict[int, _Statement]:
        """The statements by their slot; fills in `labels`."""
        statements: dict[int, _Statement] = {}
        slot = 0
        for number, line in enumerate(text.splitlines(), 1):
            source = SourceLine(self.file, number, 1, line)
            code = _COMMENT.sub(lambda match: " " * len(match[0]), line)
            start = _PREFIX.match(code)
            assert start is not None
            column = start.end()
            while label := _LABEL.match(code, column):
                self._define(label, slot, source)
                column = label.end()
            if not code[column:].strip():
                continue
            try:
                statement = _cut(code, column, source, start["opcode"])
            except _MisfitError as misfit:
                self._report(misfit, source)
                continue
            statements[slot] = statement
            slot += self._slots(statement)
        return statements

    def _define(self, label: re.Match[str], slot: int, source: SourceLine) -> None:
        name = label["name"]
        if name in self.labels:
            said = f"label '{name}' is defined twice"
            self._report(_MisfitError("duplicate-label", said, label.start("name") + 1), source)
        self.labels[name] = slot

    def _slots(self, statement: _Statement) -> int:
        widths = {form.row.opcode == WIDE_OPCODE for form in statement.forms}
        if len(widths) == 1:
            return 2 if True in widths else 1
        try:
            return self._fit(statement, 0).slots
        except _MisfitError:
            return 1

    def _fit(self, statement: _Statement, start: int) -> Insn:
        first: _MisfitError | None = None
        for form in statement.forms:
            try:
                return self._fill(form, statement, start)
            except _MisfitError as misfit:
                first = first or misfit
        assert first is not None
        raise first

    def _fill(self, form: Form, statement: _Statement, start: int) -> Insn:
        row = form.row
        parts = {
            name: value for name in ("src", "offset", "imm") if isinstance(value := getattr(row, name), int)
        }
        filled: dict[str, int] = {}
        for name, (value, column) in zip(form.operands, statement.operands, strict=True):
            if isinstance(name, int):
                if value != name:
                    raise _MisfitError(
                        "bad-operand", f"'{row.name}' wants register {name} here, found {value}", column
                    )
                continue
            slot = SLOTS[name]
            number = value if isinstance(value, int) else self._resolve(value, name, start, column)
            bits = _to_bits(slot, number, row, column)
            if filled.setdefault(name, bits) != bits:
                raise _MisfitError(
                    "bad-operand", f"'{row.name}' wants the same register twice, found {number}", column
                )
            parts[slot.part] = parts.get(slot.part, 0) | bits << slot.low
        if "imm" in parts and row.opcode != WIDE_OPCODE:
            parts["imm"] = signed(32, parts["imm"])
        if "offset" in parts:
            parts["offset"] = signed(16, parts["offset"])
        insn = Insn(row.opcode, **parts)
        if not row.accepts(insn):
            said = ", ".join(f"{part} = {getattr(insn, part)}" for part in row.misfits(insn))
            raise _MisfitError("bad-operand", f"'{row.name}' does not allow {said}", statement.line.column)
        return insn

    def _resolve(self, name: str, slot: str, start: int, column: int) -> int:
        if slot == "helper":
            if name in self.labels or name not in self.helpers:
                raise _MisfitError("unknown-label", f"no label or helper is named '{name}'", column)
            return self.helpers[name]
        if name not in self.labels:
            known = "no label or helper" if slot == "pc_jump" else "no label"
            raise _MisfitError("unknown-label", f"{known} is named '{name}'", column)
        return self.labels[name] - start - 1

    def _report(self, misfit: _MisfitError, line: SourceLine) -> None:
        at = SourceLine(line.file, line.line, misfit.column, line.text)
        self.problems.append(Diagnostic(misfit.code, misfit.message, Location(source=at)))


def _text_order(problem: Diagnostic) -> tuple[int, int]:
    assert problem.at.source is not None
    return problem.at.source.line, problem.at.source.column


def _to_bits(slot: Slot, number: int, row: Row, column: int) -> int:
    """`number` as the bits of its slot; from 32 bits on, signed slots take the unsigned reading too."""
    smallest = -(1 << (slot.bits - 1)) if slot.is_signed else 0
    wraps = not slot.is_signed or slot.bits >= 32
    largest = (1 << slot.bits) - 1 if wraps else (1 << (slot.bits - 1)) - 1
    if not smallest <= number <= largest:
        said = f"{number} does not fit in '{row.name}', which takes {smallest} to {largest}"
        raise _MisfitError("operand-range", said, column)
    return number & ((1 << slot.bits) - 1)


def _cut(code: str, column: int, source: SourceLine, opcode: str | None) -> _Statement:
    """Find the shape of the statement at `column` (from 0) of `code`."""
    code = code.rstrip()
    shape, operands = tokenize(code, column, lambda word: word not in keywords())
    forms = forms_by_shape().get(shape, ())
    if not forms and shape and shape[-1] in keywords():  # a label named like a keyword, say `goto exit`
        shape, operands = (*shape[:-1], "W"), (*operands, Operand(shape[-1], len(code) - len(shape[-1]) + 1))
        forms = forms_by_shape().get(shape, ())
    wanted = None if opcode is None else int(opcode, 16)
    matching = tuple(form for form in forms if wanted is None or form.row.opcode == wanted)
    begin = len(code) - len(code[column:].lstrip()) + 1
    line = SourceLine(source.file, source.line, begin, source.text)
    if not matching:
        said = f"'{code[begin - 1 :]}' is not an instruction"
        raise _MisfitError(
            "unknown-instruction", said if not forms else f"{said} with opcode {opcode}", begin
        )
    return _Statement(line, wanted, shape, operands, matching)
