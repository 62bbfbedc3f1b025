"""A proof that failed: what was wanted, what is known, and of which value."""

from __future__ import annotations

from typing import final

from ir.core import Value
from ir.verify.reasons import REASONS
from ir.verify.state import State


@final
class Refused(Exception):  # noqa: N818  # the outcome of a check, caught by the driver
    """Raised by a check. `culprit` is the value whose history explains it, `hint` what would help."""

    def __init__(self, code: str, message: str, culprit: Value | None = None, hint: str = "") -> None:
        super().__init__(message)
        assert code in REASONS, f"{code}: no row in ir/verify/reasons.py"
        self.code = code
        self.message = message
        self.culprit = culprit
        self.hint = hint
        self.at = -1
        self.function = ""
        self.state: State | None = None
