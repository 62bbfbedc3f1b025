"""Runs a module in SSA form on real numbers and compares every step with what the analysis claimed.

Addresses are numbers spread far apart, memory is byte arrays. An unproved access outside of all memory does
nothing, so that a run goes on. A claim that a run contradicts raises Contradiction: a value outside its
range, a proved access outside its area, an impossible way gone, a loop that runs longer than its bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Literal

from ir.algebra import Integers, signed
from ir.context import Pointer as PacketField
from ir.core import (
    Address,
    Alu,
    Atomic,
    Block,
    Branch,
    Call,
    Const,
    Edge,
    Frame,
    Function,
    Inst,
    Jump,
    Load,
    Module,
    PacketLoad,
    Return,
    Store,
    Value,
)
from ir.isa import Callee, compute
from ir.object import ReferenceKind
from ir.regions import RegionKind, Regions
from ir.verify.facts import Facts
from ir.verify.loops import Loops
from ir.verify.scalar import Scalar
from ir.verify.values import Known

U64 = (1 << 64) - 1
FRAME_SIZE = 512


class Contradiction(AssertionError):  # noqa: N818  # what it is, not what went wrong in the code
    """The analysis claimed something that a run shows to be false."""


class Trap(Exception):  # noqa: N818  # the end of a run, not an error
    """The run was too long, or met something that this machine does not do."""


@dataclass(eq=False)
class Memory:
    """A stretch of memory; `kind` and `name` say which areas of the analysis it may be."""

    base: int
    data: bytearray
    kind: RegionKind
    name: str = ""
    writable: bool = True


@dataclass(eq=False)
class Machine:
    """One run. `packet` is the packet's data if the module has a packet context, else the raw memory."""

    module: Module
    facts: Facts
    random: Random
    packet: bytes
    fuel: int = 150
    memories: list[Memory] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self.algebra = Integers(self.module.program.big_endian)
        self.regions = Regions(self.module)
        self.order: Literal["big", "little"] = "big" if self.module.program.big_endian else "little"
        self.loops = {name: Loops(f, f.reverse_postorder()) for name, f in self.module.functions.items()}
        self.values: dict[str, Memory] = {}
        self.elements: dict[str, list[Memory]] = {}

    def run(self) -> int:
        """r0 of the main function, or a Trap or Contradiction."""
        if self.module.context.is_raw:
            self.main = self.add(RegionKind.MEMORY, bytearray(self.packet))
            return self.call(self.module.main, [self.main.base, len(self.packet)])
        self.main = self.add(RegionKind.PACKET, bytearray(self.packet))
        self.context = self.add(RegionKind.CONTEXT, bytearray(256))
        return self.call(self.module.main, [self.context.base])

    def add(self, kind: RegionKind, data: bytearray, name: str = "", writable: bool = True) -> Memory:
        """New memory at an address of its own."""
        memory = Memory(
            (len(self.memories) + 1) << 44 | self.random.randrange(1 << 20) << 3, data, kind, name, writable
        )
        self.memories.append(memory)
        return memory

    def call(self, function: Function, arguments: list[int]) -> int:
        """Run a function."""
        frame = self.add(RegionKind.FRAME, bytearray(FRAME_SIZE), function.name)
        values: dict[Value, int] = dict(zip(function.params, arguments, strict=False))
        for param in function.params:
            self.check(param, values[param])
        block: Block = function.entry
        trips: dict[Block, int] = {}
        loops = self.loops[function.name]
        while True:
            if not self.facts.is_reached(block):
                raise Contradiction(f"block at {block.start} was not to be reached")
            for inst in block.insts:
                self.steps += 1
                values[inst] = self.step(inst, values, frame)
                self.check(inst, values[inst])
            terminator = block.terminator
            if isinstance(terminator, Return):
                frame.data.clear()
                return self.value(values, terminator.value)
            edge = self.edge(block, values)
            back = loops.number[edge.block] <= loops.number[block]
            if back:
                self.fuel -= 1
                if self.fuel < 0:
                    raise Trap("fuel")
                trips[edge.block] = trips.get(edge.block, 0) + 1
                bound = self.facts.trips.get(edge.block)
                if bound is not None and trips[edge.block] > bound:
                    raise Contradiction(
                        f"{trips[edge.block]} trips to block at {edge.block.start}, bound {bound}"
                    )
            elif edge.block in loops.heads:
                trips[edge.block] = 0
            arguments = [self.value(values, arg) for arg in edge.args]
            block = edge.block
            for param, argument in zip(block.params, arguments, strict=True):
                values[param] = argument
                self.check(param, argument)

    def edge(self, block: Block, values: dict[Value, int]) -> Edge:
        """The way out of a block."""
        terminator = block.terminator
        if isinstance(terminator, Jump):
            return terminator.edge
        assert isinstance(terminator, Branch)
        x, y = self.value(values, terminator.x), self.value(values, terminator.y)
        taken = bool(compute(terminator.row, self.algebra, x, y))
        if self.facts.outcome(terminator) not in (None, taken):
            raise Contradiction(f"branch at {terminator.at} went the impossible way")
        return terminator.taken if taken else terminator.other

    def value(self, values: dict[Value, int], value: Value) -> int:
        """The number that `value` is now."""
        return value.value if isinstance(value, Const) else values[value]

    def check(self, value: Value, number: int) -> None:
        """Compare a number with what is claimed of its value."""
        known = self.facts.value(value)
        if not self.agrees(known, number):
            raise Contradiction(f"{value} is {number:#x}, claimed {known}")

    def agrees(self, known: Known, number: int) -> bool:
        """Whether the claim allows the number."""
        if isinstance(known, Scalar):
            return known.contains(number)
        if known.is_nullable and not number:
            return True
        for memory in self.memories:
            area = known.area
            if area.kind.name != memory.kind.name or area.name not in ("", memory.name, "caller"):
                continue
            if area.name == "caller" or known.span.contains(number - memory.base & U64):
                return True
        return known.area.kind.name == RegionKind.MAP.name

    def step(self, inst: Inst, values: dict[Value, int], frame: Memory) -> int:
        """Execute one instruction; its result, 0 when it has none."""
        match inst:
            case Const(value):
                return value
            case Frame():
                return frame.base + FRAME_SIZE
            case Address():
                return self.address(inst)
            case Alu(row, x, y):
                number: int = compute(row, self.algebra, self.value(values, x), self.value(values, y))
                return number
            case Load():
                return self.load(inst, values)
            case Store(row, _, _, value):
                place = self.place(inst, values)
                if place is None:
                    return 0
                memory, at = place
                stored = self.value(values, value) & ((1 << 8 * row.size) - 1)
                memory.data[at : at + row.size] = stored.to_bytes(row.size, self.order)
                return 0
            case Atomic():
                return self.atomic(inst, values)
            case Call():
                return self.do_call(inst, values)
            case PacketLoad():
                raise Trap("packet load")

    def place(self, inst: Load | Store | Atomic, values: dict[Value, int]) -> tuple[Memory, int] | None:
        """The memory and byte that an access touches, None when there is none; proved accesses touch some."""
        address = self.value(values, inst.base) + inst.offset & U64
        writes = not isinstance(inst, Load)
        for memory in self.memories:
            at = address - memory.base
            if 0 <= at <= len(memory.data) - inst.row.size and (memory.writable or not writes):
                return memory, at
        if self.facts.is_proved(inst):
            raise Contradiction(f"proved access at {inst.at} is outside: {address:#x}")
        return None

    def load(self, inst: Load, values: dict[Value, int]) -> int:
        """Load, converting the packet pointers of the context."""
        size = inst.row.size
        place = self.place(inst, values)
        if place is None:
            return self.random.getrandbits(8 * size - int(inst.row.signed))
        memory, at = place
        if self.regions.of(inst.base).kind is RegionKind.CONTEXT and size == 4:
            field_ = self.module.context.pointers.get(at)
            if field_ in (PacketField.DATA, PacketField.DATA_META):
                return self.main.base
            if field_ is PacketField.DATA_END:
                return self.main.base + len(self.main.data)
        number = int.from_bytes(memory.data[at : at + size], self.order)
        return signed(8 * size, number) & U64 if inst.row.signed else number

    def atomic(self, inst: Atomic, values: dict[Value, int]) -> int:
        """A read, a computation and a write."""
        row = inst.row
        place = self.place(inst, values)
        if place is None:
            return 0
        memory, at = place
        old = int.from_bytes(memory.data[at : at + row.size], self.order)
        value = self.value(values, inst.value) & ((1 << 8 * row.size) - 1)
        if inst.expected is not None:
            expected = self.value(values, inst.expected) & ((1 << 8 * row.size) - 1)
            new = value if old == expected else old
        else:
            assert row.meaning is not None
            new = row.meaning(self.algebra, row.bits, old, value)
        memory.data[at : at + row.size] = new.to_bytes(row.size, self.order)
        return old

    def address(self, inst: Address) -> int:
        """The address of a map's value; that of a map is a number of no use."""
        name = inst.reference.name
        if inst.reference.kind is ReferenceKind.MAP:
            return 1 << 60 | list(self.module.maps).index(name) << 8
        map_ = self.module.maps[name]
        if name not in self.values:
            data = bytearray(self.random.randbytes(map_.value_size))
            self.values[name] = self.add(RegionKind.MAP_VALUE, data, name, not map_.is_read_only)
        return self.values[name].base + inst.reference.offset

    def do_call(self, inst: Call, values: dict[Value, int]) -> int:
        """Call a subprogram or one of the helpers that random programs call."""
        arguments = [self.value(values, arg) for arg in inst.args]
        if inst.callee is Callee.SUBPROGRAM:
            assert isinstance(inst.target, str)
            return self.call(self.module.functions[inst.target], arguments)
        match inst.target:
            case 1:
                return self.look_up(arguments[0])
            case 7:
                return self.random.getrandbits(32)
            case 44:
                data = bytearray(self.random.randbytes(self.random.randrange(80)))
                self.main.data.clear()
                self.main = self.add(RegionKind.PACKET, data)
                return self.random.choice((0, U64 - 21))
        raise Trap(f"call of {inst.target}")

    def look_up(self, address: int) -> int:
        """Some value of a map, or NULL."""
        number = address >> 8 & 0xFFFF
        if (
            address >> 60 != 1
            or address & 255
            or number >= len(self.module.maps)
            or self.random.random() < 0.2
        ):
            return 0
        name = list(self.module.maps)[number]
        found = self.elements.setdefault(name, [])
        if len(found) < 3:
            size = self.module.maps[name].value_size
            found.append(self.add(RegionKind.MAP_VALUE, bytearray(self.random.randbytes(size)), name))
        return self.random.choice(found).base
