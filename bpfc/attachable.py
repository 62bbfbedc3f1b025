"""The side of a running program that attaches it: to functions that it replaces, or runs around."""

from __future__ import annotations

from errno import EINVAL
from functools import cached_property
from typing import TYPE_CHECKING

from ir.diagnostics import Diagnostic, RejectedError
from ir.kinds import ProgramType

if TYPE_CHECKING:
    from bpfc.extension import Extension
    from bpfc.links import Link, LinkKind
    from bpfc.places import Place
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram
    from bpfc.tracing import Statistics, TracedProgram
    from ir.function_model import Model
    from ir.object import Program
    from runtime.hook import ProgramHooks
    from runtime.linker import LinkedImage


class Attachable:
    """Attaches `self.program`; a RunningProgram is one. `warnings` has what was odd about it but allowed."""

    program: Program
    runtime: Runtime

    def __init__(self) -> None:
        self.warnings: list[Diagnostic] = []
        self.traces_tracer = False
        self._traced: dict[tuple[Model, LinkKind, tuple[tuple[int, str], ...]], TracedProgram] = {}

    @property
    def hooks(self) -> ProgramHooks:
        """What is attached to the program's functions."""
        raise NotImplementedError

    def take_image(self, image: LinkedImage) -> None:
        """Let static keys switch an image that was made of the program."""
        raise NotImplementedError

    def drop_image(self, image: LinkedImage) -> None:
        """Free such an image."""
        raise NotImplementedError

    @cached_property
    def extension(self) -> Extension:
        """The program as one that replaces functions."""
        from bpfc.extension import Extension  # late: few programs are extensions

        return Extension(self)

    def set_attach_target(self, target: RunningProgram, function: str) -> None:
        """Load for a function of `target`, which `attach_freplace` without arguments replaces, once.

        Raises RejectedError: EINVAL, EBADF, EACCES, E2BIG.
        """
        self.extension.load(target, function)

    def attach_freplace(
        self,
        target: RunningProgram | None = None,
        function: str | None = None,
        *,
        instead_of: Link | None = None,
    ) -> Link:
        """Let this program stand for a global function of `target`: that of `set_attach_target`, if not said.

        With `instead_of`, in the place of that link's extension, which is detached: no call in between runs the function.
        Raises RejectedError: EINVAL, EBUSY, EBADF, EACCES, E2BIG.
        """
        return self.extension.attach(target, function, instead_of)

    def attach_fentry(self, target: object, function: str | None = None, *, cookie: int = 0) -> Link:
        """Run before `function` (main, if not said) of a running program, or before a ctypes function."""
        return self._attach(target, function, "fentry", cookie)

    def attach_fexit(self, target: object, function: str | None = None, *, cookie: int = 0) -> Link:
        """Run after `function` (main, if not said) of a running program, or after a ctypes function."""
        return self._attach(target, function, "fexit", cookie)

    def attach_fsession(self, target: object, function: str | None = None, *, cookie: int = 0) -> Link:
        """Run before and after `function`; `bpf_session_cookie` is a word that the program keeps in between."""
        return self._attach(target, function, "fsession", cookie)

    def attach_fmod_ret(self, target: object, function: str | None = None, *, cookie: int = 0) -> Link:
        """Run before a native function that allows it; a result that is not 0 stands for the call."""
        return self._attach(target, function, "fmod_ret", cookie)

    def attach_as(
        self, kind: LinkKind, target: object, function: str | None = None, *, cookie: int = 0
    ) -> Link:
        """Run around `function` in one of the ways above."""
        return self._attach(target, function, kind.value, cookie)

    @cached_property
    def statistics(self) -> Statistics:
        """The counters of the program as one that hooks start; see `bpfc.enable_stats`."""
        from bpfc.tracing import Statistics  # late: few programs are attached

        world = self.runtime.world
        return Statistics(world.segments(), self.runtime.limits, world.space)

    def traced(
        self, model: Model, kind: LinkKind, objects: tuple[tuple[int, str], ...] = ()
    ) -> TracedProgram:
        """The program compiled for functions of a model. `objects`: what arguments point to (ContextLayout)."""
        from bpfc.tracing import TracedProgram  # late, as above

        found = self._traced.get((model, kind, objects))
        if found is None:
            found = self._traced[model, kind, objects] = TracedProgram(self, model, kind, objects)
        return found

    @property
    def attached_places(self) -> tuple[Place, ...]:
        """Where it can be traced in the forms that it was compiled in for functions."""
        extension: Extension | None = self.__dict__.get("extension")
        forms = tuple(extension.forms.values()) if extension is not None else ()
        return (*(traced.place for traced in self._traced.values()), *(form.place for form in forms))

    @property
    def is_attached(self) -> bool:
        """Whether it stands for a function, or runs around one."""
        is_extending = "extension" in self.__dict__ and self.extension.links > 0
        return is_extending or any(traced.is_held for traced in self._traced.values())

    def join_table(self) -> None:
        """A tail-call table is about to hold the program. RejectedError: EINVAL for extensions, EBUSY for extended ones."""
        if self.program.type is ProgramType.EXT:
            said = f"'{self.program.name}' is an extension; tail-call tables do not hold those"
            raise RejectedError([Diagnostic("extension-in-table", said, errno=EINVAL)])
        self.hooks.join_table()

    def leave_table(self) -> None:
        """A table holds the program no longer."""
        self.hooks.leave_table()

    def close_attached(self) -> None:
        """Free what was made for attaching; nobody is attached any more."""
        for traced in self._traced.values():
            self.drop_image(traced.image)
        self._traced.clear()
        if "extension" in self.__dict__:
            self.extension.close()
        if "statistics" in self.__dict__:
            self.statistics.close()

    def _attach(self, target: object, function: str | None, kind: str, cookie: int) -> Link:
        from bpfc.links import Link, LinkKind  # late: few programs are attached
        from bpfc.running_program import RunningProgram
        from bpfc.tracing import attach_bpf, attach_native, place_of
        from runtime.native_entry import NativeFunction, function_of

        if isinstance(target, RunningProgram):
            return attach_bpf(self, place_of(target), function, LinkKind(kind), cookie)
        if isinstance(target, Link):
            if target.place is None:
                said = f"{target!r} has no code of its own to attach to"
                raise RejectedError([Diagnostic("no-attach-target", said, errno=EINVAL)])
            return attach_bpf(self, target.place, function, LinkKind(kind), cookie)
        native = target if isinstance(target, NativeFunction) else function_of(target)
        return attach_native(self, native, LinkKind(kind), cookie)
