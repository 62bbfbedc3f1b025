"""Statements of random programs: what each leaves is again a program in which every statement may follow.

A statement starts and ends with numbers in NUMBERS, the context or memory in r6. What it reaches through a
pointer it has made sure of before, as programs do that Linux accepts; a daring author forgets to, now and
then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bpfc.testing.author import ALU, BRANCHES, COMMON, COUNTERS, KEPT, SMALL, STACK_SIZE, Author
from ir.isa import R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, ROW_BY_NAME, Kind
from ir.kinds import MapType, ProgramType
from ir.object import Map

Statement = Callable[[Author, int], None]

TABLE: Final = Map("table", MapType.ARRAY, 4, 48, 4)
HASH: Final = Map("hash", MapType.HASH, 4, 16, 2)
DATA_SIZE: Final = 128
ENOUGH: Final = 64
"""Bytes of packet or memory that a program surely has after its start."""

DEEPEST: Final = 3
XDP_ADJUST_HEAD, XDP_ADJUST_TAIL, PRANDOM, LOAD_BYTES, XDP_LOAD_BYTES = 44, 65, 7, 26, 189
_NEAR_BRANCHES: Final = tuple(row for row in BRANCHES if row.name.startswith(("jgt", "jge", "jlt", "jle")))
_IMMEDIATE: Final = tuple(row for row in BRANCHES if row.name.endswith("imm"))
_POINTER_TESTS: Final = ("jgt64 reg", "jge64 reg", "jlt64 reg", "jle64 reg")


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
        row = random.choice(_IMMEDIATE if random.random() < 0.7 else BRANCHES)
        author.row(row, register, author.source(), 0, random.choice(SMALL))
        marks.append(mark)
    if random.random() < 0.5:
        author.alu(random.choice(COMMON), register, author.source())
    _indexed(author, register, checks=True)
    for mark in marks:
        author.patch(mark)


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
    _number_again(author, pointer)


def memory(author: Author, depth: int) -> None:
    """The start of the memory or packet, moved by a number that is small enough."""
    _indexed(author, author.number(), checks=False)


def ends(author: Author, depth: int) -> None:
    """A pointer that is compared with the end, or an offset with the length; then used."""
    random = author.random
    pointer, after, end = author.others(3)
    size = random.choice((1, 2, 4, 8, 14, 20))
    index = random.choice(
        [register for register in (R8, R9, R0, R3) if register not in (pointer, after, end)]
    )
    _load_start(author, pointer)
    if random.random() < 0.7:
        author.put(
            random.choice(("and64 imm", "and32 imm")), index, imm=random.choice((3, 7, 15, 31, 63, 127, 255))
        )
        author.put("add64 reg", pointer, index)
        if random.random() < 0.3:
            author.put("add64 imm", pointer, imm=random.choice((1, 2, 4, 14)))
    author.put("mov64 reg", after, pointer)
    author.put("add64 imm", after, imm=size)
    _load_end(author, end)
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
    author.access(pointer, size, index, writes=_may_write(author))
    if random.random() < 0.4:
        author.access(pointer, size, index, writes=_may_write(author))
    author.patch(mark)
    for register in (pointer, after, end):
        _number_again(author, register)


def kept(author: Author, depth: int) -> None:
    """Keep a pointer on the stack while something else happens, then use it."""
    random = author.random
    place = KEPT + 16 * min(depth, DEEPEST)
    if random.random() < 0.5:
        # In a slot of its own: lowering knows one sort of pointer for each slot.
        place += 8
        author.put("stx64", R10, R6, place)
        statements(author, 1, depth + 1)
        author.put("ldx64", R6, R10, place)
        return
    name = random.choice(("data", "fixed"))
    pointer, other = author.others(2)
    author.refer(pointer, name, 0)
    author.put("stx64", R10, pointer, place)
    author.put("mov64 imm", pointer, imm=author.edge())
    statements(author, 1, depth + 1)
    author.put("ldx64", pointer, R10, place)
    author.access(pointer, 32, other, writes=name == "data")
    _number_again(author, pointer)


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
    _number_again(author, pointer)


def if_(author: Author, depth: int) -> None:
    """Two ways, or one that is left out."""
    random = author.random
    mark = author.branch(author.number(), author.source())
    statements(author, random.randint(1, 2), depth + 1)
    if random.random() < 0.5:
        over = author.mark()
        author.put(random.choice(("ja", "ja", "gotol")))
        author.patch(mark)
        statements(author, random.randint(1, 2), depth + 1)
        author.patch(over)
    else:
        author.patch(mark)


def loop(author: Author, depth: int) -> None:
    """Count up or down, in a register or on the stack; perhaps leave early."""
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
    statements(author, random.randint(1, 2), depth + 1)
    counter = random.choice((R0, R8, R9))
    author.put("ldx64", counter, R10, place)
    if random.random() < 0.4:
        index = author.random.choice((R2, R3))
        author.put("mov64 reg", index, counter)
        _use_counter(author, index, counter)
    early = author.branch(author.number(), author.source(), _IMMEDIATE) if random.random() < 0.2 else None
    author.put(random.choice(("add64 imm", "add32 imm")) if step > 0 else "add64 imm", counter, imm=step)
    author.put("stx64", R10, counter, place)
    mark = author.mark()
    author.put(name, counter, imm=bound)
    author.patch(mark, head)
    if early is not None:
        author.patch(early)


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
    _number_again(author, pointer)


def call(author: Author, depth: int) -> None:
    """Call the subprogram with a pointer into this frame and a number."""
    if not author.in_main:
        alu(author, depth)
        return
    random = author.random
    author.put("mov64 reg", R1, R6)
    if author.is_raw:
        author.put("mov64 reg", R2, R7)
    else:
        author.put("mov64 reg", R2, random.choice((R8, R9)))
    author.put("mov64 reg", R3, R10)
    author.put("add64 imm", R3, imm=-8 * random.randint(1, STACK_SIZE // 8))
    author.put("mov64 reg", R4, random.choice((R8, R9)))
    author.calls.append(len(author.insns))
    author.put("call subprogram")
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


def relate(author: Author, depth: int) -> None:
    """Compare two numbers with each other, then use one that is below the other."""
    random = author.random
    x, y = author.others(2)
    if random.random() < 0.6:
        author.put("and64 imm", y, imm=random.choice((7, 15, 31)))
    mark = author.branch(x, y, [row for row in BRANCHES if row.name.endswith("reg")])
    if random.random() < 0.5:
        author.put(random.choice(("sub64 reg", "sub32 reg", "add64 reg", "xor64 reg")), x, y)
    _indexed(author, random.choice((x, y)), checks=True)
    author.patch(mark)


def static_branch(author: Author, depth: int) -> None:
    """A branch that can be switched from outside, over a statement."""
    mark = author.mark()
    author.put(author.random.choice(("goto_or_nop", "nop_or_goto")))
    statements(author, 1, depth + 1)
    author.patch(mark)


STATEMENTS: Final[Mapping[str, tuple[Statement, int]]] = {
    "alu": (alu, 5),
    "wide": (wide, 1),
    "cut": (cut, 4),
    "test": (test, 3),
    "stack": (stack, 3),
    "frame": (frame, 1),
    "memory": (memory, 2),
    "ends": (ends, 2),
    "kept": (kept, 2),
    "lookup": (lookup, 2),
    "update": (update, 3),
    "globals": (globals_, 3),
    "if": (if_, 4),
    "loop": (loop, 2),
    "register loop": (register_loop, 1),
    "call": (call, 1),
    "helper": (helper, 1),
    "relate": (relate, 2),
}
"""Every statement, and how often it is drawn."""

STATIC: Final[Mapping[str, tuple[Statement, int]]] = {**STATEMENTS, "static branch": (static_branch, 4)}
_NESTING: Final = frozenset(("if", "loop", "kept", "static branch"))


@dataclass(frozen=True, slots=True)
class _Weighted:
    every: tuple[Statement, ...]
    flat: tuple[Statement, ...]


def _weigh(rows: Mapping[str, tuple[Statement, int]]) -> _Weighted:
    return _Weighted(
        tuple(each for each, weight in rows.values() for _ in range(weight)),
        tuple(each for name, (each, weight) in rows.items() if name not in _NESTING for _ in range(weight)),
    )


_PLAIN: Final = _weigh(STATEMENTS)
_WITH_STATIC: Final = _weigh(STATIC)


def statements(author: Author, count: int, depth: int) -> None:
    """A few statements, nested at most DEEPEST deep."""
    rows = _WITH_STATIC if author.has_static else _PLAIN
    for _ in range(count):
        if len(author.insns) > author.room:
            return
        choices = rows.every if depth < DEEPEST and len(author.insns) < author.room * 2 // 3 else rows.flat
        author.random.choice(choices)(author, depth)


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


def _indexed(author: Author, index: int, checks: bool) -> None:
    """Something of at least ENOUGH bytes, at `index`; which is cut to fit unless it may be left to what was tested."""
    random = author.random
    pointer, other = random.sample([each for each in (R0, R1, R2, R3, R4, R5, R8, R9) if each != index], 2)
    if not checks or not author.dares():
        reach = random.choice((3, 7, 8, 15, 31))
        author.put(random.choice(("and64 imm", "and32 imm")), index, imm=reach)
    else:
        reach = random.choice((3, 7, 15, 31, 63))
    if author.in_main and random.random() < 0.5:
        _load_start(author, pointer)
        author.put("add64 reg", pointer, index)
        author.access(pointer, ENOUGH - reach, other, writes=_may_write(author))
        if not author.is_raw:
            # Packets may have been moved or cut meanwhile: proved again by the statement itself.
            _guard_last(author, pointer, index, ENOUGH - reach)
    else:
        author.refer(pointer, "data", 0)
        author.put("add64 reg", pointer, index)
        author.access(pointer, min(DATA_SIZE - reach, ENOUGH), other)
    _number_again(author, pointer)


def _guard_last(author: Author, pointer: int, index: int, room: int) -> None:
    """Put a test against the packet's end before the access just written."""
    access = author.insns.pop()
    author.slots -= 1
    free = [each for each in (R0, R1, R2, R3, R4, R5) if each not in (pointer, index, access.dst, access.src)]
    after, end = free[:2]
    author.put("mov64 reg", after, pointer)
    author.put("add64 imm", after, imm=room)
    _load_end(author, end)
    mark = author.mark()
    author.put("jgt64 reg", after, end)
    author.insns.append(access)
    author.slots += 1
    author.patch(mark)
    _number_again(author, after)
    _number_again(author, end)


