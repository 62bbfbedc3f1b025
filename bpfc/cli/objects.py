"""The arguments OBJ and PROG: what is loaded, and which of its programs are meant."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from bpfc.cli.terminal import Terminal
from ir.diagnostics import Diagnostic, Location, RejectedError, known_names

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from bpfc.loaded import Loaded
    from ir.object import Program

ASSEMBLY = (".s", ".asm")


def object_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds OBJ."""
    return click.argument("object_path", metavar="OBJ", type=click.Path(allow_dash=True))(command)


def program_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds PROG, which may be left out."""
    return click.argument("program", metavar="[PROG]", required=False, shell_complete=_complete)(command)


def with_object(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a command's function of `function(terminal, loaded, program, **options)`.

    Adds OBJ, PROG, --btf and --set; `program` stays the text of PROG, None when it is left out.
    """

    def run(
        terminal: Terminal,
        /,
        object_path: str,
        program: str | None,
        btf: str | None,
        set: tuple[str, ...],
        **options: Any,
    ) -> Any:
        from bpfc.cli.inputs import set_globals  # late, as the reader

        loaded = open_object(object_path, btf)
        set_globals(loaded, set)
        return function(terminal, loaded, program, **options)

    for attribute in ("__doc__", "__name__", "__click_params__"):
        setattr(run, attribute, getattr(function, attribute, []))
    kernel = "Fit CO-RE programs to these kernel types: a file of BTF, or 'kernel' for the running kernel's."
    command = click.option("--btf", metavar="F|kernel", help=kernel)(click.pass_obj(run))
    variable = "Set a global variable before compiling."
    command = click.option("--set", multiple=True, metavar="VAR=V", help=variable)(command)
    return object_argument(program_argument(command))


def open_object(path: str, btf: str | None = None) -> Loaded:
    """The object in a file, `-` for stdin, fitted to the types in `btf`.

    Raises what `bpfc.load`, `bpfc.assemble` and `Loaded.fit` raise.
    """
    from bpfc.kernel_types import KERNEL_TYPES  # late, as the reader
    from bpfc.loaded import load

    if path.endswith(ASSEMBLY):
        return _assemble(path)
    loaded = load(sys.stdin.buffer, "<stdin>") if path == "-" else load(path)
    if btf is not None:
        loaded.fit(KERNEL_TYPES if btf == "kernel" else btf)
    return loaded


def _assemble(path: str) -> Loaded:
    from bpfc.loaded import assemble

    with open(path) as file:
        return assemble(file.read())


def select_programs(loaded: Loaded, wanted: str | None) -> list[Program]:
    """The programs that PROG means: a function, else a section, else what a glob matches; None is all."""
    programs = list(loaded.programs.values())
    if wanted is None:
        return programs
    found = [program for program in programs if program.name == wanted]
    found = found or [program for program in programs if program.section == wanted]
    found = found or [p for p in programs if fnmatchcase(p.name, wanted) or fnmatchcase(p.section, wanted)]
    if not found:
        said = f"no program is called '{wanted}', and no section with programs"
        notes = (f"there are: {known_names(loaded.programs)}",)
        raise RejectedError(
            [Diagnostic("no-such-program", said, Location(file=loaded.object.name), notes=notes)]
        )
    return found


def select_program(loaded: Loaded, wanted: str | None) -> Program:
    """The one program that PROG means. Raises click.UsageError when it is more than one."""
    found = select_programs(loaded, wanted)
    if not found:
        raise RejectedError(
            [Diagnostic("no-program", "there is no program in it", Location(file=loaded.object.name))]
        )
    if len(found) > 1:
        raise click.UsageError(f"name one program: {', '.join(program.name for program in found)}")
    return found[0]


def _complete(context: click.Context, argument: click.Parameter, begun: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem  # late: only while a shell completes

    from ir.diagnostics import DiagnosticError

    try:
        loaded = open_object(context.params["object_path"])
    except (DiagnosticError, OSError, KeyError):
        return []
    return [CompletionItem(name) for name in loaded.programs if name.startswith(begun)]
