"""A started object: its maps are memory, its programs compile on first use and run.

    with bpfc.load("filter.o").start() as rt:
        result = rt["xdp_filter"].run(packet)
        rt.maps["ports"][80] = 1
"""

from __future__ import annotations

import ctypes
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from backends.batch import batch_symbol
from bpfc.compile import Compiled, Options, compile_program
from bpfc.pcap import Packet, PcapWriter, read_pcap
from ir.context import layout_of
from ir.diagnostics import Diagnostic, Location, TrapError
from ir.object import Map, Program
from runtime.execution import Execution, Limits, RunResult, Segment, trap_error
from runtime.linker import LinkedImage, link
from runtime.world import World

if TYPE_CHECKING:
    from bpfc.loaded import Loaded

Buffer = bytes | bytearray | memoryview
Packets = Sequence[Buffer]  # or a numpy array of uint8, packets by bytes
Progress = Callable[[int], None]
_RUN: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)
_RUN_RAW: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64)
_BATCH: Final = ctypes.CFUNCTYPE(
    ctypes.c_uint64, *[ctypes.c_void_p] * 4, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64
)
EINVAL: Final = 22


@final
class Runtime:
    """A running object; a context manager that owns its maps and code. `runtime["name"]` is a program ready to run."""

    def __init__(self, loaded: Loaded, options: Options, limits: Limits) -> None:
        self.loaded, self.options, self.limits = loaded, options, limits
        self.world = World(loaded.object)
        self._programs: dict[str, RunningProgram] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def maps(self) -> Mapping[str, object]:
        """The live maps by name."""
        return self.world.maps

    def __getitem__(self, name: str) -> RunningProgram:
        with self._lock:
            running = self._programs.get(name)
            if running is None:
                running = RunningProgram(self, self.loaded.program(name))
                self._programs[name] = running
            return running

    def __iter__(self) -> Iterator[str]:
        return iter(self.loaded.programs)

    def __len__(self) -> int:
        return len(self.loaded.programs)

    def close(self) -> None:
        """Free code and maps; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        for running in self._programs.values():
            running.close()
        self.world.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class RunningProgram:
    """One program as native code. Threads may run it at the same time; each has its own run state."""

    def __init__(self, runtime: Runtime, program: Program) -> None:
        self.program = program
        self._runtime = runtime
        world = runtime.world
        maps: Mapping[str, Map] = world.declared
        self.compiled: Compiled = compile_program(program, maps, runtime.options, world.overridden)
        self.image: LinkedImage = link(self.compiled.code, world.resolve, world.pool)
        self.layout = layout_of(program.type)
        kind = _RUN_RAW if self.layout.is_raw else _RUN
        self._native = kind(self.image.address_of(program.name))
        self._batch = _BATCH(self.image.address_of(batch_symbol(program.name)))
        self._local = threading.local()

    def run(self, data: object = b"", ctx: Mapping[str, int] | None = None) -> RunResult:
        """Run once over a copy of `data` (bytes or anything with bytes()); `ctx` sets fields of the context.

        Raises TrapError, naming the instruction, when the run ended at a check.
        """
        execution = self._execution()
        with self._runtime.world.entered(execution):
            try:
                return execution.run(self._native, bytes(data), ctx or {})  # type: ignore[call-overload]  # bytes() takes anything with __bytes__
            except TrapError as error:
                raise self._located(error) from None

    def run_pcap(
        self, path: str | Path, out: str | Path | None = None, ctx: Mapping[str, int] | None = None
    ) -> Iterator[tuple[Packet, RunResult]]:
        """Run over each packet of a pcap file; `out` gets the packets that are not dropped, as the program left them."""
        writer = PcapWriter(out) if out is not None else None
        try:
            for packet in read_pcap(path):
                result = self.run(packet.data, ctx)
                if writer is not None and not self._drops(result):
                    writer.write(replace(packet, data=result.data))
                yield packet, result
        finally:
            if writer is not None:
                writer.close()

    def run_batch(
        self, packets: Packets, lengths: Sequence[int] | None = None, ctx: Mapping[str, int] | None = None
    ) -> Sequence[int]:
        """Run over many packets in one native loop, in place, with the GIL released; r0 (u32) for each.

        `packets` is an (n, snap) array of uint8, with `lengths` when rows are not full, or a sequence of buffers: writable
        ones (bytearray, memoryview) are run in place, read-only ones (bytes) in copies. Packets have no head or tail room.
        The result is a numpy array when numpy was given one, else an array('I').
        """
        batch = _Batch.of(packets, lengths)
        execution = self._execution()
        execution.arm(batch.start, batch.span)
        context = execution.prepare_context(ctx or {})
        with self._runtime.world.entered(execution):
            done = self._batch(
                execution.run_address,
                context,
                batch.addresses.buffer_info()[0],
                batch.lengths.buffer_info()[0],
                0,
                batch.count,
                batch.rets_address,
                execution.limits.fuel,
            )
        if done < batch.count:
            trap = execution.trap()
            assert trap is not None, "the batch loop stops early only at a trap"
            error = self._located(trap_error(trap, Location()))
            note = f"packet {done} of the batch"
            raise TrapError([replace(error.diagnostics[0], notes=(note,))])
        return batch.rets

    def _execution(self) -> Execution:
        execution: Execution | None = getattr(self._local, "execution", None)
        if execution is None:
            segments: tuple[Segment, ...] = self._runtime.world.segments()
            execution = Execution(self.layout, segments, self.program.big_endian, self._runtime.limits)
            self._local.execution = execution
        return execution

    def _located(self, error: TrapError) -> TrapError:
        first = error.diagnostics[0]
        slot = first.at.insn
        at = first.at if slot is None else self.program.location(slot)
        return TrapError([replace(first, at=at)])

    def _drops(self, result: RunResult) -> bool:
        return result.verdict in _DROPS.get(self.layout.name, ())

    def close(self) -> None:
        """Free the code; closing twice is fine."""
        self.image.close()


_DROPS: Final[Mapping[str, tuple[int, ...]]] = {"xdp_md": (0, 1), "__sk_buff": (2,)}


@final
class _Batch:
    """Packets as the native loop wants them: an address and a length each. Keeps the buffers alive."""

    def __init__(self, addresses: array[int], lengths: array[int], rets: object, rets_address: int) -> None:
        self.addresses, self.lengths, self.rets_address = addresses, lengths, rets_address
        self.rets: Sequence[int] = rets  # type: ignore[assignment]  # an array or a numpy array
        self.count = len(addresses)
        self.keep: object = None
        ends = [address + length for address, length in zip(addresses, lengths, strict=True)]
        self.start = min(addresses, default=0)
        self.span = max(ends, default=0) - self.start

    @staticmethod
    def of(packets: Packets, lengths: Sequence[int] | None) -> _Batch:
        """Look at `packets` in place where they can be written, copy them where not."""
        if hasattr(packets, "__array_interface__"):
            return _Batch._of_array(packets, lengths)
        rets = array("I", bytes(4 * len(packets)))
        keep = [_writable(packet) for packet in packets]
        views = [(ctypes.c_uint8 * memoryview(buffer).nbytes).from_buffer(buffer) for buffer in keep]
        sizes = array("I", [len(view) for view in views])
        batch = _Batch(array("Q", map(ctypes.addressof, views)), sizes, rets, rets.buffer_info()[0])
        batch.keep = (keep, views)
        return batch

    @staticmethod
    def _of_array(packets: object, lengths: Sequence[int] | None) -> _Batch:
        import numpy  # late: optional, and only who has an array has it

        rows = numpy.ascontiguousarray(packets, dtype=numpy.uint8)
        if rows.ndim != 2:
            said = f"batch array has {rows.ndim} dimensions, 2 are wanted (packets, bytes)"
            raise TrapError([Diagnostic("bad-batch", said, errno=EINVAL)])
        count, snap = rows.shape
        addresses = array("Q", bytes(8 * count))
        numpy.frombuffer(addresses, dtype=numpy.uint64)[:] = rows.ctypes.data + snap * numpy.arange(count, dtype=numpy.uint64)
        sizes = array("I", bytes(4 * count))
        numpy.frombuffer(sizes, dtype=numpy.uint32)[:] = snap if lengths is None else numpy.minimum(lengths, snap)
        rets = numpy.zeros(count, dtype=numpy.uint32)
        batch = _Batch.__new__(_Batch)
        batch.addresses, batch.lengths, batch.count = addresses, sizes, count
        batch.rets = rets  # type: ignore[assignment]  # numpy's arrays are no Sequence, but act as one here
        batch.rets_address = rets.ctypes.data
        batch.start, batch.span = rows.ctypes.data, count * snap
        batch.keep = rows
        return batch


def _writable(packet: Buffer) -> bytearray | memoryview:
    if isinstance(packet, bytearray):
        return packet
    view = memoryview(packet)
    return bytearray(view) if view.readonly else view.cast("B")
