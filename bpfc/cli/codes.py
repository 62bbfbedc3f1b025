"""The exit codes of the command line."""

from __future__ import annotations

from typing import Final

OK: Final = 0
NO: Final = 1  # understood, and the answer is no: refused, or ended at a check
USAGE: Final = 2
UNREADABLE: Final = 3
UNSUPPORTED: Final = 4
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141  # as a shell says it of whom SIGPIPE ended