def _may_write(author: Author) -> bool:
    return author.type is not ProgramType.SOCKET_FILTER


def _load_start(author: Author, register: int) -> None:
    if author.is_raw:
        author.put("mov64 reg", register, R6)
    else:
        author.put("ldx32", register, R6, _PLACES[author.type][0])


def _load_end(author: Author, register: int) -> None:
    if author.is_raw:
        author.put("mov64 reg", register, R6)
        author.put("add64 reg", register, R7)
    else:
        author.put("ldx32", register, R6, _PLACES[author.type][1])


_PLACES: Final = {ProgramType.XDP: (0, 4), ProgramType.SCHED_CLS: (76, 80)}


def place_of(type: ProgramType) -> tuple[int, int]:
    """Where the context of `type` holds the start and the end of the packet."""
    return _PLACES[type]


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


def _use_counter(author: Author, index: int, counter: int) -> None:
    """Reach into global data by the counter of a loop."""
    pointer = author.random.choice([each for each in (R4, R5) if each not in (index, counter)])
    author.refer(pointer, "data", 0)
    author.put("and64 imm", index, imm=31)
    author.put("add64 reg", pointer, index)
    author.access(pointer, 32, index)
    _number_again(author, pointer)


def _number_again(author: Author, register: int) -> None:
    author.put("mov64 imm", register, imm=author.edge())
