"""Control: ways that part and join, loops, static branches."""

from __future__ import annotations

from bpfc.testing.author import COMMON, COUNTERS, IMMEDIATE_BRANCHES, Author
from bpfc.testing.shapes.pointers import number_again
from ir.isa import R0, R1, R2, R3, R4, R5, R8, R9, R10


def if_(author: Author, depth: int) -> None:
    """Two ways, or one that is left out."""
    random = author.random
    mark = author.branch(author.number(), author.source())
    author.statements(random.randint(1, 2), depth + 1)
    if random.random() < 0.5:
        over = author.mark()
        author.put(random.choice(("ja", "ja", "gotol")))
        author.patch(mark)
        author.statements(random.randint(1, 2), depth + 1)
        author.patch(over)
    else:
        author.patch(mark)


def loop(author: Author, depth: int) -> None:
    """Count up or down, in a register or on the stack; perhaps leave early, or by the budget of such loops."""
    random = author.random
    place = COUNTERS - 8 * depth
    start, step = random.choice(((0, 1), (0, 2), (1, 1), (0, 1), (8, -1), (12, -3)))
    count = random.randint(1, 8)
    if step > 0:
        name = random.choice(("jlt64 imm", "jlt32 imm", "jne64 imm", "jsle64 imm", "jle64 imm"))
        bound = start + step * count
    else:
        name, bound = random.choice(("jne64 imm", "jne32 imm", "jsgt64 imm", "jsge64 imm")), 0
        start = -step * count
    author.put("st64", R10, offset=place, imm=start)
    head = author.slots
    budget = author.mark() if random.random() < 0.2 else None
    if budget is not None:
        author.put("may_goto")
    author.statements(random.randint(1, 2), depth + 1)
    counter = random.choice((R0, R8, R9))
    author.put("ldx64", counter, R10, place)
    if random.random() < 0.4:
        index = author.random.choice((R2, R3))
        author.put("mov64 reg", index, counter)
        _use_counter(author, index, counter)
    early = (
        author.branch(author.number(), author.source(), IMMEDIATE_BRANCHES) if random.random() < 0.2 else None
    )
    author.put(random.choice(("add64 imm", "add32 imm")) if step > 0 else "add64 imm", counter, imm=step)
    author.put("stx64", R10, counter, place)
    mark = author.mark()
    author.put(name, counter, imm=bound)
    author.patch(mark, head)
    for way_out in (early, budget):
        if way_out is not None:
            author.patch(way_out)


def register_loop(author: Author, depth: int) -> None:
    """A small loop whose counter stays in a register, over the bytes of something."""
    random = author.random
    pointer, counter, sum_, value = random.sample((R0, R1, R2, R3, R4, R5, R8, R9), 4)
    count = random.randint(1, 16)
    author.refer(pointer, random.choice(("data", "fixed")), random.choice((0, 8)))
    author.put("mov64 imm", counter, imm=0)
    head = author.slots
    if random.random() < 0.5:
        author.put("mov64 reg", value, pointer)
        author.put("add64 reg", value, counter)
        author.put("ldx8", value, value)
    else:
        author.put("ldx8", value, pointer)
        author.put("add64 imm", pointer, imm=1)
    author.alu(random.choice(COMMON), sum_, value)
    author.put(random.choice(("add64 imm", "add32 imm")), counter, imm=1)
    mark = author.mark()
    bound = count + 16 if author.dares() else count
    author.put(random.choice(("jlt64 imm", "jne64 imm", "jlt32 imm", "jslt64 imm")), counter, imm=bound)
    author.patch(mark, head)
    number_again(author, pointer)


def static_branch(author: Author, depth: int) -> None:
    """A branch that can be switched from outside, over a statement."""
    mark = author.mark()
    author.put(author.random.choice(("goto_or_nop", "nop_or_goto", "gotol_or_nop", "nop_or_gotol")))
    author.statements(1, depth + 1)
    author.patch(mark)


def _use_counter(author: Author, index: int, counter: int) -> None:
    """Reach into global data by the counter of a loop."""
    pointer = author.random.choice([each for each in (R4, R5) if each not in (index, counter)])
    author.refer(pointer, "data", 0)
    author.put("and64 imm", index, imm=31)
    author.put("add64 reg", pointer, index)
    author.access(pointer, 32, index)
    number_again(author, pointer)
