"""Tables written as text, a row a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Generic, TypeVar, final

K = TypeVar("K")
Line = TypeVar("Line")
Row = TypeVar("Row")


@final
class Rows(Mapping[K, Row], Generic[K, Line, Row]):
    """The rows of a table by key; one is parsed when somebody asks for it, for few are asked for."""

    def __init__(self, lines: Mapping[K, Line], parse: Callable[[Line], Row]) -> None:
        self.lines: Final = lines
        self._parse = parse
        self._parsed: dict[K, Row] = {}

    def __getitem__(self, key: K) -> Row:
        found = self._parsed.get(key)
        if found is None:
            found = self._parsed[key] = self._parse(self.lines[key])
        return found

    def __contains__(self, key: object) -> bool:
        return key in self.lines

    def __iter__(self) -> Iterator[K]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)
