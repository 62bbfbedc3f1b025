"""Whether main returns what its kind of program must: the range that its context layout names."""

from __future__ import annotations

from errno import EINVAL
from typing import Final

from ir.core import Const, Module, Return
from ir.diagnostics import Diagnostic, RejectedError
from ir.verify.facts import Facts
from ir.verify.scalar import Scalar

_SIGN: Final = 1 << 63


def check_result(module: Module, facts: Facts) -> None:
    """Raises RejectedError (EINVAL) when main may return something outside of the range."""
    wanted = module.context.returns
    if wanted is None:
        return
    main = module.main
    problems: list[Diagnostic] = []
    for block in main.blocks:
        terminator = block.terminator
        if not isinstance(terminator, Return) or not facts.is_reached(block):
            continue
        known = facts.value(terminator.value)
        if isinstance(terminator.value, Const):
            low = high = terminator.value.value
        elif isinstance(known, Scalar):
            low, high = known.umin, known.umax
        else:
            low, high = 0, _SIGN
        if not wanted[0] <= low <= high <= wanted[1]:
            said = f"r0 may be {low}" + (f" to {high}" if high != low else "")
            said += f", wanted {wanted[0]}" + (f" to {wanted[1]}" if wanted[1] != wanted[0] else "")
            problems.append(Diagnostic("bad-result", said, main.location(terminator.at), errno=EINVAL))
    if problems:
        raise RejectedError(problems)
