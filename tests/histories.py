"""Whether operations that several threads did at once had some order in which their answers are right.

Such an order has every operation between its begin and its end (Herlihy and Wing, 1990). It is looked for as operations
end: one that does must have taken effect, so every set of those under way that may have gone before it is tried.

    thread 1   |-- update 1 --|        |-- lookup: 2 --|        update 1, update 2, lookup: 2
    thread 2         |------ update 2 ------|
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Operation:
    """What one thread did from `begin` to `end` (ns), what it gave, and what it was answered."""

    begin: int
    end: int
    name: str
    flags: int
    given: int
    result: int
    found: int


WRONG = object()
"""What a model answers when an operation cannot have had its result in a state."""

Model = Callable[[Hashable, Operation], Hashable]
"""The state after an operation in a state, or WRONG. States are equal when they answer all alike."""


def out_of_order(history: Sequence[Operation], model: Model, state: Hashable) -> Operation | None:
    """The first operation to end without any order that explains its answer and all before, None when there is none."""
    events = sorted(
        [(one.begin, False, number) for number, one in enumerate(history)]
        + [(one.end, True, number) for number, one in enumerate(history)]
    )
    under_way: set[int] = set()
    possible: set[tuple[Hashable, frozenset[int]]] = {(state, frozenset())}
    for _, is_end, number in events:
        if not is_end:
            under_way.add(number)
            continue
        work, seen = list(possible), set(possible)
        possible = set()
        while work:
            state, gone = work.pop()
            if number in gone:
                possible.add((state, gone - {number}))
                continue
            for other in under_way - gone:
                after = model(state, history[other])
                following = (after, gone | {other})
                if after is not WRONG and following not in seen:
                    seen.add(following)
                    work.append(following)
        under_way.discard(number)
        if not possible:
            return history[number]
    return None


def overlaps(history: Sequence[Operation]) -> int:
    """How many operations were under way when another began."""
    found, latest = 0, -1
    for operation in sorted(history, key=lambda one: one.begin):
        found += operation.begin <= latest
        latest = max(latest, operation.end)
    return found
