"""`bpfc compile`: native code of a program, for this machine or another, as a file."""

from __future__ import annotations

import os
import sys
from typing import Final

import click

from bpfc.cli.dump import emit_bytes, level_option
from bpfc.cli.objects import object_argument, open_object, program_argument, select_program
from bpfc.cli.root import Command
from bpfc.cli.terminal import Terminal

EMITS: Final = ("obj", "asm", "llvm")


@click.command(cls=Command)
@object_argument
@program_argument
@click.option("--arch", metavar="A", help="For another machine: bpfc targets lists them.")
@click.option("--emit", type=click.Choice(EMITS), default="obj", help="What to write.  [default: obj]")
@click.option("-o", "output", metavar="F", default="-", help="Where to; - is stdout.  [default: -]")
@click.option("--set", "assignments", multiple=True, metavar="VAR=V", help="Set a global variable first.")
@level_option
@click.pass_obj
def command(
    terminal: Terminal, /, object_path: str, program: str | None, arch: str | None, emit: str, output: str,
    assignments: tuple[str, ...], level: str,
) -> None:  # fmt: skip
    """Compile a program: an ELF object, assembly text, or LLVM IR.

    Names that the runtime defines stay open in it: map.NAME, value.NAME, helper.ID. --set of a constant
    specializes the code: what it decides against is left out.
    """
    if emit == "obj" and output == "-" and sys.stdout.isatty() and not terminal.speaks_json:
        raise click.UsageError("an object is nothing for a terminal: name a file with -o")
    from bpfc.cli.inputs import set_globals
    from bpfc.codegen import Form

    loaded = open_object(object_path)
    set_globals(loaded, assignments)
    chosen = select_program(loaded, program)
    code = emit_bytes(loaded, chosen, level, arch, Form(emit))
    if output != "-":
        _write(output, code)
        said = {"program": chosen.name, "emit": emit, "path": output, "bytes": len(code)}
        if terminal.speaks_json:
            terminal.record("bpfc.compile/1", said)
        terminal.detail(f"wrote {len(code)} bytes to {output}")
    elif terminal.speaks_json:
        content = code if emit == "obj" else code.decode()
        terminal.record("bpfc.compile/1", {"program": chosen.name, "emit": emit, "content": content})
    else:
        sys.stdout.buffer.write(code)


def _write(path: str, code: bytes) -> None:
    """Write the file under another name first: nobody sees half of it."""
    partial = f"{path}.{os.getpid()}.part" if os.path.isfile(path) or not os.path.exists(path) else path
    try:
        with open(partial, "wb") as file:
            file.write(code)
        if partial != path:
            os.replace(partial, path)
    except OSError as error:
        raise click.UsageError(f"cannot write '{path}': {error.strerror}") from None
