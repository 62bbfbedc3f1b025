"""`bpfc compile`: native code of a program, for this machine or another, as a file."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import click

from bpfc.cli.dump import arch_option, emit_bytes, level_option
from bpfc.cli.objects import select_program, with_object
from bpfc.cli.root import Command
from bpfc.cli.terminal import Terminal

if TYPE_CHECKING:
    from bpfc.loaded import Loaded

EMITS: Final = ("obj", "asm", "llvm")


@click.command(cls=Command)
@with_object
@arch_option
@click.option("--emit", type=click.Choice(EMITS), default="obj", help="What to write.  [default: obj]")
@click.option("-o", "output", metavar="F", default="-", help="Where to; - is stdout.  [default: -]")
@level_option
def command(
    terminal: Terminal, loaded: Loaded, program: str | None, arch: str | None, emit: str, output: str, level: str
) -> None:  # fmt: skip
    """Compile a program: an ELF object, assembly text, or LLVM IR.

    Names that the runtime defines stay open in it: map.NAME, value.NAME, helper.ID. --set of a constant
    specializes the code: what it decides against is left out.
    """
    if emit == "obj" and output == "-" and sys.stdout.isatty() and not terminal.speaks_json:
        raise click.UsageError("an object is nothing for a terminal: name a file with -o")
    from bpfc.codegen import Form  # late: llvmlite

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
