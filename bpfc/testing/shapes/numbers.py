"""Numbers: arithmetic, constants, comparisons, and what cuts ranges."""

from __future__ import annotations

from bpfc.testing.author import ALU, BRANCHES, COMMON, IMMEDIATE_BRANCHES, SMALL, Author
from bpfc.testing.shapes.pointers import access_indexed


def alu(author: Author, depth: int) -> None:
    """One to three operations on numbers."""
    for _ in range(author.random.randint(1, 3)):
        row = author.random.choice(ALU if author.random.random() < 0.4 else COMMON)
        author.alu(row, author.number(), author.source())


def wide(author: Author, depth: int) -> None:
    """A constant of 64 bits, or one in two moves."""
    value = author.edge() ^ (author.edge() << 32)
    author.put("lddw plain", author.number(), imm=value & (1 << 64) - 1)


def cut(author: Author, depth: int) -> None:
    """Make a number small, one way or another."""
    register, random = author.number(), author.random
    match random.randrange(6):
        case 0:
            author.put(random.choice(("and64 imm", "and32 imm")), register, imm=random.choice(SMALL))
        case 1:
            author.put(random.choice(("mod64 imm", "mod32 imm")), register, imm=random.choice(SMALL) or 5)
        case 2:
            author.put(random.choice(("rsh64 imm", "rsh32 imm")), register, imm=random.randrange(24, 32))
        case 3:
            mark = author.branch(register, author.source())
            author.put("mov64 imm", register, imm=random.choice(SMALL))
            author.patch(mark)
        case 4:
            author.put("lsh64 imm", register, imm=32)
            author.put(random.choice(("rsh64 imm", "arsh64 imm")), register, imm=32)
        case 5:
            author.put(
                random.choice(("movsx8to64", "movsx16to64", "movsx32to64", "movsx8to32")), register, register
            )


def test(author: Author, depth: int) -> None:
    """Bound a number by one or two comparisons, then use it as the index of something."""
    random = author.random
    register = author.number()
    marks = []
    for _ in range(random.randint(1, 2)):
        mark = author.mark()
        row = random.choice(IMMEDIATE_BRANCHES if random.random() < 0.7 else BRANCHES)
        author.row(row, register, author.source(), 0, random.choice(SMALL))
        marks.append(mark)
    if random.random() < 0.5:
        author.alu(random.choice(COMMON), register, author.source())
    access_indexed(author, register, checks=True)
    for mark in marks:
        author.patch(mark)


def relate(author: Author, depth: int) -> None:
    """Compare two numbers with each other, then use one that is below the other."""
    random = author.random
    x, y = author.others(2)
    if random.random() < 0.6:
        author.put("and64 imm", y, imm=random.choice((7, 15, 31)))
    mark = author.branch(x, y, [row for row in BRANCHES if row.name.endswith("reg")])
    if random.random() < 0.5:
        author.put(random.choice(("sub64 reg", "sub32 reg", "add64 reg", "xor64 reg")), x, y)
    access_indexed(author, random.choice((x, y)), checks=True)
    author.patch(mark)


def cast(author: Author, depth: int) -> None:
    """A number that changes its address space, as pointers into arenas do."""
    author.put("addr_space_cast", author.number(), author.number(), imm=author.random.choice((1, 0x10000)))
