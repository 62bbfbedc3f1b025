"""What can run a program on raw memory: tests that take an `engine` run once for each of these."""

from __future__ import annotations

from bpfc.conformance import ENGINES, Engine

__all__ = ["ENGINES", "Engine"]
