"""Running a compiled program once: the run state, the context, the packet buffer and what came out.

    packet buffer   | head room 256 | packet ... | tail room 320 |
                    ^ packet_start  ^ data       ^ data_end      ^ packet_end

One Execution belongs to one thread at a time; programs keep one per thread.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import EINVAL
from typing import Final, Literal, final

from backends import abi
from ir.context import HEADER, ContextLayout, Pointer
from ir.diagnostics import Diagnostic, Location, RejectedError, TrapError
from ir.hook_objects import RXQ_OFFSET
from runtime.limits import Limits
from runtime.words import word_type

HEAD_ROOM: Final = 256
TAIL_ROOM: Final = 320
_HEAD: Final = bytes(HEAD_ROOM)
_TAIL: Final = bytes(TAIL_ROOM)
_SAID: Final = {
    abi.Trap.MEMORY: ("out-of-bounds", "access outside the memory the program may touch"),
    abi.Trap.FUEL: ("out-of-fuel", "loop ran longer than the run's budget of back-edges"),
    abi.Trap.CALL: ("bad-call", "indirect call to something that is not a function"),
    abi.Trap.DEPTH: ("call-depth", "indirect calls nested too deep"),
    abi.Trap.HELPER: ("helper-failed", "helper failed"),
}

_QUEUE_FIELDS: Final = {"rx_queue_index", "ingress_ifindex"}

Native = Callable[..., int]
Allocator = Callable[[int], "ctypes.Array[ctypes.c_uint8]"]


@final
@dataclass(frozen=True, slots=True)
class RunResult:
    """What one run did.

    `ret` is r0 (64 bits; `verdict` its low 32), `data` the packet, memory or context afterwards, `ctx` the context's
    fields, `ns` the time in native code, `insns` the instructions executed (builds that count, else None), `printk` the
    lines printed, `redirect` the (kind, index, flags) that a redirect helper noted, or None, `steps` the machine
    instructions executed (under emulation, where they are counted).
    """

    ret: int
    data: bytes
    ctx: Mapping[str, int]
    ns: int
    insns: int | None = None
    printk: tuple[str, ...] = ()
    redirect: tuple[int, int, int] | None = None
    steps: int | None = None

    @property
    def verdict(self) -> int:
        """The low 32 bits of r0: an XDP action, a tc verdict."""
        return self.ret & 0xFFFF_FFFF


@final
@dataclass(frozen=True, slots=True)
class Segment:
    """Memory that a program may reach through a pointer of unknown origin: [start, end), in bytes.

    `map`: the address of the map whose values are there, of which a pointer reaches one; 0 for what is in one piece.
    """

    start: int
    end: int
    is_writable: bool = True
    map: int = 0

    @property
    def words(self) -> tuple[int, int, int]:
        """The row of the run's table (backends/abi.py)."""
        return self.start, self.end, self.map | abi.SEGMENT_WRITABLE * self.is_writable


