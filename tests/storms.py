"""How long threads run against each other."""

from __future__ import annotations

import time
from collections.abc import Callable


def going_on(seconds: float, is_enough: Callable[[], bool]) -> Callable[[], bool]:
    """Tells, asked again and again, whether to go on: for some seconds, and until it is enough, at most a minute more."""
    begin = time.monotonic()

    def goes_on() -> bool:
        passed = time.monotonic() - begin
        return passed < seconds or (passed < seconds + 60 and not is_enough())

    return goes_on
