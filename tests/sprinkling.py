"""BPFC_SPRINKLE=SEED: every program that a test compiles or verifies has static branches to cold code in it.

The seed and the program's name draw them, so a failure comes again. Slots, lines and results stay as they are; what
tests say about static keys, code bytes or the SSA form itself is about other code then. Code that no runtime of
ours will run (ahead of time, cases compiled together) can't be switched and is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from random import Random
from typing import Any

import pytest

from bpfc import aot, codegen, verification
from bpfc.codegen import Front
from bpfc.testing import together
from bpfc.testing.sprinkle import SprinkledFirst, sprinkle
from ir.core import Module
from ir.object import Program


def sprinkle_everything(patch: pytest.MonkeyPatch, seed: str) -> None:
    """Sprinkle what is lifted to be compiled, and harmlessly what is lifted to be verified."""
    lift, front_of, jumps_first = codegen.lift, codegen.front_of, codegen._jumps_first

    def lifted(is_harmless: bool) -> Callable[..., Module]:
        def sprinkled(program: Program, *rest: object) -> Module:
            module = lift(program, *rest)  # type: ignore[arg-type]  # passed on as they came
            sprinkle(module, Random(f"{seed} {program.name}"), is_harmless=is_harmless)
            return module

        return sprinkled

    def first(program: Program) -> Container[int]:
        return SprinkledFirst(jumps_first(program))

    def plain_front(*given: Any) -> Front:
        with pytest.MonkeyPatch.context() as plain:
            plain.setattr(codegen, "lift", lift)
            return front_of(*given)

    patch.setattr(codegen, "lift", lifted(is_harmless=False))
    patch.setattr(codegen, "_jumps_first", first)
    patch.setattr(verification, "lift", lifted(is_harmless=True))
    for unswitched in (aot, together):
        patch.setattr(unswitched, "front_of", plain_front)
