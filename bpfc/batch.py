"""Packets laid out for the native batch loop: an address and a length each, and room for the results.

addresses u64[n] -> packet bytes, in place          lengths u32[n]          rets u32[n] <- r0 of each run
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Sequence
from errno import EINVAL
from typing import final

from ir.diagnostics import Diagnostic, RejectedError
from runtime.execution import RunResult

Buffer = bytes | bytearray | memoryview
Packets = Sequence[Buffer]  # or a numpy array of uint8, packets by bytes


@final
class Batch:
    """Many packets, laid out once; `run_batch` may run it any number of times, in place.

    `packets` is an (n, snap) array of uint8, with `lengths` when rows are not full, or a sequence of buffers:
    writable ones (bytearray, memoryview) are used in place, read-only ones (bytes) as copies. `rets` holds the last
    results: a numpy array when numpy was given one, else an array('I'). Raises RejectedError for an array of
    another shape.

    Safe because the buffers whose addresses are kept here are held, and pinned by ctypes views, while this lives.
    """

    def __init__(self, packets: Packets, lengths: Sequence[int] | None = None) -> None:
        self.rets: Sequence[int]
        self._keep: object
        if hasattr(packets, "__array_interface__"):
            self._lay_out_rows(packets, lengths)
        else:
            self._lay_out_buffers(packets, lengths)
        self.count = len(self.addresses)

    def __len__(self) -> int:
        return self.count

    def run_each(self, run: Callable[[bytes], RunResult]) -> None:
        """Run over a copy of each packet in turn, and write back what it left: for code that cannot see the packets."""
        for number, (address, length) in enumerate(zip(self.addresses, self.lengths, strict=True)):
            # Safe because the packets are pinned while this lives.
            result = run(ctypes.string_at(address, length))
            ctypes.memmove(address, result.data[:length], min(length, len(result.data)))
            ctypes.c_uint32.from_address(self.rets_address + 4 * number).value = result.verdict

    def _lay_out_buffers(self, packets: Packets, lengths: Sequence[int] | None) -> None:
        buffers = [_writable(packet) for packet in packets]
        views = [(ctypes.c_uint8 * memoryview(buffer).nbytes).from_buffer(buffer) for buffer in buffers]
        self.addresses = array("Q", map(ctypes.addressof, views))
        self.lengths = array("I", [len(view) for view in views])
        if lengths is not None:
            self.lengths = array("I", [min(pair) for pair in zip(self.lengths, lengths, strict=True)])
        ends = (address + length for address, length in zip(self.addresses, self.lengths, strict=True))
        self.start = min(self.addresses, default=0)
        self.span = max(ends, default=0) - self.start
        rets = array("I", bytes(4 * len(views)))
        self.rets, self.rets_address = rets, rets.buffer_info()[0]
        self._keep = views

    def _lay_out_rows(self, packets: object, lengths: Sequence[int] | None) -> None:
        import numpy  # late: optional, and only who has an array has it

        rows = numpy.ascontiguousarray(packets, dtype=numpy.uint8)
        if rows.ndim != 2:
            said = f"batch array has {rows.ndim} dimensions, 2 are wanted (packets, bytes)"
            raise RejectedError([Diagnostic("bad-batch", said, errno=EINVAL)])
        count, snap = rows.shape
        # Filled in place: touching memory for the first time is what laying out costs.
        self.addresses = array("Q", [snap]) * count
        self.lengths = array("I", [snap]) * count
        if count:
            places = numpy.frombuffer(self.addresses, dtype=numpy.uint64)
            places[0] = rows.ctypes.data
            numpy.cumsum(places, out=places)
        if lengths is not None:
            sizes = numpy.frombuffer(self.lengths, dtype=numpy.uint32)
            numpy.minimum(sizes, lengths, out=sizes, casting="unsafe")
        rets = numpy.zeros(count, dtype=numpy.uint32)
        self.rets = rets  # type: ignore[assignment]  # numpy's arrays are no Sequence, but act as one here
        self.rets_address = rets.ctypes.data
        self.start, self.span = rows.ctypes.data, count * snap
        self._keep = rows


def _writable(packet: Buffer) -> bytearray | memoryview:
    if isinstance(packet, bytearray):
        return packet
    view = memoryview(packet)
    return bytearray(view) if view.readonly else view.cast("B")
