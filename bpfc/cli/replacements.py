"""`--replace FUNC=OBJ:PROG`: programs of other objects in the place of functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bpfc.cli.inputs import assignments
from bpfc.cli.objects import open_object, select_program

if TYPE_CHECKING:
    from bpfc.cli.terminal import Json
    from bpfc.options import Options
    from bpfc.running_program import RunningProgram


@contextmanager
def replaced(target: RunningProgram, values: Iterable[str], options: Options) -> Iterator[list[Json]]:
    """While inside, functions of `target` are replaced; what by what. Raises RejectedError, click.UsageError."""
    with ExitStack() as stack:
        said: list[Json] = []
        for function, place in assignments(values, "--replace"):
            path, wanted = split_place(place)
            loaded = open_object(path)
            program = select_program(loaded, wanted)
            runtime = stack.enter_context(loaded.start(options, target=target.runtime.machine))
            stack.enter_context(target.replace(function, runtime[program.name]))
            said.append({"function": function, "program": program.name, "object": path})
        yield said


def split_place(place: str) -> tuple[str, str | None]:
    """The object and its program in `OBJ:PROG`; PROG may be left out, and OBJ have colons in its folders."""
    path, _, program = place.rpartition(":")
    return (path, program) if path and "/" not in program else (place, None)
