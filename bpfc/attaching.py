"""Attach a program as its section says, and the statistics of what is attached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL
from typing import TYPE_CHECKING

from ir.diagnostics import Diagnostic, RejectedError
from ir.kinds import AttachType, ProgramType

if TYPE_CHECKING:
    from bpfc.links import Link
    from bpfc.running import RunningProgram


def attach(program: RunningProgram, target: object, function: str | None = None, *, cookie: int = 0) -> Link:
    """Attach `program` to `target` (a running program, or a ctypes function) the way its section says.

    `function` defaults to the one that the section names (`SEC("fentry/f")`). Raises RejectedError.
    """
    from bpfc.running import RunningProgram  # late: it brings the runtime in

    source = program.program
    named = function
    if isinstance(target, RunningProgram) and named is None:
        names = [info.name for info in target.program.functions]
        named = source.attach_target if source.attach_target in names else None
    if source.type is ProgramType.EXT:
        if not isinstance(target, RunningProgram):
            raise _refused(f"'{source.name}' is an extension; it replaces functions of running programs")
        return program.attach_freplace(target, named or source.attach_target)
    match source.attach_type:
        case AttachType.TRACE_FENTRY:
            return program.attach_fentry(target, named, cookie=cookie)
        case AttachType.TRACE_FEXIT:
            return program.attach_fexit(target, named, cookie=cookie)
        case AttachType.MODIFY_RETURN:
            return program.attach_fmod_ret(target, cookie=cookie)
        case _:
            said = f"section '{source.section}' of '{source.name}' does not say how to attach it"
            raise _refused(f"{said}; wanted fentry, fexit, fmod_ret or freplace")


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
