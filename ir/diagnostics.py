"""What bpfc says about bad input: diagnostics are values, collected and raised once.

Every refusal carries a kebab-case code, a sentence and the place it is about. The three exception classes tell a caller
*whose* problem it is: `UnreadableError` (the bytes are not what they claim), `RejectedError` (the program was understood
and refused), `UnsupportedError` (fine elsewhere, not here; the message names what would help).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

_MOST_NAMES: Final = 24


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
class Cause:
    """An instruction that led to a refusal, as assembly; `remark` says what it did there ('taken', 'acquired here')."""

    at: Location
    assembly: str
    remark: str = ""

    def __str__(self) -> str:
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.at.insn}: {self.assembly}{remark}"


@final
@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a program was refused: the sort of rule, the instruction, what leads there in order, what would help.

    `causes` is empty where nothing before the instruction matters, `hint` where nobody knows what was meant.
    """

    category: str
    assembly: str = ""
    causes: tuple[Cause, ...] = ()
    hint: str = ""


@final
@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing to say: `code` is stable and kebab-case, `message` one lower-case sentence, `errno` Linux's number or 0.

    xdp.o: filter: insn 9: xdp.c:12:6: error: 1-byte load ... [memory: packet-out-of-bounds]
        9: r0 = *(u8 *)(r2 + 23)           | if (ip->protocol == IPPROTO_TCP)
      because of
        4: r2 = *(u32 *)(r1 + 0)           | void *data = (void *)(long)ctx->data;
        7: if r3 > r4 goto +5 (not taken)  | if (data + 14 > data_end)
      help: compare the pointer plus 24 with data_end before this access
    """

    code: str
    message: str
    at: Location = NOWHERE
    severity: Severity = Severity.ERROR
    notes: tuple[str, ...] = ()
    errno: int = 0
    why: Explanation | None = None

    def __str__(self) -> str:
        tag = f"{self.why.category}: {self.code}" if self.why is not None else self.code
        lines = [f"{self.at}: {self.severity.value}: {self.message} [{tag}]"]
        if self.why is not None:
            lines += _explained(self.at, self.why)
        elif self.at.source is not None and self.at.source.text:
            lines.append(f"    {self.at.source.text.strip()}")
        lines += [f"    note: {note}" for note in self.notes]
        return "\n".join(lines)


def _explained(at: Location, why: Explanation) -> list[str]:
    """The instruction, its causes and the hint, each with its C line where that is recorded."""
    shown = [Cause(at, why.assembly)] if why.assembly else []
    width = max((len(str(cause)) for cause in (*shown, *why.causes)), default=0)
    lines = [_beside_source(cause, width) for cause in shown]
    if why.causes:
        lines.append("  because of")
        lines += [_beside_source(cause, width) for cause in why.causes]
    if why.hint:
        lines.append(f"  help: {why.hint}")
    return lines


def _beside_source(cause: Cause, width: int) -> str:
    source = cause.at.source
    text = source.text.strip() if source is not None else ""
    return f"    {cause!s:{width}}  | {text}" if text else f"    {cause}"


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


def known_names(names: Iterable[str]) -> str:
    """What there is, for a message about a name that there is not: the first of `names`, and how many more."""
    every = list(names)
    if len(every) <= _MOST_NAMES:
        return ", ".join(every) or "none"
    return f"{', '.join(every[:_MOST_NAMES])} and {len(every) - _MOST_NAMES} more"
