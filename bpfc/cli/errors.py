"""What an exception means to the caller: an exit code, and a few words on stderr or, with -j, on stdout."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import click

from bpfc.cli.codes import NO, UNREADABLE, UNSUPPORTED, USAGE
from bpfc.cli.terminal import Json, Terminal
from ir.diagnostics import (
    Diagnostic,
    DiagnosticError,
    Explanation,
    Location,
    UnreadableError,
    UnsupportedError,
)

_UNREADABLE_ERRNO: Final = (
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.ENODEV, errno.EMFILE, errno.ENFILE),
)
_UNWRITABLE_ERRNO: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@final
@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong: `kind` is kebab-case and stable, `hint` what would help ('' when nobody knows)."""

    exit_code: int
    kind: str
    message: str
    hint: str = ""
    details: Mapping[str, object] | None = None
    text: str = ""


def problem_of(error: BaseException) -> Problem | None:
    """The problem that an exception of click or of the system stands for; None for our own mistakes."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            return Problem(USAGE, "usage", "no command", "bpfc --help says more", text=error.format_message())
        case click.UsageError():
            context = error.ctx
            hint = (
                f"{context.command_path} --help says more" if context is not None else "bpfc --help says more"
            )
            return Problem(USAGE, "usage", _said(error), hint)
        case click.ClickException():
            return Problem(USAGE, "usage", _said(error))
        case OSError() if error.errno in _UNREADABLE_ERRNO:
            said = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
            return Problem(UNREADABLE, "cannot-open", said)
        case OSError() if error.errno in _UNWRITABLE_ERRNO:
            return Problem(USAGE, "cannot-write", f"cannot write: {error.strerror}")
        case _:
            return None


def diagnosed(error: DiagnosticError) -> Problem:
    """The problem that diagnostics are."""
    code = NO
    if isinstance(error, UnreadableError):
        code = UNREADABLE
    elif isinstance(error, UnsupportedError):
        code = UNSUPPORTED
    first = error.diagnostics[0]
    hint = "; ".join((first.why.hint,) if first.why is not None and first.why.hint else first.notes)
    details = {
        "at": location_json(first.at),
        "diagnostics": [diagnostic_json(one) for one in error.diagnostics],
    }
    text = "\n".join(_colored(one) for one in error.diagnostics)
    return Problem(code, first.code, first.message, hint, details, text)


def report(problem: Problem, terminal: Terminal) -> int:
    """Say it; the exit code."""
    if terminal.speaks_json:
        said = {"kind": problem.kind, "message": problem.message, "hint": problem.hint}
        terminal.record("bpfc.error/1", {"error": {**said, **(problem.details or {})}})
        return problem.exit_code
    if problem.text:
        terminal.complain(problem.text)
        return problem.exit_code
    terminal.complain(f"bpfc: {click.style('error', fg='red', bold=True)}: {problem.message}")
    if problem.hint:
        terminal.complain(f"    hint: {problem.hint}")
    return problem.exit_code


def location_json(at: Location) -> Json:
    """A place in the input; what is not known is left out."""
    known: dict[str, object] = {
        name: text for name in ("file", "section", "function") if (text := getattr(at, name))
    }
    known |= {name: number for name in ("insn", "offset") if (number := getattr(at, name)) is not None}
    if at.source is not None:
        known["source"] = {name: getattr(at.source, name) for name in ("file", "line", "column", "text")}
    return known


def diagnostic_json(diagnostic: Diagnostic) -> Json:
    """A diagnostic, whole."""
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity.value,
        "message": diagnostic.message,
        "at": location_json(diagnostic.at),
        "notes": list(diagnostic.notes),
        "errno": diagnostic.errno,
        **(_explanation_json(diagnostic.why) if diagnostic.why is not None else {}),
    }


def _explanation_json(why: Explanation) -> dict[str, object]:
    return {
        "category": why.category,
        "assembly": why.assembly,
        "causes": [
            {"at": location_json(cause.at), "assembly": cause.assembly, "remark": cause.remark}
            for cause in why.causes
        ],
        "hint": why.hint,
    }


def _said(error: click.ClickException) -> str:
    """Click's sentence as ours are: lower case, no full stop."""
    text = error.format_message().rstrip(".")
    return text[:1].lower() + text[1:]


def _colored(diagnostic: Diagnostic) -> str:
    word = diagnostic.severity.value
    return str(diagnostic).replace(f"{word}:", f"{click.style(word, fg='red', bold=True)}:", 1)
