"""What a started object lives in: its maps in memory, the helpers it calls, and the addresses of both for the linker.

Runs that are under way at the same time have different cpu numbers, so that per-cpu values belong to one run at a time.
"""

from __future__ import annotations

import ctypes
import heapq
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, final

from ir.context import RAW
from ir.diagnostics import Location, TrapError
from ir.kinds import MapFlag, MapType
from ir.map_layout import value_places
from ir.object import Map, Object
from runtime.epoch import epochs
from runtime.execution import Execution, Segment, trap_error
from runtime.helpers import Callbacks, HelperTable, KfuncTable
from runtime.host_helpers import HOST_HELPERS
from runtime.limits import Limits
from runtime.linker import LinkedImage, link
from runtime.platform import HostPlatform, Platform
from runtime.runs import runs
from runtime.timers import Timers

if TYPE_CHECKING:
    from ir.btf import Btf
    from runtime.maps.gather import Sources
    from runtime.maps.live import LiveMap
    from runtime.maps.view import View

_REGISTERS: Final = 5  # of arguments


@final
class World:
    """Owns the maps and host callbacks of one started object. `cpus`: how many values a per-cpu key has."""

    def __init__(
        self,
        source: Object,
        cpus: int | None = None,
        platform: Platform | None = None,
        sources: Sources | None = None,
    ) -> None:
        self.cpus = cpus or os.cpu_count() or 1
        self.platform: Platform = platform or HostPlatform()
        self._declared: Mapping[str, Map] = {
            name: _completed(declared, self.cpus) for name, declared in source.maps.items()
        }
        self.pool, self.space = self.platform.pool, self.platform.space
        self.helpers, self.kfuncs, self._btf = HelperTable(), KfuncTable(), source.btf
        self.live: Mapping[str, LiveMap] = {}
        self.maps: Mapping[str, View] = {}
        if source.maps or sources is not None:
            self._open_maps(source, sources)
        self._by_address = {view.live.address: view for view in self.maps.values()}
        is_big = self.platform.target.byte_order == "big"
        self._hooked = Execution(RAW, (), is_big, Limits())
        self._callbacks = Callbacks(
            self.helpers, HOST_HELPERS, self, self._find, self.platform, self._compile
        )
        self.timers = Timers(self._run_timer)
        self._images: list[LinkedImage] = []
        self._free_cpus = list(range(self.cpus))
        self._cpu_freed = threading.Condition()
        self._closed = False

    @property
    def overridden(self) -> frozenset[int]:
        """The helpers that are called on the host because the user has their own."""
        return self.helpers.ids

    @property
    def declared(self) -> Mapping[str, Map]:
        """The maps as programs compiled now see them: what is read-only to them and frozen has the content it has."""
        return {name: _as_it_is(declared, self.live[name]) for name, declared in self._declared.items()}

    def map_at(self, address: int) -> View | None:
        """The map whose block is at `address`."""
        return self._by_address.get(address)

    def resolve(self, symbol: str) -> int | None:
        """The address of a symbol that compiled code leaves open, or None.

        `map.NAME`: the map; `value.NAME`: its first value; `helper.ID`, `kfunc.NAME`: a host callback. UnsupportedError
        for a helper or kernel function that nobody implements.
        """
        kind, _, name = symbol.partition(".")
        if kind in ("map", "value") and name in self.live:
            live = self.live[name]
            return live.address + (live.layout.values_offset if kind == "value" else 0)
        if kind == "helper" and name.isdecimal():
            return self._callbacks.address(int(name))
        if kind == "kfunc":
            return self._callbacks.kfunc(name, self.kfuncs.get(name), _parameters(self._btf, name))
        return self.platform.external(symbol)

    def segments(self) -> tuple[Segment, ...]:
        """Map memory that pointers of unknown origin may reach: values, one at a time, and the records of ring buffers."""
        found = []
        for live in self.live.values():
            is_writable = not live.declared.flags & MapFlag.RDONLY_PROG
            first = live.address + live.layout.values_offset
            places = value_places(live.declared, live.cpus)
            if places is not None:
                found.append(Segment(first, live.address + places.end, is_writable, live.address))
            elif live.declared.type is MapType.RINGBUF:
                found.append(Segment(first, live.address + live.layout.size, is_writable))
        return tuple(found)

    @contextmanager
    def entered(self, execution: Execution) -> Iterator[None]:
        """While inside, `execution` has a cpu number of its own and host helpers find it by its run state's address.

        What a host helper raised comes out here.
        """
        with self._cpu_freed:
            while not self._free_cpus:
                self._cpu_freed.wait()
            cpu = heapq.heappop(self._free_cpus)
        execution.set_cpu(cpu)
        address = execution.run_address
        runs()[address] = execution
        reader = epochs().reader()
        reader.enter()
        try:
            yield
        except TrapError:
            error, execution.raised = execution.raised, None
            if error is None:
                raise
            raise error from None
        finally:
            reader.leave()
            del runs()[address]
            with self._cpu_freed:
                heapq.heappush(self._free_cpus, cpu)
                self._cpu_freed.notify()

    def _find(self, run: int) -> Execution:
        """The run with this state; programs that hooks start, on any thread, share one that is ours."""
        return runs().get(run, self._hooked)

    @property
    def printed(self) -> list[str]:
        """The lines printed by programs that hooks started."""
        return self._hooked.printk

    def _open_maps(self, source: Object, sources: Sources | None) -> None:
        """Make or open the maps, put some into the object's maps of maps, and freeze what is read-only."""
        from runtime.maps.gather import Sources, gather  # late: there are programs without maps
        from runtime.maps.slots import SlotView
        from runtime.maps.views import view_of

        operations = self.platform.operations
        self.live = gather(self._declared, self.pool, operations, self.cpus, sources or Sources())
        self.maps = {name: view_of(live, source.btf) for name, live in self.live.items()}
        for name, view in self.maps.items():
            declared = source.maps[name]
            if isinstance(view, SlotView) and view.type is MapType.ARRAY_OF_MAPS:
                for index, inner in declared.slots:
                    view[index] = self.maps[inner]
            if declared.is_read_only and not view.live.is_frozen:
                view.freeze()

    def _run_timer(self, callback: int, view: View, timer: int) -> None:
        """Call a timer's callback with (map, key, value). TrapError when it ended at a check."""
        live = view.live
        key, value = live.entry_at(timer)
        order = self.platform.target.byte_order == "big"
        execution = Execution(RAW, self.segments(), order, Limits(), self.platform.allocate)
        with self.entered(execution):
            execution.arm(execution.run_address, 0)
            place = execution.push(key)
            run = self.platform.function(callback, ctypes.c_void_p, *[ctypes.c_uint64] * 3)
            run(execution.run_address, live.address, place, value)
            trap = execution.trap()
            if trap is not None:
                raise trap_error(trap, Location())

    def _compile(self, text: str) -> int:
        """The address of `@helper` in LLVM IR that a user wrote, or that calls what a user has."""
        from backends.maps.host_code import generate  # late: it needs llvmlite

        target = self.space.compile_target
        code = generate(text, self.platform.target, target.cpu if target is not None else None)
        image = link(code, self.platform.external, self.pool)
        self._images.append(image)
        return image.address_of("helper")

    def close(self) -> None:
        """Free maps and code; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self.timers.close()
        for live in self.live.values():
            live.close()
        for image in self._images:
            image.close()
        self._callbacks.close()
        if not self.platform.is_shared:
            self.platform.close()


def _parameters(btf: Btf | None, name: str) -> int:
    """How many parameters the object says that function `name` has; 5 when it does not."""
    if btf is None:
        return _REGISTERS
    from ir.btf_types import BtfKind, Function, Prototype  # late: few programs call kernel functions

    for id in btf.find(name, BtfKind.FUNC):
        function = btf.type(id)
        prototype = btf.type(function.type_id) if isinstance(function, Function) else None
        if isinstance(prototype, Prototype):
            return len(prototype.parameters)
    return _REGISTERS


def _as_it_is(declared: Map, live: LiveMap) -> Map:
    """`declared` with the content of its one value where that can't change any more, and only there."""
    if not live.is_frozen or not (declared.is_read_only or declared.flags & MapFlag.RDONLY_PROG):
        return replace(declared, is_read_only=False) if declared.is_read_only else declared
    if declared.type is not MapType.ARRAY or declared.max_entries != 1:
        return declared
    start = live.layout.values_offset
    content = bytes(live.block.view[start : start + declared.value_size])
    return replace(declared, initial=content, is_read_only=True)


def _completed(declared: Map, cpus: int) -> Map:
    """Sizes that a loader fills in: a perf event array has an entry for each cpu, a map of maps values of 4 bytes."""
    if declared.type in (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS) and not declared.value_size:
        return replace(declared, value_size=4)
    if declared.type is not MapType.PERF_EVENT_ARRAY:
        return declared
    return replace(
        declared,
        key_size=declared.key_size or 4,
        value_size=declared.value_size or 4,
        max_entries=declared.max_entries or cpus,
    )
