"""Which branches of the verifier's own code a campaign takes, by tracing a few of its cases.

A branch is a line that holds an `if`, `while`, `for`, `match` case or conditional expression; a way is such a line with
the line that came after it.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Final, final

from ir import verify

FOLDER: Final = str(Path(str(verify.__file__)).parent)
_BRANCHING: Final = (ast.If, ast.While, ast.For, ast.IfExp, ast.match_case)


@final
class Coverage:
    """A context manager that traces what runs in it; `taken` gives the new ways since the last call."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, int, int]] = set()
        self._new: set[tuple[str, int, int]] = set()

    def __enter__(self) -> None:
        sys.settrace(self._enter)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def taken(self) -> list[str]:
        """The ways first taken since the last call, as file:line:next line."""
        new, self._new = self._new, set()
        return sorted(f"{file}:{line}:{following}" for file, line, following in new)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(FOLDER):
            return None
        file = path[len(FOLDER) + 1 :]
        branching = lines(path)
        last = 0

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            line = frame.f_lineno if event == "line" else 0
            if last in branching:
                way = (file, last, line)
                if way not in self._seen:
                    self._seen.add(way)
                    self._new.add(way)
            last = line
            return step

        return step


@cache
def lines(path: str) -> frozenset[int]:
    """The lines of a source file that branch."""
    tree = ast.parse(Path(path).read_text())
    found = {
        node.pattern.lineno if isinstance(node, ast.match_case) else node.lineno
        for node in ast.walk(tree)
        if isinstance(node, _BRANCHING)
    }
    return frozenset(found)


def branches() -> int:
    """How many lines of the verifier branch."""
    return sum(len(lines(str(path))) for path in sorted(Path(FOLDER).glob("*.py")))
