"""What can run a program on raw memory: tests that take an `engine` run once for each of these."""

from __future__ import annotations

from collections.abc import Mapping

from bpfc.conformance import Engine, interpret

ENGINES: Mapping[str, Engine] = {"interpreter": interpret}
