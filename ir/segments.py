"""Memory as an interpreted program sees it: segments of bytes at 64-bit addresses.

A segment's bytes may be anything that has a buffer: a bytearray, or host memory through ctypes, which
compiled code then shares. Every access lies inside one segment. Addresses are only numbers here; a segment
over host memory usually stands at its own address.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class AccessError(Exception):
    """An access that no segment allows; `code` is the diagnostic's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@final
@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """`data` at addresses [base, base + len(data)). `name` is what messages call it."""

    base: int
    data: memoryview
    writable: bool
    name: str

    @property
    def end(self) -> int:
        """The address after the last byte."""
        return self.base + len(self.data)


def make_segment(base: int, buffer: ReadableBuffer, name: str, writable: bool | None = None) -> Segment:
    """A segment over the bytes of `buffer`, writable as the buffer is unless `writable` says less."""
    data = memoryview(buffer).cast("B")
    return Segment(base, data, not data.readonly if writable is None else writable, name)


@final
class Memory:
    """The segments of one run. Owned by the run; the bytes stay the property of whoever made the segments."""

    def __init__(self, segments: Iterable[Segment] = (), big_endian: bool = False) -> None:
        self.order: Literal["little", "big"] = "big" if big_endian else "little"
        self._bases: list[int] = []
        self._segments: list[Segment] = []
        for segment in segments:
            self.add(segment)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    def add(self, segment: Segment) -> None:
        """Make a segment accessible. It must not overlap another one."""
        at = bisect_left(self._bases, segment.base)
        assert at == 0 or self._segments[at - 1].end <= segment.base, f"{segment.name} overlaps"
        assert at == len(self._bases) or segment.end <= self._bases[at], f"{segment.name} overlaps"
        self._bases.insert(at, segment.base)
        self._segments.insert(at, segment)

    def remove(self, segment: Segment) -> None:
        """Make a segment inaccessible."""
        at = self._segments.index(segment)
        del self._bases[at], self._segments[at]

    def find(self, address: int, size: int) -> Segment:
        """The segment that holds all of [address, address + size); raises AccessError when none does."""
        at = bisect_right(self._bases, address) - 1
        if at >= 0:
            segment = self._segments[at]
            if address + size <= segment.end:
                return segment
        raise AccessError("out-of-bounds", self._explain(address, size))

    def view(self, address: int, size: int, write: bool = False) -> memoryview:
        """The bytes at [address, address + size), as they are and not a copy; raises AccessError."""
        segment = self.find(address, size)
        if write and not segment.writable:
            raise AccessError(
                "read-only-memory", f"write of {size} bytes to {segment.name}, which is read-only"
            )
        return segment.data[address - segment.base : address - segment.base + size]

    def read(self, address: int, size: int) -> int:
        """The unsigned integer of `size` bytes at `address`, in the program's order; raises AccessError."""
        return int.from_bytes(self.view(address, size), self.order)

    def write(self, address: int, size: int, value: int) -> None:
        """Store the low `size` bytes of `value`; raises AccessError."""
        self.view(address, size, write=True)[:] = (value & ((1 << size * 8) - 1)).to_bytes(size, self.order)

    def _explain(self, address: int, size: int) -> str:
        said = f"access of {size} bytes at {address:#x} is outside every segment"
        near = min(self._segments, key=lambda s: max(s.base - address, address + size - s.end), default=None)
        if near is None or max(near.base - address, address + size - near.end) > 0x1_0000:
            return said
        return (
            f"{said}; nearest is {near.name}, {len(near.data)} bytes, at offset {address - near.base} of it"
        )
