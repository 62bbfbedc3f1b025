"""What the code of an image depends on, and how arguments travel: as many words in registers as there are, then in memory.

Where words are of 32 bits, integers of native functions keep their size, and those of programs are of 64 bits all the same.

long f(struct { long a; int b; } s, char c, double d)      i64 %p0  i64 %p1  i64 %p2  double %p3
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from backends.native_code import Needs
from backends.target import Pairs
from ir.function_model import Model, Value

SLOT: Final = 8
WORDS, BY_VALUE, BY_REFERENCE = "[2 x i64]", "ptr byval", "ptr"  # types of structures
_WHOLE: Final = {Pairs.WORDS: WORDS, Pairs.REFERENCE: BY_REFERENCE}
MOST_INLINE: Final = 2  # programs; more would make large images, which take long to compile


@final
@dataclass(frozen=True, slots=True)
class Shape:
    """What an image's code depends on. `has_run`: the function is a BPF one, whose first argument is the run.

    `needs`: what at least one of the programs needs. `registers` carry integer arguments, `tail_words` at most may be
    passed on by a jump. `sessions` has, for each program in the order that they run, the number of its session, -1
    for none; it is empty when there are no sessions at all. `word` is the size of a register, `pairs` how structures of
    two words travel.
    """

    model: Model
    has_run: bool
    entries: int
    overrides: int
    exits: int
    needs: Needs = Needs.ALL
    registers: int = 6
    tail_words: int = 64
    sessions: tuple[int, ...] = ()
    word: int = SLOT
    pairs: Pairs = Pairs.TOGETHER

    @property
    def can_jump(self) -> bool:
        """Whether LLVM makes a jump of a tail call of the function."""
        words = 0
        for type in parameters_of(self)[0]:
            is_wide = self.word < SLOT and type in ("i64", "double")
            words = -(-words // 2) * 2 + 2 if is_wide else words + 1 + (type == WORDS)
        return words <= self.tail_words

    @property
    def result(self) -> str:
        """The LLVM type of what the function returns."""
        return "i64" if self.has_run else _native_type(self, self.model.result)

    @property
    def calls_original(self) -> bool:
        """Whether the image waits for the function to return."""
        return bool(self.overrides or self.exits) or not self.can_jump

    @property
    def is_counted(self) -> bool:
        """Whether threads count themselves in."""
        return self.calls_original or self.programs > 1

    @property
    def programs(self) -> int:
        """How many programs there are of all kinds."""
        return self.entries + self.overrides + self.exits

    @property
    def is_inline(self) -> bool:
        """Whether the image has the way to run each program in itself."""
        return self.programs <= MOST_INLINE


def parameters_of(shape: Shape) -> tuple[list[str], list[tuple[int, Value, int]]]:
    """LLVM types of the parameters, and for each slot (parameter, value, which 8 bytes of it).

    A struct of two words takes two registers of a program's function; native ones take it as the machine has it.
    """
    types = ["ptr"] if shape.has_run else []
    slots: list[tuple[int, Value, int]] = []
    left = shape.registers - len(types)
    for value in shape.model.arguments:
        if value.is_float:
            slots.append((len(types), value, 0))
            types.append(type_of(value))
        elif value.slots == 1:
            slots.append((len(types), value, 0))
            types.append("i64" if shape.has_run else _native_type(shape, value))
            left -= 1
        elif not (value.is_struct or shape.has_run):
            slots += [(len(types), value, 0), (len(types), value, 1)]
            types.append("i128")
            left -= 2
        elif shape.pairs in _WHOLE and not shape.has_run:
            slots += [(len(types), value, 0), (len(types), value, 1)]
            types.append(_WHOLE[shape.pairs])
        elif left >= 2 or shape.has_run:
            slots += [(len(types), value, 0), (len(types) + 1, value, 1)]
            types += ["i64", "i64"]
            left -= 2
        else:
            slots += [(len(types), value, 0), (len(types), value, 1)]
            types.append(f"{BY_VALUE}([2 x i64]) align 8")
    return types, slots


def _native_type(shape: Shape, value: Value) -> str:
    is_short = shape.word < SLOT and 0 < value.size <= shape.word and not value.is_float
    return "i32" if is_short else type_of(value)


def type_of(value: Value) -> str:
    """How a value that is no structure travels."""
    if value.is_float:
        return "double" if value.size == SLOT else "float"
    return "i128" if value.size > SLOT else "i64"
