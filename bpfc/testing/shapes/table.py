"""Every statement, and how often it is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bpfc.testing.author import Repertoire, Statement
from bpfc.testing.shapes.control import if_, loop, register_loop, static_branch
from bpfc.testing.shapes.functions import call, indirect, kernel_function, kernel_variable, loop_helper
from bpfc.testing.shapes.helpers import helper, lookup, packet_bytes, update
from bpfc.testing.shapes.numbers import alu, cast, cut, relate, test, wide
from bpfc.testing.shapes.pointers import ends, globals_, memory
from bpfc.testing.shapes.stack import frame, kept, stack

WEIGHTS: Final[Mapping[Statement, int]] = {
    alu: 5,
    wide: 1,
    cut: 4,
    test: 3,
    stack: 3,
    frame: 1,
    memory: 2,
    ends: 2,
    kept: 2,
    lookup: 2,
    update: 3,
    globals_: 3,
    if_: 4,
    loop: 2,
    register_loop: 1,
    call: 1,
    loop_helper: 1,
    helper: 1,
    packet_bytes: 1,
    relate: 2,
}
_NESTING: Final = frozenset((if_, loop, kept, static_branch))


def _repertoire(weights: Mapping[Statement, int]) -> Repertoire:
    every = tuple(each for each, weight in weights.items() for _ in range(weight))
    return Repertoire(every, tuple(each for each in every if each not in _NESTING))


PLAIN: Final = _repertoire(WEIGHTS)
LINUX: Final = _repertoire({each: weight for each, weight in WEIGHTS.items() if each is not loop_helper})
"""What Linux takes without types: it wants those of callbacks."""
RUNS: Final = _repertoire({**WEIGHTS, cast: 1, indirect: 1, kernel_function: 1})
"""Also what runs as native code with checks, though nobody proves it safe."""
MEANS: Final = _repertoire(
    {**WEIGHTS, cast: 1, indirect: 1, kernel_function: 1, kernel_variable: 1, static_branch: 4}
)
"""Also what only has a meaning: static branches that are switched, variables of a kernel that is not there."""
