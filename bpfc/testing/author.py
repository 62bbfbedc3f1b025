"""Writes a program instruction by instruction: jumps that are patched later, references, registers that hold numbers.

r6   the context, or the memory of a program over raw memory          kept throughout
r7   there its length, else a number                                   kept throughout
r0..r5, r8, r9   numbers, whenever a statement starts or ends

r10 -64..0      numbers, all written at the start
r10 -128..-64   pointers that are kept meanwhile
r10 -256..-128  counters of loops, one for each depth
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple, final

from ir.isa import R0, R1, R2, R3, R4, R5, R7, R8, R9, ROW_BY_NAME, ROWS, Insn, Kind, Row
from ir.kinds import ProgramType
from ir.object import Reference, ReferenceKind

NUMBERS: Final = (R0, R1, R2, R3, R4, R5, R8, R9)
STACK_SIZE: Final = 64
KEPT: Final = -128
COUNTERS: Final = -136
DEEPEST: Final = 3
"""How deep statements nest."""

SMALL: Final = (0, 1, 2, 3, 4, 6, 7, 8, 12, 15, 16, 24, 31, 32, 40, 63)
EDGES: Final = (
    *SMALL,
    *(5, 14, 20, 33, 64, 100, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFF_FFFF),
    *(-1, -2, -8, -127, -128, -129, -0x8000, -0x7FFF_FFFF, -0x8000_0000),
)
WIDE_EDGES: Final = tuple(
    sorted(
        {edge & (1 << 64) - 1 for edge in EDGES}
        | {0x8000_0000, 0xFFFF_FFFF, 1 << 32, (1 << 32) + 1, 1 << 63, (1 << 63) - 1, 0xFFFF_FFFE}
    )
)


_EDGE_BYTES: Final = [edge.to_bytes(8, "little") for edge in WIDE_EDGES]
_FRESH: Final = 4  # random words that bytes are made of, beside the edges
_OFTEN: Final = 4  # times as likely as an edge each: three words of ten, in all


def draw_bytes(random: Random, size: int) -> bytes:
    """Bytes that make words where operations change, mostly."""
    fresh = random.randbytes(8 * _FRESH)
    words = _EDGE_BYTES + [fresh[at : at + 8] for at in range(0, len(fresh), 8)] * _OFTEN
    return b"".join(random.choices(words, k=-(-size // 8)))[:size]


def rows_of(kind: Kind) -> tuple[Row, ...]:
    """The rows of one kind that any program may use."""
    return tuple(row for row in ROWS if row.kind is kind and row.name != "addr_space_cast")


ALU: Final = rows_of(Kind.ALU)
BRANCHES: Final = rows_of(Kind.BRANCH)
IMMEDIATE_BRANCHES: Final = tuple(row for row in BRANCHES if row.name.endswith("imm"))
LOADS: Final = rows_of(Kind.LOAD)
STORES: Final = rows_of(Kind.STORE)
ATOMICS: Final = rows_of(Kind.ATOMIC)
_FORMS: Final = ("add", "sub", "and", "or", "xor", "lsh", "rsh", "arsh", "mov", "mul", "mod", "div")
COMMON: Final = tuple(
    ROW_BY_NAME[f"{name}{bits} {form}"] for name in _FORMS for bits in (64, 32) for form in ("imm", "reg")
)
_MAP_LOADS: Final = {
    ReferenceKind.MAP: ("lddw map_fd", "lddw map_idx"),
    ReferenceKind.MAP_VALUE: ("lddw map_value", "lddw map_idx_value"),
}
_COUNTED: Final = frozenset(("lsh", "rsh", "arsh"))
_DIVIDING: Final = frozenset(("div", "mod", "sdiv", "smod"))


Statement = Callable[["Author", int], None]
"""Writes one statement, so many statements deep in others."""


class Mark(NamedTuple):
    """A jump whose target is not known yet: its number among the instructions, and its slot."""

    number: int
    slot: int


@final
@dataclass(frozen=True, slots=True)
class Repertoire:
    """The statements that an author knows, each as often as it is to be drawn: all of them, and those that hold no others."""

    every: tuple[Statement, ...]
    flat: tuple[Statement, ...]


@final
class Author:
    """One program being written. `daring`: how likely a statement does what may be unsafe.

    `filled`: how likely each slot of the stack is written before it may be read.
    """

    def __init__(
        self,
        random: Random,
        type: ProgramType,
        repertoire: Repertoire,
        daring: float = 0.0,
        filled: float = 1.0,
    ) -> None:
        self.random = random
        self.type = type
        self.repertoire = repertoire
        self.daring = daring
        self.filled = filled
        self.insns: list[Insn] = []
        self.references: dict[int, Reference] = {}
        self.aims: list[tuple[int, str]] = []  # instructions that name a function, by its name
        self.slots = 0
        self.in_main = True
        self.room = 120

    @property
    def is_raw(self) -> bool:
        """Whether r6 points at raw memory of r7 bytes."""
        return self.type is ProgramType.UNSPEC

    def statements(self, count: int, depth: int) -> None:
        """Write a few statements, nested at most DEEPEST deep."""
        for _ in range(count):
            written = len(self.insns)
            if written > self.room:
                return
            may_nest = depth < DEEPEST and written < self.room * 2 // 3
            choices = self.repertoire.every if may_nest else self.repertoire.flat
            self.random.choice(choices)(self, depth)

    def row(self, row: Row, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> None:
        """Write an instruction; fields that the row fixes need not be given."""
        offset = row.offset if isinstance(row.offset, int) else offset
        imm = row.imm if isinstance(row.imm, int) else imm
        src = row.src if isinstance(row.src, int) else src
        insn = Insn(row.opcode, dst, src, offset, imm)
        self.insns.append(insn)
        self.slots += insn.slots

    def put(self, name: str, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> None:
        """Write an instruction of the row called `name`."""
        self.row(ROW_BY_NAME[name], dst, src, offset, imm)

    def mark(self) -> Mark:
        """Where the next instruction goes, which is a jump to be patched."""
        return Mark(len(self.insns), self.slots)

    def patch(self, mark: Mark, target: int | None = None) -> None:
        """Make the jump at `mark` go to slot `target`, here by default."""
        insn = self.insns[mark.number]
        distance = (self.slots if target is None else target) - mark.slot - 1
        far = ROW_BY_NAME["gotol"].opcode == insn.opcode
        self.insns[mark.number] = insn._replace(imm=distance) if far else insn._replace(offset=distance)

    def refer(self, dst: int, name: str, offset: int | None = None) -> None:
        """Load the address of map `name`, or of byte `offset` of its value; now and then as one of an array of maps."""
        kind = ReferenceKind.MAP if offset is None else ReferenceKind.MAP_VALUE
        self.references[self.slots] = Reference(kind, name, offset or 0)
        self.put(_MAP_LOADS[kind][self.random.random() < 0.1], dst, imm=(offset or 0) << 32)

    def aim(self, row: str, function: str, dst: int = 0) -> None:
        """Write a call of a function of this program, or a load of its address; where it is gets filled in at the end."""
        self.aims.append((len(self.insns), function))
        self.put(row, dst)

    def dares(self) -> bool:
        """Whether to do what may be unsafe, this time."""
        return self.random.random() < self.daring

    def number(self) -> int:
        """A register that holds a number."""
        return self.random.choice(NUMBERS)

    def source(self) -> int:
        """A register to read a number from."""
        return self.random.choice((*NUMBERS, R7)) if not self.is_raw or self.in_main else self.number()

    def others(self, count: int) -> list[int]:
        """Different registers that hold numbers."""
        return self.random.sample(NUMBERS, count)

    def edge(self) -> int:
        """An immediate, mostly one where operations change."""
        random = self.random
        chance = random.random()
        return (
            random.choice(SMALL)
            if chance < 0.45
            else random.choice(EDGES)
            if chance < 0.9
            else random.randrange(-0x8000_0000, 0x8000_0000)
        )

    def alu(self, row: Row, dst: int, src: int) -> None:
        """An operation on numbers, its immediate one that Linux takes."""
        name, imm = row.name.split(" ")[0].rstrip("0123456789"), self.edge()
        if name in _COUNTED:
            imm &= row.bits - 1
        if name in _DIVIDING:
            imm = imm or 1
        self.row(row, dst, src, 0, imm)

    def branch(self, dst: int, src: int, rows: Sequence[Row] = BRANCHES) -> Mark:
        """A conditional jump, to be patched."""
        mark = self.mark()
        self.row(self.random.choice(rows), dst, src, 0, self.edge())
        return mark

    def fill(self) -> None:
        """After a call: the argument registers hold numbers again."""
        for register in (R1, R2, R3, R4, R5):
            self.put("mov64 reg", register, self.random.choice((R0, R8, R9)))

    def access(self, base: int, room: int, number: int, aligned: bool = False, writes: bool = True) -> None:
        """A load or store in the first `room` bytes from `base`, into or from `number`; an atomic one if `base` is `aligned`.

        A daring one may leave them.
        """
        random = self.random
        chance = random.random()
        rows = STORES if writes and chance < 0.35 else LOADS
        if aligned and writes and chance < 0.1 and base != R0:
            rows = ATOMICS
        fitting = [row for row in rows if row.size <= room and (aligned or not row.is_atomic)]
        row = random.choice(fitting or [ROW_BY_NAME["ldx8"]])
        offset = random.randrange(0, max(room - row.size, 0) + 1)
        if random.random() < 0.5 or row.is_atomic:
            offset -= offset % row.size
        if self.dares():
            offset = room - row.size + random.choice((1, 1, 2, 4, 8))
        if row.kind is Kind.LOAD:
            self.row(row, number, base, offset)
        else:
            self.row(row, base, number, offset, self.edge())
