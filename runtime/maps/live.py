"""A map that lives in memory: its block, and the operations of the host on raw keys and values.

Views (runtime/maps/view.py) give it Python's manners. Keys and values are bytes of exactly the map's sizes; a
per-cpu map has a list of values, one for each cpu.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from errno import E2BIG, EACCES, EBADF, EBUSY, EINVAL, ENOENT, ENOSPC, EOPNOTSUPP, EPERM
from typing import Final, final

from backends.maps.registry import operation_of
from ir import map_layout
from ir.diagnostics import RejectedError
from ir.kinds import MapFlag, MapType
from ir.map_layout import layout_of
from ir.maps import HASHES, UpdateFlag, check_map, is_per_cpu
from ir.object import Map
from runtime.maps.block import MapBlock, allocate
from runtime.maps.errors import map_error
from runtime.maps.host import Operations
from runtime.memory import Pool

_ROOM: Final = 1024
_TRIE_LIVE: Final = 1


@final
class LiveMap:
    """Owns a map's memory. `cpus`: how many values a key of a per-cpu map has."""

    def __init__(self, declared: Map, block: MapBlock, host: Operations, cpus: int) -> None:
        self.declared, self.block, self.cpus = declared, block, cpus
        self.layout = layout_of(declared, cpus)
        self.host = host
        self.is_frozen = False
        self._writing = threading.Lock()
        self._writable_mappings = 0
        self._owners = 1
        self.is_per_cpu = is_per_cpu(declared.type)
        self.key_size = map_layout.key_bytes(declared)
        self.value_size = map_layout.value_bytes(declared)

    @property
    def address(self) -> int:
        """The address of the block: what programs have as the map's address. RejectedError (EBADF) once closed."""
        if self.block.is_closed:
            raise map_error(self.declared, EBADF, "is closed")
        return self.block.address

    def lookup(self, key: bytes) -> bytes | None:
        """A copy of the value (of all cpus, one after the other, for a per-cpu map), or None."""
        if self.declared.flags & MapFlag.WRONLY:
            raise map_error(self.declared, EPERM, "was created write-only for the host")
        address = self.locate(key)
        if not address:
            return None
        size = self.value_size
        # Safe because locate() answered with the address of a value inside the block.
        if not self.is_per_cpu:
            return self._shown(ctypes.string_at(address, size))
        stride = self.layout.cpu_stride
        return self._shown(
            b"".join(ctypes.string_at(address + cpu * stride, size) for cpu in range(self.cpus))
        )

    def _shown(self, values: bytes) -> bytes:
        """What the host sees of values: zeros where locks, timers and kernel pointers are."""
        special = self.declared.special
        if not special or self.declared.initial is not None:
            return values
        shown = bytearray(values)
        for start in range(0, len(shown), self.value_size):
            for offset, size, _ in special:
                shown[start + offset : start + offset + size] = bytes(size)
        return bytes(shown)

    def locate(self, key: bytes) -> int:
        """The address of the value (of cpu 0), 0 when there is none."""
        self._check_key(key)
        if operation_of(self.declared.type, "locate") is None:
            raise map_error(self.declared, EOPNOTSUPP, "has no keys to look up")
        return self.host.of(self.declared.type, "locate")(self.address, self.host.given(key)) or 0

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Insert or change; a per-cpu value has the values of all cpus.

        RejectedError with E2BIG, EEXIST, ENOENT, EINVAL, EPERM.
        """
        self._check_key(key)
        self._check_value(value)
        if flags & UpdateFlag.LOCK and self.declared.lock is None:
            raise map_error(self.declared, EINVAL, "has no bpf_spin_lock to update a value under")
        with self._changing():
            self._update(key, value, flags)

    def _update(self, key: bytes, value: bytes, flags: int) -> None:
        size = self.value_size
        first = value[:size] if self.is_per_cpu else value
        operation = self.host.of(self.declared.type, "update")
        done = operation(self.host.run, self.address, self.host.given(key), self.host.given(first), flags)
        if done < 0:
            raise map_error(self.declared, -done)
        if self.is_per_cpu:
            address = self.locate(key)
            for cpu in range(1, self.cpus if address else 0):
                # Safe because every cpu's value is inside the block, cpu_stride from the one before.
                ctypes.memmove(
                    address + cpu * self.layout.cpu_stride, value[cpu * size : (cpu + 1) * size], size
                )

    def entry_at(self, address: int) -> tuple[bytes, int]:
        """(key, address of the value of cpu 0) of the entry that has `address` in its value.

        RejectedError with ENOENT when there is none, or it has been deleted.
        """
        offset = address - self.address - self.layout.values_offset
        stride = self.layout.element_stride
        number = offset // stride
        value = self.address + self.layout.values_offset + number * stride
        if self.declared.type is MapType.ARRAY and 0 <= number < self.declared.max_entries:
            return number.to_bytes(4, self.host.order), value
        if self.declared.type in HASHES and 0 < number <= self.layout.elements + self.cpus:
            start = value - self.address - map_layout.align(self.key_size, 8)
            key = bytes(self.block.view[start : start + self.key_size])
            if self.locate(key) == value:
                return key, value
        raise map_error(self.declared, ENOENT, f"has no entry at {address:#x}")

    def delete(self, key: bytes) -> None:
        """Take the key out. RejectedError with ENOENT, EINVAL, EPERM."""
        self._check_key(key)
        with self._changing():
            done = self.host.of(self.declared.type, "delete")(
                self.host.run, self.address, self.host.given(key)
            )
        if done < 0:
            raise map_error(self.declared, -done)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of every entry; what changes meanwhile may be seen or not."""
        if self.declared.type in HASHES:
            yield from self._collected()
            return
        if self.declared.type is MapType.LPM_TRIE:
            yield from self._trie(self._word(map_layout.HEAD))
            return
        for index in range(self.declared.max_entries):
            key = index.to_bytes(4, self.host.order)
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def push(self, value: bytes, flags: int = 0) -> None:
        """Append to a queue, stack or bloom filter.

        RejectedError with E2BIG when full (unless flags has EXIST).
        """
        self._check_value(value)
        with self._changing():
            done = self.host.of(self.declared.type, "push")(
                self.host.run, self.address, self.host.given(value), flags
            )
        if done < 0:
            raise map_error(self.declared, -done)

    def take(self, operation: str) -> bytes | None:
        """What `pop` or `peek` finds in a queue or stack, None when it is empty."""
        out = self.host.room(self.value_size)
        found = self.host.of(self.declared.type, operation)
        done = found(self.host.run, self.address, out.address)
        return out.data if done == 0 else None

    def may_have(self, value: bytes) -> bool:
        """Whether a bloom filter may hold `value`."""
        self._check_value(value)
        return (
            self.host.of(self.declared.type, "peek")(self.host.run, self.address, self.host.given(value)) == 0
        )

    def __len__(self) -> int:
        """The number of entries now."""
        if self.declared.type in (MapType.ARRAY, MapType.PERCPU_ARRAY):
            return self.declared.max_entries
        if self.declared.type in (MapType.QUEUE, MapType.STACK):
            return self._word(map_layout.TAIL)
        if self.declared.type is MapType.LPM_TRIE:
            return self._word(map_layout.COUNT)
        return sum(1 for _ in self.items())

    def freeze(self) -> None:
        """From now on the host may not change the map.

        RejectedError with EBUSY when it is frozen already, or mapped writable; with EPERM when the host may not write.
        """
        with self._writing:
            if self.declared.flags & MapFlag.RDONLY:
                raise map_error(self.declared, EPERM, "was created read-only for the host")
            if self.declared.special:
                raise map_error(
                    self.declared, EOPNOTSUPP, "has locks, timers or kernel pointers: it can't be frozen"
                )
            if self.is_frozen:
                raise map_error(self.declared, EBUSY, "is frozen already")
            if self._writable_mappings:
                raise map_error(self.declared, EBUSY, "is mapped writable")
            self.is_frozen = True
            self.block.view[map_layout.FROZEN] = 1

    @contextmanager
    def mapped(self, writable: bool = True) -> Iterator[memoryview]:
        """The bytes of all values, without a copy.

        RejectedError with EINVAL, EPERM, EACCES as mmap(2) on a map.
        """
        if not self.declared.flags & MapFlag.MMAPABLE:
            raise map_error(self.declared, EINVAL, "was not created with BPF_F_MMAPABLE")
        with self._writing:
            if writable and self.is_frozen:
                raise map_error(self.declared, EPERM)
            if writable and self.declared.flags & MapFlag.RDONLY_PROG:
                raise map_error(
                    self.declared, EACCES, "is read-only to programs: it can't be mapped writable"
                )
            self._writable_mappings += writable
        start = self.layout.values_offset
        view = self.block.view[start : start + self.layout.value_stride * self.declared.max_entries]
        shown = view if writable else view.toreadonly()
        try:
            yield shown
        finally:
            shown.release()
            view.release()
            with self._writing:
                self._writable_mappings -= writable

    def put_slot(self, index: int, handle: int, content: int) -> None:
        """Fill a slot of a slot array: `handle` for code (0 empties it), `content` as the host sees it."""
        if not 0 <= index < self.declared.max_entries:
            raise map_error(
                self.declared, E2BIG, f"has {self.declared.max_entries} entries, no index {index}"
            )
        with self._changing():
            self.host.of(self.declared.type, "put")(self.address, index, handle, content)

    def write(self, offset: int, data: bytes) -> None:
        """Change bytes of the first value. RejectedError (EPERM) when it is frozen."""
        start = self.layout.values_offset + offset
        with self._changing():
            self.block.view[start : start + len(data)] = data

    def share(self) -> LiveMap:
        """The same map for one more owner: the memory goes when every owner has closed it."""
        self._owners += 1
        return self

    def close(self) -> None:
        """Free the memory when no other owner is left; closing twice is fine."""
        self._owners -= 1
        if self._owners <= 0:
            self.block.close()

    def _collected(self) -> Iterator[tuple[bytes, bytes]]:
        key_size = self.key_size
        entry = key_size + self.value_size * (self.cpus if self.is_per_cpu else 1)
        collect = self.host.of(self.declared.type, "collect")
        bucket, room, following = 0, _ROOM, self.host.room(8)
        while bucket <= self.layout.bucket_mask:
            out = self.host.room(room * entry)
            count = collect(self.address, bucket, out.address, room, following.address)
            if count == -ENOSPC:
                room *= 2
                continue
            bucket = int.from_bytes(following.data, self.host.order)
            raw = out.data
            for start in range(0, count * entry, entry):
                yield raw[start : start + key_size], self._shown(raw[start + key_size : start + entry])

    def _trie(self, place: int) -> Iterator[tuple[bytes, bytes]]:
        """The prefixes at and below the node at `place`, those below first (as Linux orders them)."""
        if not place:
            return
        start = 8 * place
        view, data_size = self.block.view, self.declared.key_size - 4
        for child in (map_layout.NODE_CHILD, map_layout.NODE_CHILD + 8):
            yield from self._trie(self._word(start + child))
        if self._word(start + map_layout.NODE_KIND) == _TRIE_LIVE:
            key = start + map_layout.NODE_KEY
            value = key + map_layout.align(data_size, 8)
            prefix = bytes(view[start + map_layout.NODE_PREFIX : start + map_layout.NODE_PREFIX + 4])
            yield prefix + bytes(view[key : key + data_size]), bytes(view[value : value + self.value_size])

    def _word(self, offset: int) -> int:
        return int.from_bytes(self.block.view[offset : offset + 4], self.host.order)

    def _check_key(self, key: bytes) -> None:
        if len(key) != self.key_size:
            said = f"has keys of {self.key_size} bytes, not {len(key)}"
            raise map_error(self.declared, EINVAL, said)

    def _check_value(self, value: bytes) -> None:
        wanted = self.value_size * (self.cpus if self.is_per_cpu else 1)
        if len(value) != wanted:
            raise map_error(self.declared, EINVAL, f"has values of {wanted} bytes, not {len(value)}")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """While inside, the map can't be frozen.

        RejectedError with EPERM when it is, or was created read-only.
        """
        with self._writing:
            if self.is_frozen:
                raise map_error(self.declared, EPERM)
            if self.declared.flags & MapFlag.RDONLY:
                raise map_error(self.declared, EPERM, "was created read-only for the host")
            yield


def create(declared: Map, pool: Pool, host: Operations, cpus: int = 1, seed: int = 0) -> LiveMap:
    """A new map in memory, filled with its initial content.

    RejectedError with Linux's errno when Linux would refuse it.
    """
    problem = check_map(declared)
    if problem is not None:
        raise RejectedError([problem])
    layout = layout_of(declared, cpus)
    block = allocate(pool, layout.size, layout.mirrored)
    for start, content in map_layout.first_bytes(
        declared, cpus, seed, "<" if host.order == "little" else ">"
    ):
        block.view[start : start + len(content)] = content
    return LiveMap(declared, block, host, cpus)
