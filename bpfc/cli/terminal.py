"""Where a command's words go: results to stdout as text or JSON, everything else to stderr.

A result carries its schema, `{"schema": "bpfc.show/1", ...}`; a stream is one such object a line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, final

import click

Json = Mapping[str, object]
CHOICES: Final = ("auto", "always", "never")
_CHUNK: Final = 1024


@final
@dataclass(slots=True)
class Terminal:
    """The global options, and how to speak. One a process, owned by the root context."""

    json: bool = False
    pretty: bool = False
    quiet: bool = False
    verbose: int = 0
    color: str = "auto"

    @property
    def speaks_json(self) -> bool:
        """Whether results are JSON."""
        return self.json or self.pretty

    @property
    def shows_progress(self) -> bool:
        """Whether somebody is looking at stderr."""
        return sys.stderr.isatty() and not self.quiet

    def result(self, schema: str, data: Json, text: str) -> None:
        """Say the one result of a command: `data` as JSON, else `text`."""
        if self.speaks_json:
            self.record(schema, data)
        else:
            self.say(text)

    def record(self, schema: str, data: Json) -> None:
        """One JSON object: a line, unless pretty."""
        import json  # late: most people read text

        indent = 2 if self.pretty else None
        self.say(json.dumps({"schema": schema, **data}, indent=indent, default=_plain, ensure_ascii=False))

    def say(self, text: str) -> None:
        """A text on stdout, in colour where that is wanted."""
        click.echo(text, color=self._in_color(), nl=not text.endswith("\n"))

    def stream(self, lines: Iterable[str]) -> None:
        """Many lines on stdout, without holding all of them."""
        rest = iter(lines)
        while chunk := list(islice(rest, _CHUNK)):
            self.say("\n".join(chunk))

    def note(self, text: str) -> None:
        """A remark on stderr, for people."""
        if not self.quiet:
            click.echo(text, err=True, color=self._in_color())

    def detail(self, text: str) -> None:
        """A remark for those who asked with -v."""
        if self.verbose:
            self.note(text)

    def complain(self, text: str) -> None:
        """An error on stderr; --quiet does not hide it."""
        click.echo(text, err=True, color=self._in_color())

    def _in_color(self) -> bool | None:
        """None: as the stream is a terminal or not."""
        if self.color == "auto":
            return False if os.environ.get("NO_COLOR") else None
        return self.color == "always"


def table(rows: Sequence[Sequence[object]], heads: Sequence[str] = ()) -> list[str]:
    """Rows as aligned lines; numbers to the right, `heads` in bold."""
    texts = [[str(cell) for cell in row] for row in rows]
    if not texts:
        return []
    shown = [list(heads), *texts] if heads else texts
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    is_number = [all(isinstance(row[column], int) for row in rows) for column in range(len(widths))]

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, is_number, strict=True)
        return "  ".join(text.rjust(w) if right else text.ljust(w) for text, w, right in cells).rstrip()

    head = [bold(line(heads))] if heads else []
    return [*head, *(line(row) for row in texts)]


def bold(text: str) -> str:
    """A heading."""
    return click.style(text, bold=True)


def dim(text: str) -> str:
    """What may be overlooked."""
    return click.style(text, dim=True)


def indent(lines: Iterable[str], by: int = 2) -> list[str]:
    """The lines, further right."""
    return [f"{' ' * by}{line}".rstrip() for line in lines]


def _plain(value: object) -> object:
    """What JSON lacks: bytes are hexadecimal."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    raise AssertionError(f"{type(value).__name__} has no JSON form")
