"""Small SVG drawings as text: elements, and a logarithmic scale with its ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import final


@final
@dataclass(frozen=True, slots=True)
class LogScale:
    """Maps [low, high] to x coordinates [left, right]."""

    low: float
    high: float
    left: float
    right: float

    def x(self, value: float) -> float:
        """Where `value` is drawn; values outside are drawn at the ends."""
        clamped = min(max(value, self.low), self.high)
        part = math.log(clamped / self.low) / math.log(self.high / self.low)
        return self.left + part * (self.right - self.left)

    def ticks(self) -> list[float]:
        """The powers of two in the range."""
        first, last = math.ceil(math.log2(self.low)), math.floor(math.log2(self.high))
        return [2.0**power for power in range(first, last + 1)]


def element(tag: str, text: str = "", **attributes: object) -> str:
    """An element; `_` in attribute names stands for `-`, and `text` is escaped."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for name, value in attributes.items()
    )
    return f"<{tag}{given}>{escape(text)}</{tag}>"


def drawing(width: float, height: float, title: str, parts: list[str]) -> str:
    """An SVG element that scales to the page's width; `title` says what it shows to who cannot see it."""
    body = "\n".join(parts)
    box = f"0 0 {_number(width)} {_number(height)}"
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(title)}">\n{body}\n</svg>'


def _number(value: object) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
