"""From a failed proof to a Diagnostic that a person can use: where, why, on which way, and what would help."""

from __future__ import annotations

from typing import Final

from ir.asm import format_insn
from ir.core import Branch, Const, Inst, Param, Value, operands
from ir.diagnostics import Diagnostic
from ir.verify.refusal import Refused
from ir.verify.subject import Subject

_EACCES: Final = 13
_EINVAL: Final = 22
_E2BIG: Final = 7
_ERRNO: Final = {
    "too-complex": _E2BIG,
    "call-depth": _E2BIG,
    "unbounded-loop": _EINVAL,
    "return-range": _EINVAL,
    "reference-leak": _EINVAL,
    "lock-held": _EINVAL,
    "helper-unavailable": _EINVAL,
    "unknown-helper": _EINVAL,
    "gpl-only": _EINVAL,
    "map-type": _EINVAL,
    "bad-release": _EINVAL,
}
_MOST_NOTES: Final = 10
_MOST_SLICE: Final = 40


def explain(subject: Subject, refused: Refused) -> Diagnostic:
    """The diagnostic of a refusal: its place, its causal path as notes, its hint last."""
    program = subject.program
    at = program.location(max(refused.at, 0))
    notes = causal_path(subject, refused)
    if refused.hint:
        notes.append(refused.hint)
    errno = _ERRNO.get(refused.code, _EACCES)
    return Diagnostic(refused.code, refused.message, at, notes=tuple(notes), errno=errno)


def causal_path(subject: Subject, refused: Refused) -> list[str]:
    """The instructions that made the culprit and the branches taken that tested them, in order."""
    related = backward_slice(refused.culprit)
    lines: dict[int, str] = {}
    for value in related:
        if not isinstance(value, Param) and value.at >= 0 and value.at != refused.at:
            lines[value.at] = _line(subject, value.at)
    trail = refused.state.trail if refused.state is not None else None
    seen: set[Branch] = set()
    while trail is not None and len(lines) < _MOST_NOTES:
        branch = trail.branch
        if branch not in seen and (branch.x in related or branch.y in related):
            taken = "taken" if trail.taken else "not taken"
            lines[branch.at] = f"{_line(subject, branch.at)} ({taken})"
        seen.add(branch)
        trail = trail.before
    ordered = [lines[at] for at in sorted(lines)]
    return ordered[-_MOST_NOTES:]


def backward_slice(culprit: Value | None) -> set[Value]:
    """The values that `culprit` was computed from, itself included."""
    found: set[Value] = set()
    work = [culprit] if culprit is not None else []
    while work and len(found) < _MOST_SLICE:
        value = work.pop(0)
        if value in found or isinstance(value, Const):
            continue
        found.add(value)
        if not isinstance(value, Param):
            inst: Inst = value
            work += operands(inst)
    return found


def _line(subject: Subject, slot: int) -> str:
    program = subject.program
    number = program.starts.index(slot) if slot in program.starts else -1
    text = format_insn(program.insns[number]) if number >= 0 else ""
    source = program.location(slot).source
    where = f"  ; {source}: {source.text.strip()}" if source is not None and source.text else ""
    return f"{slot}: {text}{where}"
