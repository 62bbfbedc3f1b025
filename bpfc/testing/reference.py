"""What a case does by the reference: the interpreter, or the evaluator of the SSA form, with maps and helpers in Python.

0x1_0000_0000   the packet or memory, with head and tail room around it
0x2_0000_0000   the context
0x3_0000_0000   maps: map n at n << 24, elements a page apart, or somewhat more
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from errno import E2BIG, EEXIST, EFAULT, EINVAL, ENOENT
from typing import Any, Final, final

from bpfc.testing.case import Case
from bpfc.testing.shapes.functions import KFUNC
from ir.algebra import signed
from ir.context import HEADER, Pointer, layout_of
from ir.core import Module
from ir.diagnostics import TrapError
from ir.environment import STACK_BASE, Environment, Helper, Trace
from ir.evaluate import Evaluator
from ir.interpreter import Machine
from ir.kinds import MapType
from ir.maps import PAGE
from ir.object import Map, Reference, ReferenceKind
from ir.segments import Memory, Segment, make_segment

PACKET_BASE: Final = 0x1_0000_0000
CONTEXT_BASE: Final = 0x2_0000_0000
MAPS_BASE: Final = 0x3_0000_0000
VARIABLE_BASE: Final = 0x4_0000_0000  # of the kernel's one variable
MOST_LOOPS: Final = 1 << 23
HEAD_ROOM: Final = 256
TAIL_ROOM: Final = 320
XDP_FRAME: Final = 40
ETH_HLEN: Final = 14
FUEL: Final = 20_000
SEED: Final = 0x9E37_79B9_7F4A_7C15
U64: Final = (1 << 64) - 1
LINE_BITS: Final = 0xFC0
_ELSEWHERE: Final = 0x12_3456_7890  # changes the upper half of an address, and the lower


def mix(x: int, y: int, *_: int) -> int:
    """What the one kernel function of campaigns does."""
    return (x * 0x9E37_79B9_7F4A_7C15 ^ y >> 7) & U64


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one run: r0, or the code of its trap; and the packet or memory as it was left."""

    ret: int | str
    data: bytes


@final
@dataclass(frozen=True, slots=True)
class Observed:
    """Of all runs of a case: their outcomes, what is in the maps at the end, instructions executed."""

    outcomes: tuple[Outcome, ...]
    maps: Mapping[str, object]
    insns: int = 0


@final
@dataclass(eq=False, slots=True)
class Store:
    """The content of one map: elements by key, each a segment of its own."""

    declared: Map
    base: int
    distance: int
    elements: dict[bytes, Segment] = field(default_factory=dict)
    made: int = 0

    def insert(self, memory: Memory, key: bytes, value: bytes) -> None:
        """A new element."""
        self.made += 1
        writable = not self.declared.is_read_only
        element = make_segment(
            self.base + self.made * self.distance,
            bytearray(value),
            f"an element of {self.declared.name}",
            writable,
        )
        self.elements[key] = element
        memory.add(element)


