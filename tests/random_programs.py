"""Random programs, legal by construction, that do what analyses find hard.

Ranges cut by masks and branches of every kind, 32- and 64-bit counters, spills of every size, pointers moved
by variables and compared with ends, packets that move, NULL checks made and left out, frames handed to
subprograms.
"""

from __future__ import annotations

from random import Random

from ir.context import RAW, XDP_MD, ContextLayout
from ir.core import Module
from ir.isa import ROW_BY_NAME, ROWS, Insn, Kind, Row, Wide
from ir.kinds import MapType, ProgramType
from ir.lift import lift
from ir.object import FunctionInfo, Map, Program, Reference, ReferenceKind

ALU = [row for row in ROWS if row.kind is Kind.ALU and row.name != "addr_space_cast"]
COMMON_ALU = [
    ROW_BY_NAME[f"{name}{bits} {form}"]
    for name in ("add", "sub", "and", "or", "xor", "lsh", "rsh", "arsh", "mov", "mul", "mod", "div")
    for bits in (64, 32)
    for form in ("imm", "reg")
]
BRANCHES = [row for row in ROWS if row.kind is Kind.BRANCH]
LOADS = [row for row in ROWS if row.kind is Kind.LOAD and not row.imm]
STORES = [row for row in ROWS if row.kind is Kind.STORE and not row.imm]
EDGES = (0, 1, 2, 3, 4, 7, 8, 12, 14, 15, 16, 20, 31, 32, 33, 63, 64, 100, 127, 128, 255, 256, 0x7FFF, 0xFFFF,
         0x7FFF_FFFF, -1, -2, -8, -128, -0x8000, -0x8000_0000)  # fmt: skip
SMALL = (0, 1, 2, 3, 4, 6, 7, 8, 12, 15, 16, 24, 31, 32, 40, 63)

MAPS = {
    "table": Map("table", MapType.ARRAY, 4, 40, 4),
    "hash": Map("hash", MapType.HASH, 4, 13, 4),
    "data": Map("data", MapType.ARRAY, 4, 64, 1, initial=bytes(64)),
    "fixed": Map("fixed", MapType.ARRAY, 4, 32, 1, initial=bytes(32), is_read_only=True),
}
# r6: memory or context; r7: length or end; r8, r9 and r0..r5: anything.
FREE = (0, 1, 2, 3, 4, 5, 8, 9)


KINDS = (
    *(
        "alu",
        "alu",
        "alu",
        "cut",
        "cut",
        "stack",
        "stack",
        "memory",
        "memory",
        "end",
        "end",
        "map",
        "if",
        "if",
    ),
    *("if", "if", "loop", "loop", "frame", "spill", "spill", "call", "change"),
)


