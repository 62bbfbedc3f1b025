"""What a compiled entry reads of what its caller prepares, found in its optimized LLVM IR."""

from __future__ import annotations

import re
from typing import Final

from backends import abi
from backends.native_code import Needs
from ir.context import HEADER

_FIELD: Final = re.compile(r"getelementptr[a-z ]* i8, ptr %run, i64 (\d+)$")
_FUEL: Final = re.compile(r"(load|store) [^()]*ptr %run, align")  # it is first
_CONTENT: Final = re.compile(r"getelementptr[a-z ]* i8, ptr %a0, i64 (\d+)$")


def needs_of(text: str) -> Needs:
    """The needs of a function `i64 f(ptr %run, ptr %a0)`, by its text."""
    needs = Needs(0)
    for line in text.split("{", 1)[1].splitlines():
        words = re.findall(r"%[\w.]+", line)
        if "%run" in words:
            found = _FIELD.search(line.split(", !")[0])
            is_other = _FUEL.search(line) if found is None else int(found[1]) != abi.CPU
            needs |= Needs.RUN if is_other else Needs.RUN | Needs.CPU
        if "%a0" in words:
            found = _CONTENT.search(line.split(", !")[0])
            is_content = found is not None and int(found[1]) >= HEADER
            needs |= Needs.CONTEXT if is_content else Needs.CONTEXT | Needs.HEADER
    return needs
