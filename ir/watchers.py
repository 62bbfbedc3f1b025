"""Watchers of a pipeline: who looks at the module after each pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from ir.core import Module
from ir.pipeline import Pass, format_pass
from ir.text import format_module
from ir.validate import validate


@final
@dataclass(frozen=True, slots=True)
class PrintAfter:
    """Write the module's text after the passes named; without names, after every one that changed it."""

    write: Callable[[str], object]
    names: frozenset[str] = frozenset()
    slots: bool = False
    lines: bool = False

    def after(self, done: Pass, module: Module, changed: bool, ns: int) -> None:
        """Write."""
        if done.name in self.names or (changed and not self.names):
            text = format_module(module, self.slots, self.lines)
            self.write(f"; after {format_pass(done)}\n{text}\n")


@final
@dataclass(frozen=True, slots=True)
class ValidateEach:
    """Assert that the module is well-formed."""

    def after(self, done: Pass, module: Module, changed: bool, ns: int) -> None:
        """Validate."""
        validate(module, f"after {format_pass(done)}")


@final
@dataclass(slots=True)
class Timing:
    """Nanoseconds by pass, in the order of running."""

    passes: list[tuple[str, int]] = field(default_factory=list)

    def after(self, done: Pass, module: Module, changed: bool, ns: int) -> None:
        """Note the time."""
        self.passes.append((format_pass(done), ns))
