"""A started object: its maps are memory, its programs compile on first use and run.

with bpfc.load("filter.o").start() as rt:
    result = rt["xdp_filter"].run(packet)
    rt.maps["ports"][80] = 1
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, MutableMapping
from errno import EBUSY
from typing import TYPE_CHECKING, Any, final

from bpfc.options import Options
from bpfc.running_program import RunningProgram
from ir.diagnostics import Diagnostic, RejectedError
from ir.kinds import MapType, ProgramType
from ir.object import Program
from runtime.epoch import epochs
from runtime.helpers import LlvmHelper, UserHelper
from runtime.hook import attach_lock
from runtime.limits import Limits
from runtime.platform import Platform
from runtime.world import World

if TYPE_CHECKING:
    from bpfc.globals import Globals
    from bpfc.links import Link
    from bpfc.loaded import Loaded
    from runtime.maps.gather import Sources
    from runtime.static_keys import StaticKeys


@final
class Runtime:
    """A running object; a context manager that owns its maps and code. `runtime["name"]` is a program ready to run."""

    def __init__(
        self,
        loaded: Loaded,
        options: Options,
        limits: Limits,
        platform: Platform | None = None,
        sources: Sources | None = None,
        replaces: RunningProgram | None = None,
        traces: object = None,
    ) -> None:
        self.loaded, self.options, self.limits = loaded, options, limits
        self.world = World(loaded.object, platform=platform, sources=sources)
        self._programs: dict[str, RunningProgram] = {}
        self._retired: list[RunningProgram] = []
        self._lock = threading.RLock()
        self._static_keys: StaticKeys | None = None
        self._keys_lock = threading.Lock()
        self._holds = 0
        self.is_closed = False
        self.links: tuple[Link, ...] = ()
        if replaces is not None or traces is not None:
            self._attach_all(replaces, traces)

    @property
    def machine(self) -> Platform | None:
        """The emulated machine that it runs on, for other objects to `start` on; None for this one."""
        platform = self.world.platform
        return None if platform.is_native else platform

    @property
    def maps(self) -> Mapping[str, Any]:
        """The live maps by name."""
        return self.world.maps

    @property
    def helpers(self) -> MutableMapping[str, UserHelper | LlvmHelper]:
        """The user's own helpers by name; programs asked for from then on call them."""
        return self.world.helpers

    @property
    def kfuncs(self) -> MutableMapping[str, UserHelper | LlvmHelper]:
        """The user's kernel functions by name, for programs asked for from then on; they get their arguments as numbers."""
        return self.world.kfuncs

    @property
    def static_keys(self) -> StaticKeys:
        """The static keys by name: `rt.static_keys["debug"].enable()`."""
        if self._static_keys is not None:
            return self._static_keys
        from bpfc.static_keys import start_keys  # late: few objects have any

        with self._keys_lock:
            if self._static_keys is None:
                self._static_keys = start_keys(self)
            return self._static_keys

    @property
    def globals(self) -> Globals:
        """The global variables, live; constants and __kconfig are frozen."""
        return self._globals(("rodata", "data", "bss", "kconfig"))

    @property
    def rodata(self) -> Globals:
        """The constants; frozen."""
        return self._globals(("rodata",))

    @property
    def data(self) -> Globals:
        """The initialized variables, live."""
        return self._globals(("data",))

    @property
    def bss(self) -> Globals:
        """The variables that start as zero, live."""
        return self._globals(("bss",))

    def __getitem__(self, name: str) -> RunningProgram:
        with self._lock:
            return self._program(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.loaded.programs)

    def __len__(self) -> int:
        return len(self.loaded.programs)

    def _globals(self, kinds: tuple[str, ...]) -> Globals:
        from bpfc.globals import Globals, find_variables  # late: values of BTF types

        object = self.loaded.object
        return Globals(find_variables(object, kinds), object, self._read, self._write)

    def _read(self, map: str) -> bytes:
        live = self.world.live[map]
        start = live.layout.values_offset
        return bytes(live.block.view[start : start + live.declared.value_size])

    def _write(self, map: str, offset: int, data: bytes) -> None:
        self.world.live[map].write(offset, data)

    def _attach_all(self, replaces: RunningProgram | None, traces: object) -> None:
        """Attach every program to the function that its section names; all of them or none."""
        from bpfc.attaching import attach_by_section  # late: it needs this module
        from bpfc.links import ATTACH_TYPES

        try:
            for name, program in self.loaded.programs.items():
                if not program.autoload:
                    continue
                if program.type is ProgramType.EXT and replaces is not None:
                    self.links += (self[name].attach_freplace(replaces, program.attach_target),)
                elif program.attach_type in ATTACH_TYPES and traces is not None:
                    self.links += (attach_by_section(self[name], traces),)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Detach what was attached at the start, free code and maps once no link needs them; twice is fine."""
        with attach_lock():
            for link in self.links:
                link.close()
            if not self.is_closed:
                self.is_closed = True
                self._free_unless_held()

    def unload(self, name: str) -> None:
        """Free a program's code once no thread is in it; asked for again, it is compiled again.

        RejectedError (EBUSY) while it is attached, and while hooks, tail-call tables or timers hold it.
        """
        with self._lock, attach_lock():
            running = self._programs.get(self.loaded.program(name).name)
            if running is None:
                return
            block = running.image.block
            is_timed = self.world.timers.calls_into(block.address, block.address + block.size)
            if running.is_attached or running.is_hooked or running.hooks.tables or is_timed:
                said = f"'{name}' is busy: it is attached, or hooks, tail-call tables or timers hold it"
                raise RejectedError([Diagnostic("program-busy", said, errno=EBUSY)])
            del self._programs[running.program.name]
            running.end()
            epochs().retire(running.close)

    def hold(self) -> None:
        """Keep code and maps although the runtime is closed: a link needs them."""
        self._holds += 1

    def release(self) -> None:
        """Undo a `hold`."""
        with attach_lock():
            self._holds -= 1
            if self.is_closed:
                self._free_unless_held()

    def _free_unless_held(self) -> None:
        if self._holds:
            return
        for running in (*self._programs.values(), *self._retired):
            running.end()
        self.world.timers.end()
        epochs().retire(self._free)

    def _free(self) -> None:
        """Free code and maps: no thread is in them."""
        for running in (*self._programs.values(), *self._retired):
            running.close()
        self.world.close()

    def _program(self, name: str) -> RunningProgram:
        """The running form of a program, compiled anew when the user has overridden other helpers since."""
        program = self.loaded.program(name)
        running = self._programs.get(program.name)
        if running is not None and (running.overridden == self.world.overridden or running.is_hooked):
            return running
        if running is not None:
            self._retired.append(running)
        running = self._programs[program.name] = RunningProgram(self, program)
        self.fill_program_arrays(program)
        return running

    def fill_program_arrays(self, program: Program) -> None:
        """Compile what the object puts into the program arrays that `program` can jump through."""
        if not self.world.maps:
            return
        from runtime.maps.slots import SlotView  # late: there are programs without maps

        for name in sorted({reference.name for reference in program.references.values()}):
            view = self.world.maps.get(name)
            if isinstance(view, SlotView) and view.type is MapType.PROG_ARRAY:
                for index, target in view.live.declared.slots:
                    view[index] = self._program(target)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
