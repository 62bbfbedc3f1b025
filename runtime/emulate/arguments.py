"""Where the arguments of a function travel, in units of a register: those of calls to code, and of its calls of ours.

64-bit machines    one unit each: registers, then the stack
i386               4 bytes a unit, all on the stack
armv7              r0 to r3, then the stack; 64-bit ones in an even pair, and at a multiple of 8 (AAPCS32, 6.5)
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import final

from backends.target import Target


@final
@dataclass(frozen=True, slots=True)
class Places:
    """Of each argument, its units from the lowest on: >= 0 a register's number, else -1 - (byte on the stack).

    `stack` is how many bytes of stack they take.
    """

    units: tuple[tuple[int, ...], ...]
    stack: int


def places(target: Target, sizes: tuple[int, ...]) -> Places:
    """The places of integer arguments of these sizes in bytes."""
    calling, word = target.calling, target.word
    found: list[tuple[int, ...]] = []
    register, stack = 0, 0
    for size in sizes:
        count = max(1, -(-size // word))
        if count > 1 and calling.aligns_pairs:
            register = -(-register // 2) * 2
        if register + count <= len(calling.arguments):
            found.append(tuple(range(register, register + count)))
            register += count
            continue
        register = len(calling.arguments)
        if count > 1 and calling.aligns_pairs:
            stack = -(-stack // 8) * 8
        found.append(tuple(-1 - (stack + word * unit) for unit in range(count)))
        stack += word * count
    return Places(tuple(found), stack)


def sizes_of(target: Target, kinds: tuple[type, ...]) -> tuple[int, ...]:
    """The sizes of arguments of ctypes' types on the target."""
    return tuple(target.word if kind is ctypes.c_void_p else ctypes.sizeof(kind) for kind in kinds)


def usual_sizes(target: Target, count: int) -> tuple[int, ...]:
    """The sizes of a pointer, the run state, and of registers behind it: how programs and helpers are called."""
    return (target.word, *[8] * (count - 1))[:count]
