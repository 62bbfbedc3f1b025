"""What bpfc says about bad input: diagnostics are values, collected and raised once.

Every refusal carries a kebab-case code, a sentence and the place it is about. The three exception classes tell a caller
*whose* problem it is: `UnreadableError` (the bytes are not what they claim), `RejectedError` (the program was understood
and refused), `UnsupportedError` (fine elsewhere, not here; the message names what would help).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import final


class Severity(Enum):
    """How much a diagnostic weighs; only errors refuse a program."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@final
@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of C as .BTF.ext records it: file name, 1-based line and column, text ('' when not recorded)."""

    file: str
    line: int
    column: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@final
@dataclass(frozen=True, slots=True)
class Location:
    """A place in the input, as precise as is known.

    `insn` counts 8-byte slots from the start of `function`'s program (as the kernel counts); `offset` counts bytes from
    the start of `section`, or of the file when there is no section.
    """

    file: str = ""
    section: str = ""
    function: str = ""
    insn: int | None = None
    offset: int | None = None
    source: SourceLine | None = None

    def __str__(self) -> str:
        parts = [part for part in (self.file, self.section, self.function) if part]
        if self.insn is not None:
            parts.append(f"insn {self.insn}")
        if self.offset is not None:
            parts.append(f"byte {self.offset:#x}")
        if self.source is not None:
            parts.append(str(self.source))
        return ": ".join(parts) or "input"


NOWHERE = Location()


@final
@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing to say: `code` is stable and kebab-case, `message` one lower-case sentence, `errno` Linux's number or 0."""

    code: str
    message: str
    at: Location = NOWHERE
    severity: Severity = Severity.ERROR
    notes: tuple[str, ...] = ()
    errno: int = 0

    def __str__(self) -> str:
        lines = [f"{self.at}: {self.severity.value}: {self.message} [{self.code}]"]
        if self.at.source is not None and self.at.source.text:
            lines.append(f"    {self.at.source.text.strip()}")
        lines += [f"    note: {note}" for note in self.notes]
        return "\n".join(lines)


class DiagnosticError(Exception):
    """Diagnostics as an exception; `str()` is the first error, the rest are in `.diagnostics`."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...] | list[Diagnostic]) -> None:
        assert diagnostics, "an error needs something to say"
        self.diagnostics = tuple(diagnostics)
        super().__init__(str(self.diagnostics[0]))

    @property
    def errno(self) -> int:
        """The first diagnostic's errno, 0 when Linux has none for it."""
        return self.diagnostics[0].errno


class UnreadableError(DiagnosticError):
    """The input is not a well-formed object, program or file (command line: exit code 3)."""


class RejectedError(DiagnosticError):
    """The program was understood and refused (command line: exit code 1)."""


class UnsupportedError(DiagnosticError):
    """The input is fine, this installation or host cannot do it (command line: exit code 4)."""


class TrapError(DiagnosticError):
    """A run ended at a check: the diagnostic names the instruction that would have left the sandbox."""
