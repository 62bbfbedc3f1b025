"""`--attach HOW:FUNC=PROG`: programs around functions of the one that runs, and what became of them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self, final

import click

from bpfc.cli.inputs import assignments
from bpfc.cli.objects import open_object, select_program
from bpfc.cli.replacements import split_place
from bpfc.cli.run_report import contents_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bpfc.cli.terminal import Json
    from bpfc.links import Link
    from bpfc.options import Options
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram


@final
class Attachments:
    """What is attached to functions of `target` while inside. Runs are counted and timed.

    PROG is one of the target's own object, or `OBJ:PROG`; each object is started once. Entering raises RejectedError,
    click.UsageError.
    """

    def __init__(self, target: RunningProgram, values: Iterable[str], options: Options) -> None:
        self._target, self._values, self._options = target, values, options
        self._stack = ExitStack()
        self._started: dict[str, Runtime] = {}
        self._links: list[tuple[Link, str]] = []

    def __enter__(self) -> Self:
        from bpfc.attaching import enable_stats  # late: it brings the runtime in

        with self._stack:
            for place, program in assignments(self._values, "--attach"):
                if not self._links:
                    self._stack.enter_context(enable_stats())
                self._links.append(self._attach(place, program))
                self._stack.enter_context(self._links[-1][0])
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def report(self) -> Json:
        """What is attached, how often and long it ran, and what is in the maps and variables of other objects."""
        rows = [
            {
                "kind": link.kind.value,
                "function": link.function,
                "program": link.program.program.name,
                "object": path or None,
                "run_cnt": link.program.statistics.run_cnt,
                "run_time_ns": link.program.statistics.run_time_ns,
                "recursion_misses": link.program.statistics.recursion_misses,
            }
            for link, path in self._links
        ]
        tracers = {path: contents_json(runtime.loaded, runtime) for path, runtime in self._started.items()}
        return {"attached": rows, "tracers": tracers}

    def _attach(self, place: str, program: str) -> tuple[Link, str]:
        from bpfc.links import LinkKind

        kind, _, function = place.partition(":")
        kinds = [known.value for known in LinkKind if known is not LinkKind.FREPLACE]
        if kind not in kinds or not function:
            said = f"--attach: '{place}' is not HOW:FUNC; HOW is one of {', '.join(kinds)}"
            raise click.UsageError(said)
        own = self._target.runtime
        if program in own.loaded.programs:
            return own[program].attach_as(LinkKind(kind), self._target, function), ""
        path, wanted = split_place(program)
        runtime = self._started.get(path)
        if runtime is None:
            runtime = self._stack.enter_context(open_object(path).start(self._options, target=own.machine))
            self._started[path] = runtime
        name = select_program(runtime.loaded, wanted).name
        return runtime[name].attach_as(LinkKind(kind), self._target, function), path
