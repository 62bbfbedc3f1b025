"""The frame: numbers and pointers on the stack, and pointers into it."""

from __future__ import annotations

from typing import Final

from bpfc.testing.author import DEEPEST, KEPT, STACK_SIZE, Author
from bpfc.testing.shapes.numbers import cut
from bpfc.testing.shapes.pointers import number_again
from ir.isa import R6, R10, ROW_BY_NAME, Kind


def stack(author: Author, depth: int) -> None:
    """A load, store or atomic on numbers of the stack."""
    random = author.random
    _access_stack(author, R10, -STACK_SIZE, author.number())
    if random.random() < 0.4:
        place, register = -8 * random.randint(1, STACK_SIZE // 8), author.number()
        author.put("stx64", R10, register, place)
        if random.random() < 0.5:
            cut(author, depth)
        author.put(random.choice(("ldx64", "ldx64", "ldx32", "ldx16", "ldxs32")), author.number(), R10, place)


def frame(author: Author, depth: int) -> None:
    """A pointer into the frame, moved by a number, and used."""
    pointer, index, other = author.others(3)
    random = author.random
    author.put("mov64 reg", pointer, R10)
    author.put("add64 imm", pointer, imm=-STACK_SIZE)
    if random.random() < 0.7:
        author.put("and64 imm", index, imm=random.choice((8, 24, 32, 40, 48, 56)))
        author.put("add64 reg", pointer, index)
    row = random.choice([row for row in _STACK_ROWS if row.size == 8])
    if row.kind is Kind.LOAD:
        author.row(row, other, pointer)
    else:
        author.row(row, pointer, other, 0, author.edge())
    number_again(author, pointer)


def kept(author: Author, depth: int) -> None:
    """Keep a pointer on the stack while something else happens, then use it."""
    random = author.random
    place = KEPT + 16 * min(depth, DEEPEST)
    if random.random() < 0.5:
        # In a slot of its own: lowering knows one sort of pointer for each slot.
        place += 8
        author.put("stx64", R10, R6, place)
        author.statements(1, depth + 1)
        author.put("ldx64", R6, R10, place)
        return
    name = random.choice(("data", "fixed"))
    pointer, other = author.others(2)
    author.refer(pointer, name, 0)
    author.put("stx64", R10, pointer, place)
    author.put("mov64 imm", pointer, imm=author.edge())
    author.statements(1, depth + 1)
    author.put("ldx64", pointer, R10, place)
    author.access(pointer, 32, other, writes=name == "data")
    number_again(author, pointer)


_STACK_ROWS: Final = tuple(
    row
    for name in ("ldx", "stx", "st", "load_acquire", "store_release", "ldxs")
    for bits in (8, 16, 32, 64)
    if (row := ROW_BY_NAME.get(f"{name}{bits}")) is not None
) + tuple(row for row in ROW_BY_NAME.values() if row.kind is Kind.ATOMIC)


def _access_stack(author: Author, base: int, start: int, number: int) -> None:
    """An aligned access to base + [start, start + STACK_SIZE)."""
    row = author.random.choice(_STACK_ROWS)
    offset = start + author.random.randrange(STACK_SIZE // row.size) * row.size
    if row.kind is Kind.LOAD:
        author.row(row, number, base, offset)
    else:
        author.row(row, base, number, offset, author.edge())
