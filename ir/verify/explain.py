"""From a failed proof to a Diagnostic that a person can use: what sort of rule, where, what leads there, what would help."""

from __future__ import annotations

from dataclasses import replace
from re import sub

from ir.diagnostics import Diagnostic, Explanation
from ir.object import Program
from ir.verify.causes import causal_path, loser_of, text_at
from ir.verify.reasons import REASONS, UNLISTED
from ir.verify.refusal import Refused
from ir.verify.subject import Subject


def explain(subject: Subject, refused: Refused) -> Diagnostic:
    """The diagnostic of a refusal."""
    program, at = subject.program, max(refused.at, 0)
    reason = REASONS[refused.code]
    _name_loser(subject, refused)
    why = Explanation(
        reason.category, text_at(program, at), causal_path(subject, refused), refused.hint or reason.hint
    )
    return Diagnostic(refused.code, refused.message, program.location(at), errno=reason.errno, why=why)


def _name_loser(subject: Subject, refused: Refused) -> None:
    """Where a number was a pointer before some call, say so instead."""
    loser = loser_of(subject, refused)
    if loser is None:
        return
    lost = f"a pointer that '{text_at(subject.program, loser)}' at insn {loser} made invalid"
    refused.message = sub(r"a number(, which is no pointer|(?= where))", lost, refused.message)
    refused.hint = "use it before that call; get a new one after it, packet pointers from the context"


def explain_structure(program: Program, found: Diagnostic) -> Diagnostic:
    """A diagnostic of a program's structure, explained too where it is about an instruction."""
    if found.why is not None or found.at.insn is None:
        return found
    reason = REASONS.get(found.code, UNLISTED)
    at = found.at.insn
    return replace(found, why=Explanation(reason.category, text_at(program, at), (), reason.hint))
