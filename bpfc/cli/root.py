"""The root command: imports a command when it is called, and takes the global options anywhere.

bpfc -j show filter.o  =  bpfc show -j filter.o  =  bpfc show filter.o -j
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, final

import click

from bpfc.cli.codes import BROKEN_PIPE, INTERRUPTED, OK
from bpfc.cli.streams import drop
from bpfc.cli.terminal import CHOICES, Terminal

if TYPE_CHECKING:
    from bpfc.cli.errors import Problem

SUMMARIES: Final[Mapping[str, str]] = {
    "show": "What is in an object: programs, maps, globals, types.",
    "dump": "A program as instructions, SSA form, LLVM IR or native code.",
    "compile": "Native code as an object, assembly or LLVM IR.",
    "run": "Run a program over packets; verdicts, maps, timing.",
    "verify": "Are the programs safe, and if not, why.",
    "btf": "The types in an object.",
    "feature": "What this installation and this machine can do.",
    "bench": "What a program costs: to verify, compile, reload, run.",
    "fuzz": "Campaigns of random cases against the compiler.",
    "passes": "The optimization passes and pipelines.",
    "targets": "The machines there is code for.",
    "conformance-plugin": "Serve the public bpf_conformance suite.",
}
_JSON_FLAG: Final = re.compile(r"-[qvS]*[jp][jpqvS]*|--json|--pretty")


def _store(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep a global option that was said, before or after the command."""
    assert option.name is not None
    if context.get_parameter_source(option.name) is click.core.ParameterSource.DEFAULT:
        return
    terminal = context.find_object(Terminal)
    assert terminal is not None
    added = terminal.verbose + value if option.name == "verbose" else value
    setattr(terminal, option.name, added)


def _version(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version  # late: it takes as long as click

        click.echo(f"bpfc {version('bpfc')}")
        context.exit()


def global_options(hidden: bool) -> list[click.Parameter]:
    """The options that every command takes."""

    def option(*names: str, **attributes: Any) -> click.Option:
        return click.Option(names, expose_value=False, hidden=hidden, **attributes)

    return [
        option("-j", "--json", is_flag=True, callback=_store, help="Results and errors as JSON."),
        option("-p", "--pretty", is_flag=True, callback=_store, help="JSON, indented."),
        option("-q", "--quiet", is_flag=True, callback=_store, help="No remarks on stderr."),
        option("-v", "--verbose", count=True, callback=_store, help="More of them; -vv for more."),
        option("--color", type=click.Choice(CHOICES), callback=_store, help="auto heeds NO_COLOR."),
        option("-V", "--version", is_flag=True, is_eager=True, callback=_version, help="The version."),
    ]


class Command(click.Command):
    """A command of ours: takes the global options too, and gets the Terminal as its context's object."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params += global_options(hidden=True)

    def invoke(self, context: click.Context) -> Any:
        """Run the command; what is wrong with its input becomes words and an exit code."""
        from bpfc.cli.errors import diagnosed, report  # late: help does without
        from ir.diagnostics import DiagnosticError

        try:
            return super().invoke(context)
        except DiagnosticError as error:
            terminal = context.find_object(Terminal)
            assert terminal is not None
            return report(diagnosed(error), terminal)


class Group(click.Group):
    """A command with commands of its own."""

    command_class = Command

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params += global_options(hidden=True)


@final
class Root(click.Group):
    """`bpfc` itself."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(SUMMARIES)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in SUMMARIES:
            return None
        if name == "conformance-plugin":
            return serve_plugin
        command = import_module(f"{__package__}.{name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table: no command is imported for the help of all."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def main(  # type: ignore[override]  # it always ends in SystemExit, so it has no standalone mode
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> None:
        """Run and exit, as the table of exit codes says."""
        words = list(sys.argv[1:] if args is None else args)
        self._main_shell_completion({}, prog_name or "bpfc")
        terminal = Terminal()
        sys.exit(guarded(lambda: self._run(words, prog_name or "bpfc", terminal), terminal, words))

    def _run(self, words: list[str], name: str, terminal: Terminal) -> int:
        with self.make_context(name, words, obj=terminal) as context:
            answer = self.invoke(context)
        return answer if isinstance(answer, int) else OK


def guarded(run: Callable[[], int], terminal: Terminal, words: Sequence[str]) -> int:
    """`run()`, its exceptions turned into words and exit codes."""
    try:
        code = run()
        sys.stdout.flush()
        return code
    except click.exceptions.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        drop(sys.stdout)
        return BROKEN_PIPE
    except (click.ClickException, OSError) as error:
        from bpfc.cli.errors import problem_of  # late: only when something is wrong

        problem = problem_of(error)
        if problem is None:
            raise
        terminal.json |= any(_JSON_FLAG.fullmatch(word) for word in words)
        return _report(problem, terminal)


def _report(problem: Problem, terminal: Terminal) -> int:
    """Say it where that can be said: on stdout with -j, unless that is full; on stderr, unless that is."""
    from bpfc.cli.errors import report  # late, as above

    try:
        report(problem, terminal)
    except OSError:
        terminal.json = terminal.pretty = False
        try:
            report(problem, terminal)
        except OSError:
            drop(sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        drop(sys.stdout)
    return problem.exit_code


@click.command(
    "conformance-plugin", context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
@click.pass_context
def serve_plugin(context: click.Context) -> int:
    """Serve the public bpf_conformance suite: hex program on stdin, hex memory as argument, r0 on stdout.

    Started as the first word (`bpfc conformance-plugin ...`) it does not load the rest of the command line.
    """
    from bpfc.cli.conformance import serve  # late: the interpreter

    return serve(context.args)


@click.group(
    cls=Root,
    params=global_options(hidden=False),
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 yes, 1 the answer is no, 2 usage, 3 unreadable input, 4 unsupported here.",
)
def root() -> None:
    """Compile, inspect and run eBPF programs in userspace.

    OBJ is an ELF object as clang makes them, or assembly text (.s); - is stdin. PROG is a function, a section
    or a glob. The global options may stand before or after the command.
    """
