"""Names as C can say them."""

from __future__ import annotations

import re


def c_identifier(name: str) -> str:
    """`name` with underscores for what may not stand in an identifier of C."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)