class _Writer:
    """Collects instructions; jumps are patched when their target is known."""

    def __init__(self, random: Random, is_raw: bool) -> None:
        self.random = random
        self.is_raw = is_raw
        self.insns: list[Insn] = []
        self.references: dict[int, Reference] = {}
        self.calls: list[int] = []
        self.slots = 0
        self.in_main = True

    def put(self, name: str, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> None:
        self.raw(ROW_BY_NAME[name], dst, src, offset, imm)

    def raw(self, row: Row, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> None:
        offset = row.offset if isinstance(row.offset, int) else offset
        imm = row.imm if isinstance(row.imm, int) else imm
        src = row.src if isinstance(row.src, int) else src
        insn = Insn(row.opcode, dst, src, offset, imm)
        self.insns.append(insn)
        self.slots += insn.slots

    def here(self) -> tuple[int, int]:
        return len(self.insns), self.slots

    def patch(self, at: tuple[int, int], target: int | None = None) -> None:
        """Make the jump written at `at` go to slot `target`, here by default."""
        insn = self.insns[at[0]]
        to = self.slots if target is None else target
        self.insns[at[0]] = insn._replace(offset=to - at[1] - 1)

    def register(self) -> int:
        return self.random.choice(FREE)

    def branch(self, dst: int, src: int, imm: int) -> tuple[int, int]:
        at = self.here()
        self.raw(self.random.choice(BRANCHES), dst, src, 0, imm)
        return at

    def statements(self, count: int, depth: int) -> None:
        for _ in range(count):
            if len(self.insns) > 250:
                return
            self.statement(depth)

    def statement(self, depth: int) -> None:
        random = self.random
        kind = random.choice(KINDS)
        if kind in ("if", "loop") and depth > 3:
            kind = "alu"
        getattr(self, f"do_{kind}")(depth)

    def do_alu(self, depth: int) -> None:
        row = self.random.choice(ALU if self.random.random() < 0.3 else COMMON_ALU)
        imm = self.random.choice(SMALL if self.random.random() < 0.5 else EDGES)
        self.raw(row, self.register(), self.register(), 0, imm)

    def do_cut(self, depth: int) -> None:
        """Make a register small, one way or another."""
        register, random = self.register(), self.random
        match random.randrange(5):
            case 0:
                self.put(random.choice(("and64 imm", "and32 imm")), register, imm=random.choice(SMALL))
            case 1:
                self.put(random.choice(("mod64 imm", "mod32 imm")), register, imm=random.choice(SMALL))
            case 2:
                self.put("mov64 imm", register, imm=random.choice(EDGES))
            case 3:
                at = self.branch(register, self.register(), random.choice(SMALL))
                self.put("mov64 imm", register, imm=random.choice(SMALL))
                self.patch(at)
            case 4:
                self.put("lsh64 imm", register, imm=32)
                self.put(random.choice(("rsh64 imm", "arsh64 imm")), register, imm=32)

    def do_stack(self, depth: int) -> None:
        offset = -8 * self.random.randint(1, 4) + self.random.choice((0, 0, 0, 1, 2, 4))
        if self.random.random() < 0.5:
            self.raw(self.random.choice(STORES), 10, self.register(), offset, self.random.choice(EDGES))
        else:
            self.raw(self.random.choice(LOADS), self.register(), 10, offset)

    def do_spill(self, depth: int) -> None:
        offset = -8 * self.random.randint(1, 4)
        if self.random.random() < 0.5:
            self.put("stx64", 10, self.register(), offset)
        else:
            self.put("ldx64", self.register(), 10, offset)

    def do_frame(self, depth: int) -> None:
        """Make a pointer into the frame, perhaps moved by a variable, and use it."""
        register, index = self.register(), self.register()
        self.put("mov64 reg", register, 10)
        self.put("add64 imm", register, imm=-self.random.choice((8, 16, 32, 40)))
        if self.random.random() < 0.6 and register != index:
            if self.random.random() < 0.7:
                self.put("and64 imm", index, imm=self.random.choice(SMALL))
            self.put("add64 reg", register, index)
        self.access(register, self.random.choice((0, 0, 1, 8)))

    def do_memory(self, depth: int) -> None:
        """An access through some register, whatever is in it.

        Or the start of the packet or memory, indexed.
        """
        register, index = self.register(), self.register()
        if self.random.random() < 0.2:
            self.access(self.register(), self.random.choice(SMALL))
            return
        self.start(register)
        if register != index and self.random.random() < 0.6:
            if self.random.random() < 0.6:
                self.put("and64 imm", index, imm=self.random.choice(SMALL))
            self.put("add64 reg", register, index)
        self.access(register, self.random.choice(SMALL[:8]))

    def start(self, register: int) -> None:
        if self.is_raw or not self.in_main:
            self.put("mov64 reg", register, 6)
        else:
            self.put("ldx32", register, 6, 0)

    def do_end(self, depth: int) -> None:
        """Compare a pointer or an offset with the end or the length, then use it."""
        random = self.random
        register, other, index = random.sample(FREE, 3)
        size = random.choice((1, 2, 4, 8, 14))
        if self.is_raw and random.random() < 0.5:
            self.put("mov64 reg", other, index)
            self.put("add64 imm", other, imm=size)
            at = self.here()
            self.raw(random.choice(BRANCHES), other if random.random() < 0.8 else index, 7, 0, size)
            self.start(register)
            self.put("add64 reg", register, index)
            self.access(register, random.choice((0, 0, size - 1)))
            self.patch(at)
            return
        self.start(register)
        if random.random() < 0.5:
            if random.random() < 0.8:
                self.put("and64 imm", index, imm=random.choice(SMALL))
            self.put("add64 reg", register, index)
        self.put("mov64 reg", other, register)
        self.put("add64 imm", other, imm=size)
        if self.is_raw or not self.in_main:
            self.put("mov64 reg", index, 6)
            self.put("add64 reg", index, 7)
        else:
            self.put("ldx32", index, 6, 4)
        at = self.here()
        row = ROW_BY_NAME[random.choice(("jgt", "jge", "jlt", "jle", "jne", "jeq")) + "64 reg"]
        self.raw(row, other, index) if random.random() < 0.7 else self.raw(row, index, other)
        self.access(register, random.choice((0, 0, 1, size - 1)))
        if random.random() < 0.4:
            self.statements(2, depth + 1)
            self.access(register, random.choice((0, 1)))
        self.patch(at)

    def do_map(self, depth: int) -> None:
        random = self.random
        if random.random() < 0.4:
            name = random.choice(("data", "fixed"))
            register, index = random.sample(FREE, 2)
            self.references[self.slots] = Reference(ReferenceKind.MAP_VALUE, name, random.choice((0, 0, 8)))
            self.raw(ROW_BY_NAME["lddw map_value"], register)
            if random.random() < 0.6:
                self.put("and64 imm", index, imm=random.choice((7, 15, 31, 63)))
                self.put("add64 reg", register, index)
            self.access(register, random.choice((0, 0, 8, 24)))
            return
        self.put("mov64 reg", 2, 10)
        self.put("add64 imm", 2, imm=-4)
        self.references[self.slots] = Reference(ReferenceKind.MAP, random.choice(("table", "hash")))
        self.raw(ROW_BY_NAME["lddw map_fd"], 1)
        self.put("call helper", imm=1)
        self.fill()
        if random.random() < 0.3:
            self.put("stx64", 10, 0, -8 * random.randint(1, 3))
        at = None
        if random.random() < 0.85:
            at = self.here()
            self.put("jeq64 imm", 0)
        index = self.register()
        if index and random.random() < 0.5:
            self.put("and64 imm", index, imm=random.choice((3, 7, 15, 31)))
            self.put("add64 reg", 0, index)
        self.access(0, random.choice((0, 0, 4, 8, 12)))
        if random.random() < 0.3:
            self.statements(2, depth + 1)
        if at is not None:
            self.patch(at)

    def do_if(self, depth: int) -> None:
        at = self.branch(self.register(), self.register(), self.random.choice(EDGES))
        self.statements(self.random.randint(1, 3), depth + 1)
        if self.random.random() < 0.5:
            over = self.here()
            self.put("ja")
            self.patch(at)
            self.statements(self.random.randint(1, 3), depth + 1)
            self.patch(over)
        else:
            self.patch(at)

    def do_loop(self, depth: int) -> None:
        """A loop that counts in a register up or down; its test is at the end, or at the start."""
        random = self.random
        counter = random.choice((8, 9, self.register()))
        bits = random.choice((64, 64, 32))
        if random.random() < 0.8:
            self.put("mov64 imm", counter, imm=random.choice(SMALL))
        start = self.slots
        leave = None
        if random.random() < 0.4:
            leave = self.branch(counter, random.choice((7, self.register())), random.choice(SMALL))
        self.statements(random.randint(0, 3), depth + 1)
        again = None
        if random.random() < 0.2:
            again = self.branch(self.register(), self.register(), random.choice(EDGES))
        step = random.choice((1, 1, 1, 2, 4, -1, 3))
        self.put(f"add{bits} imm", counter, imm=step)
        if again is not None:
            self.patch(again)
        at = self.here()
        rows = [row for row in BRANCHES if row.name.endswith("imm")] + BRANCHES
        self.raw(random.choice(rows), counter, random.choice((7, self.register())), 0, random.choice(SMALL))
        self.patch(at, start)
        if leave is not None:
            self.patch(leave)

    def do_call(self, depth: int) -> None:
        if not self.in_main:
            self.do_alu(depth)
            return
        random = self.random
        for register in (1, 2):
            if random.random() < 0.6:
                self.put("mov64 reg", register, random.choice((10, 6, 8, 9)))
                if random.random() < 0.5:
                    self.put("add64 imm", register, imm=random.choice((-8, -16, -24, 4)))
        self.calls.append(len(self.insns))
        self.put("call subprogram")
        self.fill()

    def do_change(self, depth: int) -> None:
        if self.is_raw or not self.in_main or self.random.random() < 0.7:
            self.put("call helper", imm=7)
        else:
            self.put("mov64 reg", 1, 6)
            self.put("mov64 imm", 2, imm=4)
            self.put("call helper", imm=44)
        self.fill()

    def fill(self) -> None:
        """After a call: the argument registers hold something again."""
        for register in (1, 2, 3, 4, 5):
            self.put("mov64 reg", register, self.random.choice((0, 8, 9)))

    def access(self, register: int, offset: int) -> None:
        if self.random.random() < 0.3:
            self.raw(self.random.choice(STORES), register, self.register(), offset, self.random.choice(EDGES))
        elif self.random.random() < 0.1:
            rows = [row for row in ROWS if row.kind is Kind.ATOMIC]
            self.raw(self.random.choice(rows), register, self.register(), offset)
        else:
            self.raw(self.random.choice(LOADS), self.register(), register, offset)


def random_module(random: Random, size: int = 12) -> Module:
    """A program of about `size` statements over raw memory or an XDP context, lifted."""
    is_raw = random.random() < 0.5
    writer = _Writer(random, is_raw)
    writer.put("mov64 reg", 6, 1)
    if is_raw:
        writer.put("mov64 reg", 7, 2)
    else:
        writer.put("ldx32", 7, 6, 4)
    for register in FREE:
        writer.put("ldx64" if random.random() < 0.3 else "mov64 imm", register, 10, -64, random.choice(EDGES))
        if writer.insns[-1].opcode == ROW_BY_NAME["mov64 imm"].opcode:
            writer.insns[-1] = writer.insns[-1]._replace(src=0, offset=0)
        else:
            writer.insns[-1] = writer.insns[-1]._replace(imm=0)
    for register in (8, 9):
        writer.put("call helper", imm=7)
        writer.put("mov64 reg", register, 0)
    writer.fill()
    writer.statements(size, 0)
    writer.put("mov64 imm", 0)
    writer.put("exit")
    functions = [FunctionInfo("main", 0, writer.slots, is_global=True)]
    start = writer.slots
    if writer.calls:
        writer.in_main = False
        writer.put("mov64 reg", 6, 1)
        writer.put("mov64 reg", 7, 2)
        for register in FREE:
            if register not in (1, 2):
                writer.put("mov64 imm", register, imm=random.choice(EDGES))
        writer.statements(size // 2, 1)
        writer.put("exit")
        functions.append(FunctionInfo("callee", start, writer.slots - start, is_global=False))
        slots = 0
        for number, insn in enumerate(writer.insns):
            if number in writer.calls:
                writer.insns[number] = insn._replace(src=1, imm=start - slots - 1)
            slots += insn.slots
    insns = tuple(_legal(insn) for insn in writer.insns)
    program = Program(
        "main",
        "xdp",
        ProgramType.UNSPEC if is_raw else ProgramType.XDP,
        insns,
        tuple(functions),
        references=writer.references,
        big_endian=random.random() < 0.2,
    )
    context: ContextLayout = RAW if is_raw else XDP_MD
    return lift(program, MAPS, context)


def _legal(insn: Insn) -> Insn:
    """Map references keep their kind in the source field."""
    if insn.opcode == ROW_BY_NAME["lddw map_fd"].opcode:
        return insn._replace(src=insn.src or Wide.MAP_FD.value)
    return insn
