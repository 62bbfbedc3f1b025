"""Programs around functions: fentry, fexit and fmod_ret on BPF programs and on native functions.

    with rt["count"].attach_fentry(other["filter"], "parse") as link: ...
    with rt["count"].attach_fexit(libz.crc32): ...              a ctypes function

The program is compiled for the function that it is attached to: its context is the function's arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from errno import EBADF, EINVAL, EOPNOTSUPP
from typing import TYPE_CHECKING, Final, final

from backends import image_parts as records
from backends.native_code import Needs
from backends.target import Pairs
from bpfc.compile import compile_program
from bpfc.links import Link, LinkKind
from bpfc.places import Place
from ir.btf import Btf
from ir.context import XDP_MD, ContextLayout
from ir.diagnostics import Diagnostic, Location, RejectedError
from ir.fit_objects import fit_to_objects
from ir.function_model import Model, Value, model_of, points_to, prototype_of
from ir.hook_objects import XDP_BUFF
from ir.kinds import ProgramType
from ir.object import Map
from runtime.epoch import epochs
from runtime.execution import Segment
from runtime.hook import ProgramHooks, attach_lock
from runtime.limits import Limits
from runtime.linker import LinkedImage, link
from runtime.memory import DataBlock
from runtime.native_entry import NativeFunction
from runtime.records import Word
from runtime.space import Space
from runtime.trampoline import Trampoline, When

if TYPE_CHECKING:
    from bpfc.attachable import Attachable
    from bpfc.running_program import RunningProgram

WHEN: Final = {
    LinkKind.FENTRY: When.ENTRY,
    LinkKind.FMOD_RET: When.OVERRIDE,
    LinkKind.FEXIT: When.EXIT,
    LinkKind.FSESSION: When.SESSION,
}


def place_of(target: RunningProgram) -> Place:
    """A running program as a place to attach to."""
    runtime = target.runtime
    places = target.attached_places
    if places:  # tracing programs and extensions run in the form that they were attached in
        return places[-1]
    btf = runtime.loaded.object.btf
    return Place(
        *(target.program, target, btf, target.hooks, target.image),
        lambda: not runtime.is_closed,
        runtime.hold,
        runtime.release,
    )


def attach_bpf(program: Attachable, target: Place, function: str | None, kind: LinkKind, cookie: int) -> Link:
    """Attach to a BPF function: `function` of `target`, its main if not said. Raises RejectedError."""
    with attach_lock():
        for name, is_open in (
            (program.program.name, not program.runtime.is_closed),
            (target.program.name, target.is_open()),
        ):
            if not is_open:
                raise _refused("closed", f"the object of '{name}' was closed", EBADF)
        space = program.runtime.world.space
        space.require_same(target.hooks.space, program.program.name, target.program.name)
        name = function or target.program.name
        info = next((found for found in target.program.functions if found.name == name), None)
        if info is None or name not in target.hooks.functions:
            why = "is static" if info is not None and not info.is_global else "is not in the program"
            said = f"function '{name}' of '{target.program.name}' can't be traced: it {why}"
            raise _refused("no-such-function", said, EINVAL)
        if kind is LinkKind.FMOD_RET:
            said = (
                f"the result of BPF function '{name}' can't be replaced; fexit sees it, freplace replaces all"
            )
            raise _refused("not-overridable", said, EINVAL)
        is_tracer = target.program.type is ProgramType.TRACING
        if is_tracer and target.source.traces_tracer:
            said = f"'{target.program.name}' traces a tracing program already"
            raise _refused("traces-tracer", said, EINVAL)
        hook = target.hooks.hook(name)
        hook.require_traceable()
        model = model_of(target.btf, info.btf_id, name)
        objects = _objects(target.btf, info.btf_id, model)
        traced = program.traced(model, kind, objects)
        program.traces_tracer |= is_tracer
        if hook.trampoline is None:
            hook.trampoline = Trampoline(hook, model, True, target.image.address_of(name))
        detach = _attach(hook.trampoline, program, traced, kind, cookie)
        target.hold()
        return Link(kind, program, target.program.name, name, _then(detach, target.release), cookie)


def attach_native(program: Attachable, target: NativeFunction, kind: LinkKind, cookie: int) -> Link:
    """Attach to a native function. Raises RejectedError."""
    with attach_lock():
        if program.runtime.is_closed:
            raise _refused("closed", f"the object of '{program.program.name}' was closed", EBADF)
        space = program.runtime.world.space
        space.require_same(target.hook.space, program.program.name, target.name)
        result = target.model.result
        if kind is not LinkKind.FENTRY and result.size > 8:
            said = f"'{target.name}' returns {result.size} bytes; only fentry can be attached to it"
            raise _refused("wide-result", said, EOPNOTSUPP)
        word, pairs = space.target.word, space.target.calling.pairs
        if pairs is Pairs.UNKNOWN and any(_is_wide(value, word) for value in target.model.arguments):
            said = f"'{target.name}' takes a structure of more than {word} bytes, whose way on {space.target.name} is not known"
            raise _refused("wide-argument", said, EOPNOTSUPP)
        if kind is LinkKind.FMOD_RET and not target.may_override:
            said = f"'{target.name}' does not say that its result may be replaced"
            raise _refused("not-overridable", said, EINVAL)
        if kind is LinkKind.FMOD_RET and (not result.size or result.is_float):
            said = f"'{target.name}' does not return an integer, so nothing can stand for it"
            raise _refused("not-overridable", said, EINVAL)
        trampoline = target.hook.trampoline
        if trampoline is None or not trampoline.links:
            trampoline = Trampoline(target.hook, target.model, False, target.address)
        elif trampoline.model != target.model:
            said = f"'{target.name}' is traced already, with another prototype"
            raise _refused("other-prototype", said, EINVAL)
        traced = program.traced(target.model, kind)
        target.hook.trampoline = trampoline
        detach = _attach(trampoline, program, traced, kind, cookie)
        return Link(kind, program, target.name, target.name, detach, cookie)


def _is_wide(value: Value, word: int) -> bool:
    """Whether an argument takes several registers in a way that depends on more than its size."""
    return value.size > word if value.is_struct else value.size > 8 > word


def _attach(
    trampoline: Trampoline, program: Attachable, traced: TracedProgram, kind: LinkKind, cookie: int
) -> Callable[[], None]:
    traced.hold()
    try:
        attachment = trampoline.attach(WHEN[kind], traced, cookie)
    finally:
        traced.release()
    return lambda: trampoline.detach(attachment)


def _then(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    """`first` now, `second` when nobody can be in what it made unreachable."""

    def both() -> None:
        first()
        epochs().retire(second)

    return both


@final
class Statistics:
    """The counters of a program, for all its links: kept natively in one record, with its guard."""

    def __init__(self, segments: tuple[Segment, ...], limits: Limits, space: Space) -> None:
        self._threads = threads = space.hooks.threads
        rows = [threads.stacks, *segments]
        words = [0] * (records.RECORD_SIZE // 8)
        words[records.RECORD_SEGMENT_COUNT // 8] = len(rows)
        words[records.RECORD_FUEL // 8] = limits.fuel
        with ExitStack() as undo:
            self._table = _SegmentTable(rows, space)
            undo.callback(self._table.close)
            self.guard = threads.take_guard()
            undo.callback(threads.give_guard, self.guard)
            words[records.RECORD_GUARD // 8] = self.guard
            words[records.RECORD_SEGMENTS // 8] = self._table.address
            self.word = Word(space.hooks.records, words)
            undo.pop_all()

    @property
    def recursion_misses(self) -> int:
        """How often the program was skipped because it was running on the thread already."""
        return self.word.get(records.RECORD_MISSES // 8)

    @property
    def run_cnt(self) -> int:
        """How often it ran while statistics were on."""
        return self.word.get(records.RECORD_RUNS // 8)

    @property
    def run_time_ns(self) -> int:
        """How long it ran while statistics were on."""
        return self.word.get(records.RECORD_NS // 8)

    def close(self) -> None:
        """Give the memory back."""
        if self.word.address:
            self._threads.give_guard(self.guard)
            self.word.close()
            self._table.close()


@final
class TracedProgram:
    """A program compiled for functions of one model, while somebody holds it."""

    def __init__(
        self, program: Attachable, model: Model, kind: LinkKind, objects: tuple[tuple[int, str], ...]
    ) -> None:
        self._program = program
        world = program.runtime.world
        maps: dict[str, Map] = dict(world.declared)
        context = replace(_context(model, kind), objects=dict(objects))
        source = replace(program.program, attach_type=None)
        if objects:
            source = fit_to_objects(source, program.runtime.loaded.object.btf)
        target = world.space.compile_target
        compiled = compile_program(source, maps, program.runtime.options, world.overridden, context, target)
        self.image: LinkedImage = link(compiled.code, world.resolve, world.pool)
        program.take_image(self.image)
        self.address = self.image.address_of(source.name)
        self.hooks = ProgramHooks(source.name, self.image, world.space)
        self._holds = 0

    @property
    def place(self) -> Place:
        """Where others can trace the program."""
        runtime = self._program.runtime
        return Place(
            *(self._program.program, self._program, runtime.loaded.object.btf, self.hooks, self.image),
            lambda: not runtime.is_closed,
            self.hold,
            self.release,
        )

    @property
    def is_held(self) -> bool:
        """Whether somebody's hooks run it."""
        return self._holds > 0

    @property
    def record(self) -> int:
        """Where its statistics and its guard are."""
        return self._program.statistics.word.address

    @property
    def guard(self) -> int:
        """Where its guard is in threads' blocks."""
        return self._program.statistics.guard

    @property
    def needs(self) -> Needs:
        """What it reads of what an image prepares."""
        return self.image.code.needs

    @property
    def identity(self) -> object:
        """The program."""
        return self._program

    def hold(self) -> None:
        """Keep it, and its object."""
        if not self._holds:
            self._program.runtime.hold()
        self._holds += 1

    def release(self) -> None:
        """Undo a `hold`."""
        self._holds -= 1
        if not self._holds:
            self._program.runtime.release()


