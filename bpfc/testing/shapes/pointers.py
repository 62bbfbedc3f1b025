"""Pointers into packets, memory and global data: how they are made, moved and checked."""

from __future__ import annotations

from typing import Final

from bpfc.testing.author import Author
from ir.isa import R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, ROW_BY_NAME
from ir.kinds import ProgramType

DATA_SIZE: Final = 128
ENOUGH: Final = 64
"""Bytes of packet or memory that a program surely has after its start."""


_POINTER_TESTS: Final = ("jgt64 reg", "jge64 reg", "jlt64 reg", "jle64 reg")


def memory(author: Author, depth: int) -> None:
    """The start of the memory or packet, moved by a number that is small enough."""
    access_indexed(author, author.number(), checks=False)


def ends(author: Author, depth: int) -> None:
    """A pointer that is compared with the end, or an offset with the length; then used."""
    random = author.random
    pointer, after, end = author.others(3)
    size = random.choice((1, 2, 4, 8, 14, 20))
    index = random.choice(
        [register for register in (R8, R9, R0, R3) if register not in (pointer, after, end)]
    )
    load_start(author, pointer)
    if random.random() < 0.7:
        author.put(
            random.choice(("and64 imm", "and32 imm")), index, imm=random.choice((3, 7, 15, 31, 63, 127, 255))
        )
        author.put("add64 reg", pointer, index)
        if random.random() < 0.3:
            author.put("add64 imm", pointer, imm=random.choice((1, 2, 4, 14)))
    author.put("mov64 reg", after, pointer)
    author.put("add64 imm", after, imm=size)
    load_end(author, end)
    # Leave for what is not proved: after > end, end < after; or one byte stricter.
    mark = author.mark()
    is_exchanged = random.random() < 0.4
    strict = random.random() < 0.25
    name = (
        ("jle64 reg" if strict else "jlt64 reg") if is_exchanged else ("jge64 reg" if strict else "jgt64 reg")
    )
    if author.dares():
        name = random.choice(_POINTER_TESTS)
    author.row(ROW_BY_NAME[name], *((end, after) if is_exchanged else (after, end)))
    author.access(pointer, size, index, writes=may_write(author))
    if random.random() < 0.4:
        author.access(pointer, size, index, writes=may_write(author))
    author.patch(mark)
    for register in (pointer, after, end):
        number_again(author, register)


def globals_(author: Author, depth: int) -> None:
    """A global variable, or a constant table, at a place that a number says."""
    random = author.random
    name = random.choice(("data", "data", "fixed"))
    size = DATA_SIZE if name == "data" else 32
    pointer, index, other = author.others(3)
    start = random.choice((0, 0, 8, 16))
    author.refer(pointer, name, start)
    if random.random() < 0.6:
        reach = random.choice((7, 15) if name == "fixed" else (7, 15, 31, 56, 63))
        if author.dares():
            reach = 2 * reach + 1
        if random.random() < 0.7:
            author.put("and64 imm", index, imm=reach)
        else:
            author.put("mod64 imm", index, imm=reach + 1)
        author.put("add64 reg", pointer, index)
        author.access(pointer, max(size - start - reach, 1), other, writes=name == "data")
    else:
        author.access(pointer, size - start, other, aligned=True, writes=name == "data")
    number_again(author, pointer)


def access_indexed(author: Author, index: int, checks: bool) -> None:
    """Something of at least ENOUGH bytes, at `index`; which is cut to fit unless it may be left to what was tested."""
    random = author.random
    pointer, other = random.sample([each for each in (R0, R1, R2, R3, R4, R5, R8, R9) if each != index], 2)
    if not checks or not author.dares():
        reach = random.choice((3, 7, 8, 15, 31))
        author.put(random.choice(("and64 imm", "and32 imm")), index, imm=reach)
    else:
        reach = random.choice((3, 7, 15, 31, 63))
    if author.in_main and random.random() < 0.5:
        load_start(author, pointer)
        author.put("add64 reg", pointer, index)
        author.access(pointer, ENOUGH - reach, other, writes=may_write(author))
        if not author.is_raw:
            # Packets may have been moved or cut meanwhile: proved again by the statement itself.
            _guard_last(author, pointer, index, ENOUGH - reach)
    else:
        author.refer(pointer, "data", 0)
        author.put("add64 reg", pointer, index)
        author.access(pointer, min(DATA_SIZE - reach, ENOUGH), other)
    number_again(author, pointer)


def _guard_last(author: Author, pointer: int, index: int, room: int) -> None:
    """Put a test against the packet's end before the access just written."""
    access = author.insns.pop()
    author.slots -= 1
    free = [each for each in (R0, R1, R2, R3, R4, R5) if each not in (pointer, index, access.dst, access.src)]
    after, end = free[:2]
    author.put("mov64 reg", after, pointer)
    author.put("add64 imm", after, imm=room)
    load_end(author, end)
    mark = author.mark()
    author.put("jgt64 reg", after, end)
    author.insns.append(access)
    author.slots += 1
    author.patch(mark)
    number_again(author, after)
    number_again(author, end)


def may_write(author: Author) -> bool:
    return author.type is not ProgramType.SOCKET_FILTER


def load_start(author: Author, register: int) -> None:
    if author.is_raw:
        author.put("mov64 reg", register, R6)
    else:
        author.put("ldx32", register, R6, _PLACES[author.type][0])


def load_end(author: Author, register: int) -> None:
    if author.is_raw:
        author.put("mov64 reg", register, R6)
        author.put("add64 reg", register, R7)
    else:
        author.put("ldx32", register, R6, _PLACES[author.type][1])


_PLACES: Final = {ProgramType.XDP: (0, 4), ProgramType.SCHED_CLS: (76, 80)}


def place_of(type: ProgramType) -> tuple[int, int]:
    """Where the context of `type` holds the start and the end of the packet."""
    return _PLACES[type]


def number_again(author: Author, register: int) -> None:
    author.put("mov64 imm", register, imm=author.edge())