@final
class World:
    """Maps, random numbers and packet of a case, between runs and during one; all addresses `shift` further on,
    and elements of maps further from each other.
    """

    def __init__(
        self, case: Case, flipped: frozenset[int] = frozenset(), trace: Trace | None = None, shift: int = 0
    ) -> None:
        assert case.program is not None, "a case of instructions"
        self.program = case.program
        self.layout = layout_of(self.program.type)
        self.memory = Memory(big_endian=self.program.big_endian)
        self.flipped, self.trace = flipped, trace
        self.stores: dict[str, Store] = {}
        self._packet_base = PACKET_BASE + shift
        self._stack = STACK_BASE + shift
        self._rng = SEED
        self._packet: Segment | None = None
        self._buffer = bytearray()
        self._start = self._end = 0
        self._context = make_segment(
            CONTEXT_BASE + shift, bytearray(HEADER + self.layout.size), "the context", self.layout.size > 0
        )
        if not self.layout.is_raw:
            self.memory.add(self._context)
        for number, (name, map_) in enumerate(case.maps.items(), 1):
            distance = PAGE + (shift & LINE_BITS)
            store = self.stores[name] = Store(map_, MAPS_BASE + shift + (number << 24), distance)
            if map_.type is MapType.ARRAY:
                initial = map_.initial or bytes(map_.value_size)
                for index in range(map_.max_entries):
                    store.insert(self.memory, index.to_bytes(4, self.memory.order), initial)

    def interpret(self, data: bytes) -> tuple[Outcome, int]:
        """One run by the interpreter, and the instructions it took."""
        machine = Machine(self.program, self.memory, self._environment(), self._prepare(data))
        outcome = self._observe(lambda: machine.run(*self._arguments(data)).ret)
        return outcome, machine.insns

    def evaluate(self, module: Module, data: bytes) -> Outcome:
        """One run of the SSA form."""
        evaluator = Evaluator(module, self.memory, self._environment(), self._prepare(data))
        return self._observe(lambda: evaluator.run(*self._arguments(data)))

    def contents(self) -> dict[str, object]:
        """What is in the maps: bytes of the values in order, or by key."""
        return {
            name: b"".join(bytes(element.data) for element in store.elements.values())
            if store.declared.type is MapType.ARRAY
            else {key: bytes(element.data) for key, element in store.elements.items()}
            for name, store in self.stores.items()
        }

    def _arguments(self, data: bytes) -> tuple[int, ...]:
        return (self._packet_base + HEAD_ROOM if data else 0, len(data)) if self.layout.is_raw else ()

    def _prepare(self, data: bytes) -> Segment | None:
        """Lay the packet out and point the context at it."""
        self._buffer = bytearray(HEAD_ROOM) + bytearray(data) + bytearray(TAIL_ROOM)
        self._move(HEAD_ROOM, HEAD_ROOM + len(data))
        if self.layout.is_raw:
            return None
        image = self._context.data
        image[HEADER:] = bytes(self.layout.size)
        if "len" in self.layout.fields:
            offset, size = self.layout.fields["len"]
            image[HEADER + offset : HEADER + offset + size] = len(data).to_bytes(size, self.memory.order)
        return self._context

    def _move(self, start: int, end: int) -> None:
        """The packet is bytes [start, end) of its buffer now."""
        if self._packet is not None:
            self.memory.remove(self._packet)
            self._packet = None
        self._start, self._end = start, end
        if end > start:
            view = memoryview(self._buffer)[start:end]
            self._packet = make_segment(self._packet_base + start, view, "the packet")
            self.memory.add(self._packet)
        order = "<" if self.memory.order == "little" else ">"
        for pointer, place in ((Pointer.DATA, start), (Pointer.DATA_META, start), (Pointer.DATA_END, end)):
            struct.pack_into(order + "Q", self._context.data, pointer.value, self._packet_base + place)

    def _observe(self, run: Callable[[], int]) -> Outcome:
        try:
            ret: int | str = run()
        except TrapError as trap:
            ret = trap.diagnostics[0].code
            for segment in [each for each in self.memory if each.name.startswith("the stack")]:
                self.memory.remove(segment)
        return Outcome(ret, bytes(self._buffer[self._start : self._end]))

    def _environment(self) -> Environment:
        helpers: dict[int, Helper] = {
            1: self._look_up,
            2: self._update,
            3: self._delete,
            7: self._random,
            26: self._load_bytes,
            44: self._adjust_head,
            65: self._adjust_tail,
            181: self._loop,
            189: self._load_xdp_bytes,
        }
        kfuncs: dict[str, Helper] = {KFUNC: lambda machine, *arguments: mix(*arguments)}
        return Environment(
            helpers, kfuncs, self._resolve, self.flipped, FUEL, trace=self.trace, stack=self._stack
        )

    def _resolve(self, reference: Reference) -> int:
        if reference.kind is ReferenceKind.KSYM:
            return VARIABLE_BASE
        store = self.stores[reference.name]
        if reference.kind is ReferenceKind.MAP:
            return store.base
        return next(iter(store.elements.values())).base + reference.offset

    def _store_at(self, address: int) -> Store:
        return next(store for store in self.stores.values() if store.base == address)

    def _key(self, store: Store, address: int) -> bytes:
        return bytes(self.memory.view(address, store.declared.key_size))

    def _look_up(self, machine: Any, map: int, key: int, *_: int) -> int:
        store = self._store_at(map)
        element = store.elements.get(self._key(store, key))
        return element.base if element is not None else 0

    def _update(self, machine: Any, map: int, key: int, value: int, flags: int, *_: int) -> int:
        store = self._store_at(map)
        name = self._key(store, key)
        content = bytes(self.memory.view(value, store.declared.value_size))
        element = store.elements.get(name)
        if flags > 2:
            return -EINVAL & U64
        if store.declared.type is MapType.ARRAY:
            if element is None:
                return -E2BIG & U64
            if flags == 1:
                return -EEXIST & U64
        elif element is not None and flags == 1:
            return -EEXIST & U64
        elif element is None and flags == 2:
            return -ENOENT & U64
        if element is not None:
            element.data[:] = content
        elif len(store.elements) == store.declared.max_entries:
            return -E2BIG & U64
        else:
            store.insert(self.memory, name, content)
        return 0

    def _delete(self, machine: Any, map: int, key: int, *_: int) -> int:
        store = self._store_at(map)
        if store.declared.type is MapType.ARRAY:
            return -EINVAL & U64
        element = store.elements.pop(self._key(store, key), None)
        if element is None:
            return -ENOENT & U64
        self.memory.remove(element)
        return 0

    def _random(self, machine: Any, *_: int) -> int:
        """splitmix64, as compiled code has it (backends/helpers/run_state.py)."""
        self._rng = (self._rng + 0x9E3779B97F4A7C15) & U64
        x = (self._rng ^ (self._rng >> 30)) * 0xBF58476D1CE4E5B9 & U64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & U64
        return (x ^ (x >> 31)) >> 32

    def _load_bytes(self, machine: Any, context: int, offset: int, to: int, size: int, *_: int) -> int:
        offset, size = offset & 0xFFFF_FFFF, size & 0xFFFF_FFFF
        target = self.memory.view(to, size, write=True)
        if offset + size > self._end - self._start:
            target[:] = bytes(size)
            return -EFAULT & U64
        target[:] = self._buffer[self._start + offset : self._start + offset + size]
        return 0

    def _loop(self, machine: Any, times: int, callback: int, context: int, flags: int, *_: int) -> int:
        times &= 0xFFFF_FFFF
        if flags:
            return -EINVAL & U64
        if times > MOST_LOOPS:
            return -E2BIG & U64
        for number in range(times):
            if machine.call(callback, number, context):
                return number + 1
        return times

    def _load_xdp_bytes(self, machine: Any, context: int, offset: int, to: int, size: int, *_: int) -> int:
        offset, size = offset & 0xFFFF_FFFF, size & 0xFFFF_FFFF
        target = self.memory.view(to, size, write=True)
        if offset + size > self._end - self._start:
            return -EINVAL & U64
        target[:] = self._buffer[self._start + offset : self._start + offset + size]
        return 0

    def _adjust_head(self, machine: Any, context: int, delta: int, *_: int) -> int:
        start = self._start + signed(32, delta)
        if start < XDP_FRAME or start > self._end - ETH_HLEN:
            return -EINVAL & U64
        self._move(start, self._end)
        return 0

    def _adjust_tail(self, machine: Any, context: int, delta: int, *_: int) -> int:
        step = signed(32, delta)
        end = self._end + step
        if end > len(self._buffer) or end < self._start + ETH_HLEN:
            return -EINVAL & U64
        if step > 0:
            self._buffer[self._end : end] = bytes(step)
        self._move(self._start, end)
        return 0


def interpret(
    case: Case, flipped: frozenset[int] = frozenset(), trace: Trace | None = None, shift: int = 0
) -> Observed:
    """Every run of a case by the interpreter."""
    world = World(case, flipped, trace, shift)
    runs = [world.interpret(data) for data in case.inputs]
    return Observed(tuple(outcome for outcome, _ in runs), world.contents(), sum(insns for _, insns in runs))


def shows_addresses(case: Case) -> bool:
    """Whether what the case does depends on where its memory is: then nobody need do the same."""
    return interpret(case) != interpret(case, shift=_ELSEWHERE)


def evaluate(case: Case, module: Module, flipped: frozenset[int] = frozenset()) -> Observed:
    """Every run of a case by its SSA form."""
    world = World(case, flipped)
    return Observed(tuple(world.evaluate(module, data) for data in case.inputs), world.contents())
