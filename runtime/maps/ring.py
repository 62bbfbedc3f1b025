"""Ring buffers and perf event arrays as Python sees them: events, taken out in order.

Iterating takes what is there and stops; `poll` waits for more. An event is bytes, or what the view's codec
makes of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from errno import EINVAL, ENOENT, ENOSPC
from typing import Final, final

from ir.btf import Btf
from ir.btf_types import BtfKind
from ir.kinds import MapType
from ir.map_layout import (
    PERF_HEADER,
    RECORD_BUSY,
    RECORD_DISCARDED,
    RECORD_HEADER,
    RING_CONSUMER,
    RING_DATA,
    RING_LOST,
    RING_PRODUCER,
)
from ir.object import Map
from runtime.maps.codec import BtfCodec, Codec, raw_bytes
from runtime.maps.errors import map_error
from runtime.maps.live import LiveMap
from runtime.maps.view import View
from runtime.words import word_type

_SHORTEST_WAIT: Final = 20e-6
_LONGEST_WAIT: Final = 2e-3


@final
class RingView(View):
    """The consumer of a ring buffer or of a perf event array's events. One thread consumes at a time."""

    def __init__(self, live: LiveMap, btf: Btf | None = None) -> None:
        super().__init__(live, btf)
        self._events: Codec | None = None
        if btf is not None and live.declared.value_btf_id and btf.size_of(live.declared.value_btf_id) > 4:
            self._events = BtfCodec(btf, live.declared.value_btf_id)
        # Safe because the three words are in pages of the block, which the live map keeps.
        word = word_type(live.host.order)
        self._consumer = word.from_address(live.address + RING_CONSUMER)
        self._producer = word.from_address(live.address + RING_PRODUCER)
        self._size = live.layout.mirrored
        self._skipped = PERF_HEADER if live.declared.type is MapType.PERF_EVENT_ARRAY else 0

    def typed(self, name: str) -> RingView:
        """The same events, decoded as the structure `name` of the object's BTF. RejectedError when it has none."""
        found = next(self.btf.find(name, BtfKind.STRUCT), None) if self.btf is not None else None
        if self.btf is None or found is None:
            raise map_error(self.live.declared, ENOENT, f"has no structure '{name}' in its object's BTF")
        other = RingView(self.live, self.btf)
        other._events = BtfCodec(self.btf, found)
        return other

    def __iter__(self) -> Iterator[object]:
        for record in self._records():
            yield record if self._events is None else self._events.decode(record)

    def consume(self, callback: Callable[[object], object]) -> int:
        """Hand every event that is there to `callback`; how many there were."""
        count = 0
        for event in self:
            callback(event)
            count += 1
        return count

    def poll(self, callback: Callable[[object], object], timeout: float | None = None) -> int:
        """Wait until there is an event (at most `timeout` seconds), then consume; how many there were."""
        end = None if timeout is None else time.monotonic() + timeout
        wait = _SHORTEST_WAIT
        while not (count := self.consume(callback)):
            if end is not None and time.monotonic() >= end:
                return 0
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        return count

    def _open(self) -> memoryview:
        """The block's bytes; RejectedError (EBADF) when the map is closed."""
        assert self.live.address
        return self.live.block.view

    def skip(self) -> None:
        """Forget what is there, without looking at it."""
        self._open()
        self._consumer.value = self._producer.value

    @property
    def unread(self) -> int:
        """Bytes produced and not consumed."""
        self._open()
        return self._producer.value - self._consumer.value

    @property
    def lost(self) -> int:
        """Perf events that found no room."""
        return word_type(self.live.host.order).from_address(self.live.address + RING_LOST).value

    def _records(self) -> Iterator[bytes]:
        """The data of each record; at a length that makes no sense it skips what was produced so far."""
        view = self._open()
        while (position := self._consumer.value) < (produced := self._producer.value):
            start = RING_DATA + position % self._size
            length = int.from_bytes(view[start : start + 4], self.live.host.order)
            if length & RECORD_BUSY:
                return
            size = length & ~RECORD_DISCARDED
            end = position + (size + RECORD_HEADER + 7) // 8 * 8
            if end > produced or end - position > self._size:
                self._consumer.value = produced
                return
            data = bytes(view[start + RECORD_HEADER : start + RECORD_HEADER + size])
            self._consumer.value = end
            if not length & RECORD_DISCARDED:
                yield data[self._skipped :]


def _sample(declared: Map, data: object) -> bytes:
    raw = raw_bytes(data)
    if raw is None:
        raise map_error(declared, EINVAL, f"takes samples of bytes, not {data!r:.80}")
    return raw


@final
class UserRingView(View):
    """The producer of a user ring buffer: what is sent, a program drains. One thread sends at a time."""

    def __init__(self, live: LiveMap, btf: Btf | None = None) -> None:
        super().__init__(live, btf)
        word = word_type(live.host.order)
        # Safe because both words are in pages of the block, which the live map keeps.
        self._consumer = word.from_address(live.address + RING_CONSUMER)
        self._producer = word.from_address(live.address + RING_PRODUCER)
        self._size = live.layout.mirrored

    def send(self, data: object) -> None:
        """Append a sample, bytes or whatever has a buffer; RejectedError with EINVAL for what has none.

        RejectedError with ENOSPC when there is no room before older ones are drained.
        """
        data = _sample(self.live.declared, data)
        length = (len(data) + RECORD_HEADER + 7) // 8 * 8
        assert self.live.address
        position = self._producer.value
        if length > self._size - (position - self._consumer.value):
            raise map_error(self.live.declared, ENOSPC, f"has no room for {len(data)} bytes")
        start = RING_DATA + position % self._size
        view = self.live.block.view
        view[start + RECORD_HEADER : start + RECORD_HEADER + len(data)] = data
        view[start : start + RECORD_HEADER] = len(data).to_bytes(4, self.live.host.order) + bytes(4)
        self._producer.value = position + length

    @property
    def unread(self) -> int:
        """Bytes sent and not drained."""
        return self._producer.value - self._consumer.value
