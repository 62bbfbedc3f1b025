"""The tokens of one line of the text form, taken one after the other."""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Final, NoReturn, TypeVar, final

from ir.diagnostics import Diagnostic, Location, SourceLine, UnreadableError

AnyEnum = TypeVar("AnyEnum", bound=Enum)

_TOKEN: Final = re.compile(
    r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>[A-Za-z_.$0-9-][\w.$-]*)|(?P<sign>[@+\[\](),:=])|(?P<end>;.*)?$)'
)
_NUMBER: Final = re.compile(r"-?(?:0x[0-9a-f]{1,16}|0|[1-9][0-9]{,19})")


@final
class LineTokens:
    """What is left of a line. What does not fit raises UnreadableError."""

    def __init__(self, line: SourceLine) -> None:
        self.line = line
        self.left: list[str] = []
        position = 0
        while position < len(line.text):
            match = _TOKEN.match(line.text, position)
            if match is None:
                self.fail(f"'{line.text[position:].strip()}' is not understood")
            if match.lastgroup in (None, "end"):
                break
            self.left.append(match[match.lastgroup])
            position = match.end()

    def word(self) -> str:
        """The next token, whatever it is."""
        if not self.left:
            self.fail("the line ends too early")
        return self.left.pop(0)

    def name(self) -> str:
        """A name, plain or in quotes."""
        word = self.word()
        if not word.startswith('"'):
            return word
        try:
            name = str(json.loads(word))
            name.encode()
        except ValueError:
            self.fail(f"{word} is not a quoted name")
        return name

    def member(self, names: type[AnyEnum]) -> AnyEnum:
        """A member of an enumeration, its name in small letters."""
        word = self.word()
        found = names.__members__.get(word.upper())
        if found is None:
            self.fail(f"'{word}' is none of {', '.join(names.__members__).lower()}")
        return found

    def number(self) -> int:
        """A whole number, decimal or hexadecimal."""
        return self.to_number(self.word())

    def to_number(self, word: str) -> int:
        """The number that a token is."""
        if not is_number(word):
            self.fail(f"'{word}' is not a number")
        return int(word, 0)

    def labeled(self, label: str) -> int:
        """A number behind its label."""
        self.take(label)
        return self.number()

    def hex_bytes(self) -> bytes:
        """Bytes as pairs of hexadecimal digits."""
        word = self.word()
        try:
            return bytes.fromhex(word)
        except ValueError:
            self.fail(f"'{word}' is not bytes in hexadecimal")

    def accept(self, token: str) -> bool:
        """Take a token if it is the next."""
        if self.left[:1] != [token]:
            return False
        del self.left[0]
        return True

    def take(self, token: str) -> None:
        """Take a token that must be the next."""
        if not self.accept(token):
            self.fail(f"found '{' '.join(self.left[:1])}', wanted '{token}'")

    def fail(self, message: str) -> NoReturn:
        """Say what is wrong with the line."""
        raise UnreadableError([Diagnostic("bad-ir", message, Location(source=self.line))])


def is_number(word: str) -> bool:
    """Whether a token is a whole number."""
    return _NUMBER.fullmatch(word) is not None
