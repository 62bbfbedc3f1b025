"""What a started object lives in: its maps in memory, the helpers it calls, and the addresses of both for the linker.

Runs that are under way at the same time have different cpu numbers, so that per-cpu values belong to one run at a time.
"""

from __future__ import annotations

import ctypes
import heapq
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, final

from backends.registry import host
from ir.helpers import HELPER_IDS, HELPERS
from ir.maps import SLOT_ARRAYS
from ir.object import Map, Object
from runtime.cache import ObjectCache
from runtime.execution import Execution, Segment
from runtime.maps.host import HostOperations
from runtime.maps.live import LiveMap, create
from runtime.maps.view import MapView
from runtime.memory import Pool

HostHelper = Callable[[Execution, int, int, int, int, int], int]
_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, *[ctypes.c_uint64] * 5)
_U64: Final = (1 << 64) - 1


@final
class World:
    """Owns the maps and host callbacks of one started object."""

    def __init__(self, source: Object, cpus: int | None = None) -> None:
        self.declared: Mapping[str, Map] = source.maps
        self.cpus = cpus or os.cpu_count() or 1
        self.pool = Pool(poison=host().poison)
        self._host = HostOperations(self.pool, ObjectCache.default())
        self.live: dict[str, LiveMap] = {
            name: create(declared, self.pool, self._host, self.cpus) for name, declared in source.maps.items()
        }
        self.maps: Mapping[str, MapView] = {name: MapView(live) for name, live in self.live.items()}
        self.helpers: dict[int, HostHelper] = dict(_DEFAULTS)
        self.overridden: frozenset[int] = frozenset()
        self._running: dict[int, Execution] = {}
        self._callbacks: dict[int, object] = {}
        self._free_cpus = list(range(self.cpus))
        self._cpu_freed = threading.Condition()
        self._closed = False
        for live in self.live.values():
            if live.declared.is_read_only:
                live.freeze()

    def resolve(self, symbol: str) -> int | None:
        """The address of a symbol that compiled code leaves open, or None.

        `map.NAME`: the map; `value.NAME`: its first value; `helper.ID`: a host callback.
        """
        kind, _, name = symbol.partition(".")
        if kind in ("map", "value") and name in self.live:
            live = self.live[name]
            return live.address + (live.layout.values_offset if kind == "value" else 0)
        if kind == "helper" and name.isdecimal():
            return self._callback(int(name))
        return None

    def segments(self) -> tuple[Segment, ...]:
        """Map memory that pointers of unknown origin may reach: the values of arrays."""
        found = []
        for live in self.live.values():
            layout = live.layout
            if layout.elements_offset == layout.values_offset or live.declared.type in SLOT_ARRAYS:
                continue
            start = live.address + layout.values_offset
            end = live.address + layout.size
            found.append(Segment(start, end, not live.declared.is_read_only))
        return tuple(found)

    @contextmanager
    def entered(self, execution: Execution) -> Iterator[None]:
        """While inside, `execution` has a cpu number of its own and host helpers find it by its run state's address."""
        with self._cpu_freed:
            while not self._free_cpus:
                self._cpu_freed.wait()
            cpu = heapq.heappop(self._free_cpus)
        execution.set_cpu(cpu)
        self._running[execution.run_address] = execution
        try:
            yield
        finally:
            del self._running[execution.run_address]
            with self._cpu_freed:
                heapq.heappush(self._free_cpus, cpu)
                self._cpu_freed.notify()

    def close(self) -> None:
        """Free maps and code; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        for live in self.live.values():
            live.close()
        self._host.close()
        self.pool.close()

    def _callback(self, id: int) -> int | None:
        """The address of a native function that calls the Python helper `id`."""
        found = self._callbacks.get(id)
        if found is None:
            if id not in self.helpers:
                return None
            # Safe because the callback lives as long as this world, which outlives the code that calls it.
            found = self._callbacks[id] = _CALLBACK(self._trampoline(id))
        return ctypes.cast(found, ctypes.c_void_p).value  # type: ignore[arg-type]  # a function pointer

    def _trampoline(self, id: int) -> Callable[..., int]:
        def call(run: int, *arguments: int) -> int:
            execution = self._running[run]
            try:
                return self.helpers[id](execution, *arguments) & _U64
            except Exception as error:  # noqa: BLE001  # any failure of a user's helper ends the run, not the process
                execution.helper_failed(f"{HELPERS[id].full_name}: {error}")
                return 0

        return call


def _ktime_get_ns(execution: Execution, *_: int) -> int:
    return time.monotonic_ns()


def _trace_printk(execution: Execution, *_: int) -> int:
    return 0


_DEFAULTS: Final[Mapping[int, HostHelper]] = {HELPER_IDS["bpf_ktime_get_ns"]: _ktime_get_ns, 6: _trace_printk}