@final
class _SegmentTable:
    """Segments as compiled code reads them."""

    def __init__(self, rows: list[Segment], space: Space) -> None:
        order = space.target.byte_order
        words = [word for row in rows for word in row.words]
        self._block: DataBlock = space.pool.allocate_data(8 * len(words))
        self.address = self._block.address
        self._block.view[: 8 * len(words)] = b"".join(word.to_bytes(8, order) for word in words)

    def close(self) -> None:
        """Give the memory back."""
        self._block.close()


def _context(model: Model, kind: LinkKind) -> ContextLayout:
    """The slots of the arguments, and the result where there is one yet; r0 must be 0 unless it is a result."""
    slots = model.slots + (kind is not LinkKind.FENTRY)
    returns = None if kind is LinkKind.FMOD_RET else (0, 0)
    return ContextLayout("the arguments", 8 * slots, returns=returns)


def _objects(btf: Btf | None, function_id: int, model: Model) -> tuple[tuple[int, str], ...]:
    """(offset in the context, structure) of each argument that is the context of an XDP program."""
    prototype = prototype_of(btf, function_id)
    if btf is None or prototype is None:
        return ()
    found = []
    slot = 0
    for parameter, value in zip(prototype.parameters, model.arguments, strict=True):
        if points_to(btf, parameter.type_id) == XDP_MD.name:
            found.append((8 * slot, XDP_BUFF))
        slot += value.slots
    return tuple(found)


def _refused(code: str, message: str, errno: int) -> RejectedError:
    return RejectedError([Diagnostic(code, message, Location(), errno=errno)])