@final
class Execution:
    """The memory of one run at a time: state, BPF stack, context and packet buffer.

    Safe because every address handed to native code is of a ctypes buffer that this object keeps alive, and the bounds
    written into the state and the context are those of the same buffers.
    """

    def __init__(
        self,
        layout: ContextLayout,
        segments: tuple[Segment, ...],
        big_endian: bool,
        limits: Limits,
        allocate: Allocator | None = None,
    ) -> None:
        self.layout, self.big_endian, self.limits = layout, big_endian, limits
        self.order: Literal["little", "big"] = "big" if big_endian else "little"
        self._allocate = allocate or _bytes
        self.state = self._allocate(abi.RUN_STATE_SIZE)
        self._stack = self._allocate(abi.STACK_SIZE)
        self._has_queue = layout.fields.keys() >= _QUEUE_FIELDS
        self._context = self._words((HEADER + layout.size + 7) // 8 + 3 * self._has_queue)
        self._packet = self._allocate(HEAD_ROOM + TAIL_ROOM)
        self._table = self._words(3 * (len(segments) + 2))
        self._table[6:] = [word for segment in segments for word in segment.words]
        self.run_address = ctypes.addressof(self.state)
        self.context_address = ctypes.addressof(self._context)
        self._rng = limits.seed
        self.printk: list[str] = []
        self.failure = ""
        self.raised: BaseException | None = None  # by a host helper, to come out of the run
        self._cpu = 0

    def run(self, native: Native, data: bytes, fields: Mapping[str, int]) -> RunResult:
        """Call `native` over a copy of `data`. Raises TrapError when the run ended at a check."""
        arguments = self.lay_out(data, fields)
        before = time.perf_counter_ns()
        ret = native(*arguments)
        elapsed = time.perf_counter_ns() - before
        return self._result(ret, elapsed, len(data))

    def lay_out(self, data: bytes, fields: Mapping[str, int]) -> tuple[int, ...]:
        """Put a copy of `data` and all else where the program finds it; the program's arguments."""
        self._load_packet(data)
        start = self.packet_address
        self.arm(start, len(data))
        if self.layout.is_raw:
            return self.run_address, start if data else 0, len(data)
        self._fill_context(start, data, fields)
        return self.run_address, self.context_address

    @property
    def packet_address(self) -> int:
        """Where the packet is before a run."""
        return ctypes.addressof(self._packet) + HEAD_ROOM

    def left(self, length: int) -> tuple[int, int]:
        """Where what the last run left begins and ends: the packet or memory, of `length` bytes before it, or the context."""
        if self.layout.pointers:
            return self._context[0], max(self._context[0], self._context[1])
        start = self.packet_address if self.layout.is_raw else self.context_address + HEADER
        return start, start + length

    def arm(self, start: int, length: int) -> None:
        """Reset the run state for memory at [start, start + length)."""
        state = self.state
        self._put(abi.FUEL, 8, self.limits.fuel)
        self._put(abi.TRAP_CODE, 8, 0)
        self._put(abi.CPU, 4, self._cpu)
        self.failure = ""
        self._put(abi.TAIL_CALLS, 4, abi.TAIL_CALL_LIMIT)
        self._put(abi.RNG, 8, self._rng)
        self._put(abi.DEPTH, 8, 8)
        self._put(abi.INSNS, 8, 0)
        self._put(abi.RETVAL, 8, 0)
        ctypes.memset(ctypes.addressof(state) + abi.REDIRECT, 0, 32)
        stack = ctypes.addressof(self._stack)
        self._put(abi.STACK, 8, stack + abi.STACK_SIZE)
        own = (Segment(start, start + length), Segment(stack, stack + abi.STACK_SIZE))
        self._table[:6] = [word for segment in own for word in segment.words]
        self._put(abi.SEGMENTS, 8, ctypes.addressof(self._table))
        self._put(abi.SEGMENT_COUNT, 8, len(self._table) // 3)
        self.printk.clear()

    def push(self, data: bytes) -> int:
        """Put bytes on the BPF stack, where programs may read them; their address. Until the next `arm`."""
        top = int.from_bytes(bytes(self.state[abi.STACK : abi.STACK + 8]), self.order)
        place = (top - len(data)) // 16 * 16
        # Safe because the BPF stack of a run that starts has room, and `top` is its upper end.
        ctypes.memmove(place, data, len(data))
        self._put(abi.STACK, 8, place)
        return place

    def trap(self) -> tuple[abi.Trap, int] | None:
        """(why, slot) when the last run ended at a check."""
        code = self._get(abi.TRAP_CODE, 4)
        return (abi.Trap(code), self._get(abi.TRAP_INSN, 4)) if code else None

    def set_cpu(self, cpu: int) -> None:
        """The processor number that the run sees."""
        self._cpu = cpu
        self._put(abi.CPU, 4, cpu)

    def helper_failed(self, why: str) -> None:
        """Note that a host helper failed: the run ends when it returns."""
        self.failure = why
        self._put(abi.TRAP_CODE, 4, abi.Trap.HELPER)

    def prepare_context(self, fields: Mapping[str, int]) -> int:
        """Fill the context image for a batch, whose loop sets the packet pointers; its address."""
        ctypes.memset(self.context_address, 0, ctypes.sizeof(self._context))
        self._set_fields(fields)
        if self._has_queue:
            self._set_queue(fields)
        return self.context_address

    def _put(self, offset: int, size: int, value: int) -> None:
        self.state[offset : offset + size] = list((value & (1 << 8 * size) - 1).to_bytes(size, self.order))

    def _get(self, offset: int, size: int) -> int:
        return int.from_bytes(bytes(self.state[offset : offset + size]), self.order)

    def _words(self, count: int) -> ctypes.Array[ctypes.c_uint64]:
        return (word_type(self.order) * count).from_buffer(self._allocate(8 * count))

    def _image(self) -> memoryview:
        """The bytes of the context."""
        return memoryview((ctypes.c_uint8 * ctypes.sizeof(self._context)).from_buffer(self._context)).cast(
            "B"
        )

    def _load_packet(self, data: bytes) -> None:
        """Put the packet in its place; the room around it is zero, whatever the last run left there."""
        image = _HEAD + data + _TAIL
        if len(image) > len(self._packet):
            self._packet = self._allocate(2 * len(image))
        ctypes.memmove(self._packet, image, len(image))

    def _fill_context(self, start: int, data: bytes, fields: Mapping[str, int]) -> None:
        length = len(data)
        self.prepare_context({**_defaults(self.layout, length), **fields})
        if not self.layout.pointers:
            self._set_content(data)
            return
        begin = ctypes.addressof(self._packet)
        values = {
            Pointer.DATA: start,
            Pointer.DATA_END: start + length,
            Pointer.DATA_META: start,
            Pointer.PACKET_START: begin,
            Pointer.PACKET_END: start + length + TAIL_ROOM,
        }
        for pointer, value in values.items():
            self._context[pointer.value // 8] = value

    def _set_content(self, data: bytes) -> None:
        """The bytes of a context that nothing more is known of."""
        if len(data) > self.layout.size:
            said = f"{len(data)} bytes do not fit into a context of {self.layout.size}"
            raise RejectedError([Diagnostic("context-size", said, errno=EINVAL)])
        ctypes.memmove(self.context_address + HEADER, data, len(data))

    def _set_fields(self, fields: Mapping[str, int]) -> None:
        image = self._image()
        for name, value in fields.items():
            place = self.layout.fields.get(name)
            if place is None:
                known = ", ".join(self.layout.fields) or "none"
                said = f"{self.layout.name} has no field '{name}' (fields: {known})"
                raise RejectedError([Diagnostic("unknown-context-field", said, errno=EINVAL)])
            offset, size = place
            packed = (value & (1 << 8 * size) - 1).to_bytes(size, self.order)
            image[HEADER + offset : HEADER + offset + size] = packed

    def _set_queue(self, fields: Mapping[str, int]) -> None:
        """The packet's queue and device, as programs around this one see them (ir/hook_objects): the last 3 words."""
        image = self._image()
        queue = len(image) - 24
        address = self.context_address + queue
        self._context[RXQ_OFFSET // 8] = address
        self._context[queue // 8] = address + 16
        for offset, name in ((8, "rx_queue_index"), (16, "ingress_ifindex")):
            value = fields.get(name, 0) & 0xFFFF_FFFF
            image[queue + offset : queue + offset + 4] = value.to_bytes(4, self.order)

    def _result(self, ret: int, elapsed: int, length: int) -> RunResult:
        trap = self.trap()
        if trap is not None:
            raise trap_error(trap, Location(), self.failure)
        self._rng = self._get(abi.RNG, 8)
        fields: dict[str, int] = {}
        start, end = self.left(length)
        image = self._image()
        for name, (offset, size) in self.layout.fields.items():
            if size in (1, 2, 4, 8) and offset not in self.layout.pointers:
                raw = image[HEADER + offset : HEADER + offset + size]
                fields[name] = int.from_bytes(raw, self.order)
        kind, index = self._get(abi.REDIRECT, 4), self._get(abi.REDIRECT + 4, 4)
        redirect = (kind, index, self._get(abi.REDIRECT + 8, 8)) if kind else None
        insns = self._get(abi.INSNS, 8) or None
        return RunResult(
            ret & (1 << 64) - 1,
            ctypes.string_at(start, end - start),
            fields,
            elapsed,
            insns,
            tuple(self.printk),
            redirect,
        )


def trap_error(trap: tuple[abi.Trap, int], at: Location, failure: str = "") -> TrapError:
    """The error for a run that ended at a check; `at` is refined by whoever knows the program."""
    code, said = _SAID[trap[0]]
    said = failure or said
    return TrapError([Diagnostic(code, said, at if at.insn is not None else Location(insn=trap[1]))])


def _bytes(size: int) -> ctypes.Array[ctypes.c_uint8]:
    return (ctypes.c_uint8 * size)()


def _defaults(layout: ContextLayout, length: int) -> dict[str, int]:
    return {"len": length} if "len" in layout.fields else {}
