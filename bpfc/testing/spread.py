"""Runs a module in SSA form on numbers, each object of memory at addresses of its own, while watchers look on.

Objects lie 2^44 bytes apart, so that an address tells which object it means even when it points outside of
it. What programs do not decide (contents of maps, random numbers, whether a lookup finds something, how a
packet moves) is drawn. An access outside of all objects is a Fault, unless `is_lenient`: then it does
nothing, for programs that nobody proved safe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal, Protocol, final

from bpfc.testing.author import WIDE_EDGES, draw_bytes
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
    MayGoto,
    Module,
    PacketLoad,
    Return,
    StaticBranch,
    Store,
    Value,
)
from ir.isa import Callee
from ir.kinds import MapType
from ir.object import Map, ReferenceKind
from ir.region import RegionKind
from ir.row_functions import row_functions

U64: Final = (1 << 64) - 1
FRAME_SIZE: Final = 512
APART: Final = 44  # bits of an address that are the offset into an object
_MAPS: Final = 1 << 16  # numbers of "objects" that are maps themselves
_FUNCTIONS: Final = 1 << 17  # and of those that are functions
_DEPTH: Final = 8
EFAULT: Final = 14
EINVAL: Final = 22
LOOKUP, UPDATE, DELETE, PRANDOM = 1, 2, 3, 7
LOAD_BYTES, XDP_LOAD_BYTES, ADJUST_HEAD, ADJUST_TAIL = 26, 189, 44, 65


class Contradiction(Exception):  # noqa: N818  # what it is, not what went wrong in the code
    """A run did what was claimed never to happen. `slot` is the instruction it happened at, `what` its sort."""

    def __init__(self, what: str, said: str, slot: int = -1) -> None:
        super().__init__(said)
        self.what, self.slot = what, slot


class Left(Exception):  # noqa: N818  # the end of a run, not an error
    """The run ended before the program did: it was too long, or met something that this machine does not do."""


@final
@dataclass(eq=False, slots=True)
class Thing:
    """An object of memory; `kind` and `name` say which areas of an analysis it may be."""

    base: int
    data: bytearray
    kind: RegionKind
    name: str = ""
    writable: bool = True


_NOTHING: Final = Thing(0, bytearray(), RegionKind.UNKNOWN)


@final
@dataclass(eq=False, slots=True)
class Activation:
    """One call of a function: its frame and the numbers its values have."""

    function: Function
    frame: Thing
    values: dict[Value, int]
    caller: Activation | None
    trips: dict[Block, int] = field(default_factory=dict)


class Watcher(Protocol):
    """Looks at a run, and raises Contradiction."""

    def enter(self, run: Run, here: Activation, block: Block) -> None:
        """Control arrived at a block; its parameters have their numbers."""

    def after(self, run: Run, here: Activation, inst: Inst) -> None:
        """An instruction was executed; its result is in `here.values`."""

    def leave(self, run: Run, here: Activation, block: Block, edge: Edge) -> None:
        """Control takes `edge` out of a block."""


@final
class Run:
    """One run of a module over `packet`, which is the raw memory if the module has no context.

    `written`: the object that an instruction wrote into last, and which bytes of it, from and up to.
    """

    def __init__(
        self,
        module: Module,
        random: Random,
        packet: bytes,
        watchers: tuple[Watcher, ...] = (),
        fuel: int = 3000,
        is_lenient: bool = False,
    ) -> None:
        self.module, self.random, self.watchers = module, random, watchers
        self.fuel, self.is_lenient = fuel, is_lenient
        self.order: Literal["big", "little"] = "big" if module.program.big_endian else "little"
        self.steps = 0
        self.things: list[Thing] = []
        self.written: tuple[Thing, int, int] = (_NOTHING, 0, 0)
        self._algebra = Integers(module.program.big_endian)
        self._functions = row_functions(module.program.big_endian)
        self._maps = list(module.maps)
        self._values: dict[str, Thing] = {}
        self._elements: dict[str, list[Thing]] = {}
        self._depth = 0
        kind = RegionKind.MEMORY if module.context.is_raw else RegionKind.PACKET
        self.main = self.add(kind, bytearray(packet))
        self.meta = b""

    def run(self) -> int:
        """r0 of the main function; Left or Contradiction."""
        if self.module.context.is_raw:
            return self._call(self.module.main, [self.main.base, len(self.main.data)], None)
        size = self.module.context.size
        context = self.add(RegionKind.CONTEXT, bytearray(self.content(size)))
        return self._call(self.module.main, [context.base], None)

    def add(self, kind: RegionKind, data: bytearray, name: str = "", writable: bool = True) -> Thing:
        """A new object."""
        number = len(self.things) + 1
        base = number << APART | self.random.randrange(1 << 20) << 4 | 1 << 40
        thing = Thing(base, data, kind, name, writable)
        self.things.append(thing)
        return thing

    def thing_at(self, address: int) -> Thing | None:
        """The object that an address means, inside of it or not."""
        number = (address >> APART) - 1
        return self.things[number] if 0 <= number < len(self.things) else None

    def map_at(self, address: int) -> Map | None:
        """The map whose own address this is."""
        number = (address >> APART) - _MAPS + 1
        if address & (1 << APART) - 1 or not 1 <= number <= len(self._maps):
            return None
        return self.module.maps[self._maps[number - 1]]

    def content(self, size: int) -> bytes:
        """Bytes that nobody decides."""
        return draw_bytes(self.random, size)

    def _call(self, function: Function, arguments: list[int], caller: Activation | None) -> int:
        if self._depth == _DEPTH:
            raise Left("calls nest too deep")
        self._depth += 1
        frame = self.add(RegionKind.FRAME, bytearray(self.random.randbytes(FRAME_SIZE)), function.name)
        here = Activation(function, frame, dict(zip(function.params, arguments, strict=False)), caller)
        result = self._run(here)
        frame.data.clear()
        self._depth -= 1
        return result

    def _run(self, here: Activation) -> int:
        block, values, watchers = here.function.entry, here.values, self.watchers
        functions = self._functions
        while True:
            for watcher in watchers:
                watcher.enter(self, here, block)
            for inst in block.insts:
                if type(inst) is Const:
                    continue
                if type(inst) is Alu:
                    x, y = inst.x, inst.y
                    values[inst] = functions[inst.row.name](
                        x.value if type(x) is Const else values[x], y.value if type(y) is Const else values[y]
                    )
                elif (result := self._step(inst, here)) is not None:
                    values[inst] = result
                for watcher in watchers:
                    watcher.after(self, here, inst)
            self.steps += len(block.insts) + 1
            terminator = block.terminator
            if type(terminator) is Return:
                return self.number(here, terminator.value)
            edge = self._edge(here, block)
            for watcher in watchers:
                watcher.leave(self, here, block, edge)
            self.fuel -= 1
            if self.fuel < 0:
                raise Left("too many jumps")
            args = [self.number(here, arg) for arg in edge.args]
            block = edge.block
            values.update(zip(block.params, args, strict=True))

    def _edge(self, here: Activation, block: Block) -> Edge:
        terminator = block.terminator
        if type(terminator) is Branch:
            x, y = self.number(here, terminator.x), self.number(here, terminator.y)
            return terminator.taken if self._functions[terminator.row.name](x, y) else terminator.other
        if type(terminator) is Jump:
            return terminator.edge
        assert isinstance(terminator, StaticBranch | MayGoto)
        return terminator.taken if self.random.random() < 0.3 else terminator.other

    def number(self, here: Activation, value: Value) -> int:
        """The number that `value` is now."""
        return value.value if type(value) is Const else here.values[value]

    def _step(self, inst: Inst, here: Activation) -> int | None:
        """Execute an instruction; its result, None when it has none."""
        match inst:
            case Frame():
                return here.frame.base + FRAME_SIZE
            case Load():
                return self._load(inst, here)
            case Store(row, _, _, value):
                place = self._place(inst, here)
                if place is not None:
                    thing, at = place
                    stored = self.number(here, value) & ((1 << 8 * row.size) - 1)
                    self._write(thing, at, stored.to_bytes(row.size, self.order))
                return None
            case Address():
                return self._address(inst)
            case Atomic():
                return self._atomic(inst, here)
            case Call():
                return self._do_call(inst, here)
            case PacketLoad():
                return self.random.getrandbits(8 * inst.row.size)
            case _:
                raise AssertionError(inst)

    def _write(self, thing: Thing, at: int, data: bytes) -> None:
        end = at + len(data)
        thing.data[at:end] = data
        self.written = thing, at, end

    def _place(self, inst: Load | Store | Atomic, here: Activation) -> tuple[Thing, int] | None:
        """The object and byte that an access touches, None when there is none."""
        address = self.number(here, inst.base) + inst.offset & U64
        thing = self.thing_at(address)
        if thing is not None:
            at = address - thing.base
            if 0 <= at <= len(thing.data) - inst.row.size and (thing.writable or type(inst) is Load):
                return thing, at
        if self.is_lenient:
            return None
        where = (
            f"byte {address - thing.base} of {len(thing.data)} of the {thing.kind.name}"
            if thing
            else "no object"
        )
        raise Contradiction("fault", f"{inst.row.name} at {inst.at} accesses {where}", inst.at)

    def _load(self, inst: Load, here: Activation) -> int:
        size = inst.row.size
        place = self._place(inst, here)
        if place is None:
            return self.random.getrandbits(8 * size - int(inst.row.signed))
        thing, at = place
        if thing.kind is RegionKind.CONTEXT and size == 4 and not inst.row.signed:
            pointer = self.module.context.pointers.get(at)
            if pointer in (PacketField.DATA, PacketField.DATA_META):
                return self.main.base
            if pointer is PacketField.DATA_END:
                return self.main.base + len(self.main.data)
        number = int.from_bytes(thing.data[at : at + size], self.order)
        return signed(8 * size, number) & U64 if inst.row.signed else number

    def _atomic(self, inst: Atomic, here: Activation) -> int:
        row = inst.row
        place = self._place(inst, here)
        if place is None:
            return 0
        thing, at = place
        ones = (1 << 8 * row.size) - 1
        old = int.from_bytes(thing.data[at : at + row.size], self.order)
        value = self.number(here, inst.value) & ones
        if inst.expected is not None:
            new = value if old == self.number(here, inst.expected) & ones else old
        else:
            assert row.meaning is not None
            new = row.meaning(self._algebra, row.bits, old, value)
        self._write(thing, at, new.to_bytes(row.size, self.order))
        return old

    def _address(self, inst: Address) -> int:
        name = inst.reference.name
        if inst.reference.kind is ReferenceKind.FUNCTION:
            return _FUNCTIONS + list(self.module.functions).index(name) << APART
        if inst.reference.kind is ReferenceKind.MAP:
            return _MAPS + self._maps.index(name) << APART
        map_ = self.module.maps[name]
        thing = self._values.get(name)
        if thing is None:
            constant = map_.is_read_only and map_.initial is not None
            data = bytearray(map_.initial or b"") if constant else bytearray(self.content(map_.value_size))
            thing = self._values[name] = self.add(RegionKind.MAP_VALUE, data, name, not map_.is_read_only)
        return thing.base + inst.reference.offset

    def _do_call(self, inst: Call, here: Activation) -> int:
        arguments = [self.number(here, arg) for arg in inst.args]
        if inst.callee is Callee.SUBPROGRAM:
            assert isinstance(inst.target, str)
            return self._call(self.module.functions[inst.target], arguments, here)
        match inst.target:
            case 1:
                return self._look_up(*arguments[:2])
            case 2 | 3:
                return self.random.choice((0, 0, U64 - 1, U64 - 16))
            case 7:
                number = (
                    self.random.choice(WIDE_EDGES)
                    if self.random.random() < 0.7
                    else self.random.getrandbits(32)
                )
                return number & 0xFFFF_FFFF
            case 26 | 189:
                return self._load_bytes(arguments)
            case 44 | 65:
                return self._move_packet()
            case 181:
                return self._loop(arguments, here)
        raise Left(f"call of {inst.target}")

    def _look_up(self, address: int, key: int) -> int:
        map_ = self.map_at(address)
        if map_ is None:
            return 0
        if map_.type is MapType.ARRAY:
            thing = self.thing_at(key)
            at = key - thing.base if thing is not None else 0
            index = int.from_bytes(thing.data[at : at + 4], self.order) if thing is not None else U64
            if index >= map_.max_entries:
                return 0
        elif self.random.random() < 0.3:
            return 0
        found = self._elements.setdefault(map_.name, [])
        if len(found) < 3:
            found.append(self.add(RegionKind.MAP_VALUE, bytearray(self.content(map_.value_size)), map_.name))
        return self.random.choice(found).base

    def _load_bytes(self, arguments: list[int]) -> int:
        """Fill memory, if it is an object's, with bytes of the packet."""
        size = arguments[3] & 0xFFFF_FFFF
        thing = self.thing_at(arguments[2])
        at = arguments[2] - thing.base if thing is not None else -1
        if thing is None or not 0 <= at <= len(thing.data) - size:
            if self.is_lenient:
                return U64 - EFAULT + 1
            raise Contradiction("fault", f"a helper writes {size} bytes where there are none")
        is_found = self.random.random() < 0.8
        thing.data[at : at + size] = self.content(size) if is_found else bytes(size)
        return 0 if is_found else U64 - EFAULT + 1

    def _loop(self, arguments: list[int], here: Activation) -> int:
        """Call a function with its number of times and what it is to be given, until it returns 1."""
        times, callback, context, flags = arguments[:4]
        if flags:
            return U64 - EINVAL + 1
        function = list(self.module.functions.values())[(callback >> APART) - _FUNCTIONS]
        for number in range(times & 0xFFFF_FFFF):
            if self._call(function, [number, context, 0, 0, 0], here):
                return number + 1
        return times & 0xFFFF_FFFF

    def _move_packet(self) -> int:
        """The packet is another one now, of another size."""
        if self.random.random() < 0.2:
            return U64 - 21
        size = self.random.choice((14, 40, 63, 64, 65, 80, 100))
        self.main.data.clear()
        self.main = self.add(RegionKind.PACKET, bytearray(self.content(size)))
        return 0
