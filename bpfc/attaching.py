"""Attach a program as its section says, and the statistics of what is attached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL
from typing import TYPE_CHECKING

from ir.diagnostics import Diagnostic, RejectedError
from ir.kinds import ProgramType

if TYPE_CHECKING:
    from bpfc.links import Link
    from bpfc.running_program import RunningProgram


def attach(program: RunningProgram, target: object, function: str | None = None, *, cookie: int = 0) -> Link:
    """Attach `program` to `target` the way its section says: a running program, a link, or a native function.

    `function` defaults to the one that the section names (`SEC("fentry/f")`), or to main. Raises RejectedError.
    """
    from bpfc.links import ATTACH_TYPES  # late: they bring the runtime in
    from bpfc.running_program import RunningProgram

    source = program.program
    named = function
    if isinstance(target, RunningProgram) and named is None:
        names = [info.name for info in target.program.functions]
        named = source.attach_target if source.attach_target in names else None
    if source.type is ProgramType.EXT:
        if not isinstance(target, RunningProgram):
            raise _refused(f"'{source.name}' is an extension; it replaces functions of running programs")
        return program.attach_freplace(target, named or source.attach_target)
    kind = ATTACH_TYPES.get(source.attach_type) if source.attach_type is not None else None
    if kind is None:
        said = f"section '{source.section}' of '{source.name}' does not say how to attach it"
        raise _refused(f"{said}; wanted fentry, fexit, fsession, fmod_ret or freplace")
    return program.attach_as(kind, target, named, cookie=cookie)


def attach_by_section(program: RunningProgram, target: object) -> Link:
    """Attach `program` to the function that its section names: of a running program, or of a loaded library.

    `target` is a running program, or a library as `bpfc.native` takes it. `SEC("fentry/libz.so:crc32")` names its own.
    Raises RejectedError.
    """
    from bpfc.natives import native  # late: it reads libraries
    from bpfc.running_program import RunningProgram

    name = program.program.attach_target
    library, _, function = name.rpartition(":")
    if library:
        return attach(program, native(library, function))
    if isinstance(target, RunningProgram):
        return attach(program, target, name or None)
    return attach(program, native(target, name))


@contextmanager
def enable_stats() -> Iterator[None]:
    """While inside, the runs of attached programs are counted and timed (`prog.statistics`)."""
    from runtime.hook import attach_lock  # late, as above
    from runtime.space import time_runs

    with attach_lock():
        time_runs(1)
    try:
        yield
    finally:
        with attach_lock():
            time_runs(-1)


def _refused(message: str) -> RejectedError:
    return RejectedError([Diagnostic("cannot-attach", message, errno=EINVAL)])
