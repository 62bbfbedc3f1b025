"""Maps, and the helpers that reach them or the packet."""

from __future__ import annotations

from typing import Final

from bpfc.testing.author import KEPT, STACK_SIZE, Author
from bpfc.testing.shapes.numbers import alu
from ir.isa import R0, R1, R2, R3, R4, R6, R8, R9, R10
from ir.kinds import MapType, ProgramType
from ir.object import Map

TABLE: Final = Map("table", MapType.ARRAY, 4, 48, 4)
HASH: Final = Map("hash", MapType.HASH, 4, 16, 2)
XDP_ADJUST_HEAD, XDP_ADJUST_TAIL, PRANDOM, LOAD_BYTES, XDP_LOAD_BYTES = 44, 65, 7, 26, 189


def lookup(author: Author, depth: int) -> None:
    """Look an element up, test for NULL, use it."""
    random = author.random
    name = random.choice(("table", "hash"))
    _key(author)
    author.refer(R1, name)
    author.put("call helper", imm=1)
    mark = author.mark()
    is_unsure = author.dares()
    if not is_unsure:
        author.put("jeq64 imm", R0)
    size, index = (48 if name == "table" else 16), random.choice((R8, R9))
    if random.random() < 0.5:
        reach = random.choice((3, 7, 8, 15) if name == "hash" else (3, 7, 15, 24, 31))
        if author.dares():
            reach = random.choice((16, 31, 32, 63))
        author.put("and64 imm", index, imm=reach)
        author.put("add64 reg", R0, index)
        size -= reach
    author.access(R0, max(size, 1), random.choice((R8, R9)))
    if random.random() < 0.3:
        author.put("stx64", R10, R0, KEPT)
        author.put("ldx64", R8, R10, KEPT)
        author.access(R8, max(size, 1), R9)
        author.put("mov64 imm", R8, imm=author.edge())
    if not is_unsure:
        author.patch(mark)
    author.put("mov64 imm", R0, imm=author.edge())
    if random.random() < 0.5:
        author.put("mov64 imm", R8, imm=author.edge())
    author.fill()


def update(author: Author, depth: int) -> None:
    """Insert or replace an element, or delete one."""
    random = author.random
    name = random.choice(("table", "hash"))
    _key(author)
    author.refer(R1, name)
    if random.random() < 0.4:
        author.put("call helper", imm=3)
    else:
        author.put("mov64 reg", R3, R10)
        author.put("add64 imm", R3, imm=-STACK_SIZE + random.choice((0, 8, 16)))
        author.put("mov64 imm", R4, imm=random.choice((0, 0, 0, 1, 2)))
        author.put("call helper", imm=2)
    author.fill()


def helper(author: Author, depth: int) -> None:
    """A helper that gives a number, fills memory, or moves the packet."""
    random = author.random
    chance = random.random()
    if chance < 0.25 or author.is_raw:
        author.put("call helper", imm=PRANDOM)
    elif author.type is ProgramType.XDP and chance < 0.6:
        author.put("mov64 reg", R1, R6)
        author.put("mov64 imm", R2, imm=random.choice((-16, -4, 0, 4, 14, 20)))
        author.put("call helper", imm=random.choice((XDP_ADJUST_HEAD, XDP_ADJUST_TAIL)))
    else:
        size = random.choice((1, 4, 8, 13, 16))
        author.put("mov64 reg", R1, R6)
        author.put("mov64 imm", R2, imm=random.choice((0, 1, 13, 40, 60, 200)))
        author.put("mov64 reg", R3, R10)
        author.put("add64 imm", R3, imm=-8 * random.randint(2, STACK_SIZE // 8))
        author.put("mov64 imm", R4, imm=size)
        author.put("call helper", imm=XDP_LOAD_BYTES if author.type is ProgramType.XDP else LOAD_BYTES)
    author.fill()


def packet_bytes(author: Author, depth: int) -> None:
    """A legacy load of bytes of the packet, where there is one; it leaves the program when there are not so many."""
    random = author.random
    if author.type is not ProgramType.SCHED_CLS or not author.in_main:
        alu(author, depth)
        return
    offset = random.choice((0, 0, 1, 12, 14, 23, 38, 60, 60, 200))
    if random.random() < 0.5:
        author.put(random.choice(("ldabs8", "ldabs16", "ldabs32")), imm=offset)
    else:
        index = random.choice((R8, R9))
        author.put("and64 imm", index, imm=random.choice((0, 7, 15)))
        author.put(random.choice(("ldind8", "ldind16", "ldind32")), src=index, imm=offset)
    author.fill()


def _key(author: Author) -> None:
    """r2 points at a key that is mostly one of a few."""
    random = author.random
    if random.random() < 0.5:
        author.put("st32", R10, offset=-8, imm=random.randrange(9))
    else:
        author.put("mov64 reg", R0, author.number())
        author.put("and64 imm", R0, imm=random.choice((3, 7, 15)))
        author.put("stx32", R10, R0, -8)
    author.put("mov64 reg", R2, R10)
    author.put("add64 imm", R2, imm=-8)
