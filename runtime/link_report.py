"""What the linker decided for each call, and why: near, or far by which way."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, final

from backends.native_code import NativeCode, Relocation
from backends.target import Target


class Reach(Enum):
    """How a call gets to its callee."""

    NEAR = "near"
    VENEER = "far, through a veneer"
    TABLE = "far, through a table"
    SLOT = "through a pointer that may change"


class Call(NamedTuple):
    """A call or tail call as the linker left it: `offset` is that of its relocation in the code block."""

    relocation: Relocation
    offset: int
    distance: int
    reach: Reach


@final
@dataclass(frozen=True, slots=True)
class CallReport:
    """One call in words: `distance` as the instruction counts it, in bytes."""

    function: str
    offset: int
    callee: str
    distance: int
    reach: Reach
    why: str


def report_calls(code: NativeCode, target: Target, calls: Sequence[Call]) -> tuple[CallReport, ...]:
    """A line for each call of an image, in the order of its relocations."""
    functions = sorted(
        (symbol.section, symbol.offset, number)
        for number, symbol in enumerate(code.symbols)
        if symbol.is_function
    )
    return tuple(
        CallReport(
            _function_at(code, functions, relocation),
            offset,
            code.symbols[relocation.symbol].name,
            distance,
            reach,
            _reason(target, relocation, distance, reach),
        )
        for relocation, offset, distance, reach in calls
    )


def _function_at(code: NativeCode, functions: list[tuple[int, int, int]], place: Relocation) -> str:
    """The function that covers a place, '' when none does."""
    index = bisect_right(functions, (place.section, place.offset, len(code.symbols))) - 1
    if index < 0:
        return ""
    found = code.symbols[functions[index][2]]
    is_inside = found.section == place.section and place.offset < found.offset + found.size
    return found.name if is_inside else ""


def _reason(target: Target, relocation: Relocation, distance: int, reach: Reach) -> str:
    type = target.relocations[relocation.type]
    match reach:
        case Reach.NEAR:
            return "in reach"
        case Reach.SLOT:
            return "retargetable"
        case Reach.VENEER | Reach.TABLE:
            return f"{distance:#x} is not in {type.low:#x} up to {type.high:#x}"
