"""Maps as Python sees them: MutableMappings from keys to values, queues and slots, all on the live bytes.

Keys and values go through a codec (runtime/maps/codec.py): bytes as they are, or what BTF says they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import AbstractContextManager
from errno import ENOENT
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ir.btf import Btf
from ir.diagnostics import RejectedError
from ir.kinds import MapType
from ir.maps import UpdateFlag
from runtime.maps.codec import codec_of
from runtime.maps.errors import map_error
from runtime.maps.live import LiveMap

if TYPE_CHECKING:
    import numpy


class View:
    """What every view has: the live map behind it, its name and type."""

    def __init__(self, live: LiveMap, btf: Btf | None = None) -> None:
        self.live, self.btf = live, btf

    @property
    def name(self) -> str:
        """The map's name in the object."""
        return self.live.declared.name

    @property
    def type(self) -> MapType:
        """The map's type."""
        return self.live.declared.type

    def pin(self, path: str | PathLike[str]) -> None:
        """Move the map into a new file, so that it outlives this process (runtime/maps/pin.py); EEXIST when it exists."""
        from runtime.maps.pin import pin  # late: few maps are pinned

        pin(self.live, Path(path))

    def freeze(self) -> None:
        """From now on only programs may change the map; EBUSY when it is frozen already."""
        self.live.freeze()

    def mmap(self, writable: bool = True) -> AbstractContextManager[memoryview]:
        """The bytes of all values of an array made with BPF_F_MMAPABLE, as long as the context lasts."""
        return self.live.mapped(writable)

    def __repr__(self) -> str:
        declared = self.live.declared
        sizes = f"{declared.key_size} -> {declared.value_size} bytes, {declared.max_entries} entries"
        return f"<map {declared.name}: {declared.type.name.lower()}, {sizes}>"


@final
class QueueView(View):
    """A queue (first in, first out) or a stack (last in, first out) of values."""

    def __init__(self, live: LiveMap, btf: Btf | None = None) -> None:
        super().__init__(live, btf)
        self._values = codec_of(live.declared, btf, "value", live.host.order)

    def push(self, value: object, replace: bool = False) -> None:
        """Append; RejectedError with E2BIG when it is full, unless the oldest value may be replaced."""
        self.live.push(self._values.encode(value), UpdateFlag.EXIST if replace else 0)

    def pop(self) -> object:
        """Take the next value out; IndexError when there is none."""
        return self._take("pop")

    def peek(self) -> object:
        """The next value, left where it is; IndexError when there is none."""
        return self._take("peek")

    def __len__(self) -> int:
        return len(self.live)

    def _take(self, operation: str) -> object:
        found = self.live.take(operation)
        if found is None:
            raise IndexError(f"map {self.name} is empty")
        return self._values.decode(found)


@final
class BloomView(View):
    """A bloom filter: `add` values, ask with `in`; it may say yes for values never added, never no for ones
    that were.
    """

    def __init__(self, live: LiveMap, btf: Btf | None = None) -> None:
        super().__init__(live, btf)
        self._values = codec_of(live.declared, btf, "value", live.host.order)

    def add(self, value: object) -> None:
        """Put a value in."""
        self.live.push(self._values.encode(value))

    def __contains__(self, value: object) -> bool:
        return self.live.may_have(self._values.encode(value))


@final
class CellView(View):
    """The one value of a cgroup storage; a list of values, one for each cpu, when it is per-cpu."""

    def __init__(self, live: LiveMap, btf: Btf | None = None) -> None:
        super().__init__(live, btf)
        self._values = codec_of(live.declared, btf, "value", live.host.order)

    @property
    def value(self) -> object:
        """The value now."""
        raw = self.live.lookup(bytes(self.live.key_size))
        assert raw is not None, "a cell has a value"
        if not self.live.is_per_cpu:
            return self._values.decode(raw)
        size = self.live.value_size
        return [self._values.decode(raw[start : start + size]) for start in range(0, len(raw), size)]


class MapView(View, MutableMapping[object, object]):
    """Keys and values. Missing keys raise KeyError, refused changes RejectedError with Linux's errno.

    A per-cpu map has lists of values, one for each cpu; setting a single value sets it on all.
    """

    def __init__(self, live: LiveMap, btf: Btf | None = None) -> None:
        super().__init__(live, btf)
        self._keys = codec_of(live.declared, btf, "key", live.host.order)
        self._values = codec_of(live.declared, btf, "value", live.host.order)

    def __getitem__(self, key: object) -> object:
        found = self.live.lookup(self._keys.encode(key))
        if found is None:
            raise KeyError(key)
        return self._decode(found)

    def __setitem__(self, key: object, value: object) -> None:
        self.update_elem(key, value)

    def __delitem__(self, key: object) -> None:
        try:
            self.live.delete(self._keys.encode(key))
        except RejectedError as error:
            if error.errno == ENOENT:
                raise KeyError(key) from None
            raise

    def __iter__(self) -> Iterator[object]:
        for key, _ in self.live.items():
            yield self._keys.decode(key)

    def __len__(self) -> int:
        return len(self.live)

    def __contains__(self, key: object) -> bool:
        return bool(self.live.locate(self._keys.encode(key)))

    def update_elem(self, key: object, value: object, flags: UpdateFlag | int = 0) -> None:
        """Set with flags: NOEXIST (EEXIST if the key is there), EXIST (ENOENT if it is not)."""
        self.live.update(self._keys.encode(key), self._encode(value), int(flags))

    def to_numpy(self) -> numpy.ndarray[Any, Any]:
        """The values of an array, in place; the entries of other maps, copied (runtime/maps/arrays.py)."""
        from runtime.maps.arrays import to_numpy  # late: numpy is optional

        return to_numpy(self.live, self.btf)

    def lookup_batch(self) -> list[tuple[object, object]]:
        """All entries."""
        return [(self._keys.decode(key), self._decode(value)) for key, value in self.live.items()]

    def update_batch(self, entries: Iterable[tuple[object, object]], flags: UpdateFlag | int = 0) -> int:
        """Set entries in order until one is refused, which raises; how many were set."""
        count = 0
        for key, value in entries:
            self.update_elem(key, value, flags)
            count += 1
        return count

    def delete_batch(self, keys: Iterable[object]) -> int:
        """Delete keys in order; KeyError at the first that is missing; how many were deleted."""
        count = 0
        for key in keys:
            del self[key]
            count += 1
        return count

    def _decode(self, raw: bytes) -> object:
        if not self.live.is_per_cpu:
            return self._values.decode(raw)
        size = self.live.declared.value_size
        return [self._values.decode(raw[start : start + size]) for start in range(0, len(raw), size)]

    def _encode(self, value: object) -> bytes:
        if not self.live.is_per_cpu:
            return self._values.encode(value)
        if isinstance(value, list | tuple):
            if len(value) != self.live.cpus:
                said = f"has a value for each of {self.live.cpus} cpus, not {len(value)}"
                raise map_error(self.live.declared, 22, said)
            return b"".join(self._values.encode(one) for one in value)
        return self._values.encode(value) * self.live.cpus
