"""`bpfc compile`: native code of a program, for this machine or another, as a file."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import click

from bpfc.cli.dump import arch_option, emit_bytes, level_option
from bpfc.cli.explain import explain_for, explain_option, explanation_json, explanation_text
from bpfc.cli.objects import select_program, select_programs, with_object
from bpfc.cli.root import Command
from bpfc.cli.terminal import Terminal

if TYPE_CHECKING:
    from bpfc.loaded import Loaded
    from bpfc.options import Options

EMITS: Final = ("obj", "so", "asm", "llvm")
ALL: Final = "all"
BYTECODE: Final = ("bpfel", "bpfeb")


@final
@dataclass(frozen=True, slots=True)
class Request:
    """The options of the command."""

    arch: str | None
    emit: str
    output: str
    level: str
    keep_rodata: bool
    explain_branches: bool
    cpus: int

    @property
    def is_binary(self) -> bool:
        """Whether what comes out is no text."""
        return self.emit in ("obj", "so")

    @property
    def options(self) -> Options:
        """How to compile."""
        from bpfc.options import Options  # late, as everything behind a command

        return Options(level=self.level, fold=not self.keep_rodata)


@click.command(cls=Command)
@with_object
@arch_option
@click.option("--emit", type=click.Choice(EMITS), default="obj", help="What to write.  [default: obj]")
@click.option("-o", "output", metavar="F", default="-", help="Where to; - is stdout.  [default: -]")
@click.option("--keep-rodata", is_flag=True, help="Leave what constants decide to who loads it.")
@click.option(
    "--cpus", metavar="N", type=click.IntRange(1), default=1, help="Values of a key in per-cpu maps."
)
@level_option
@explain_option
def command(terminal: Terminal, loaded: Loaded, program: str | None, **wanted: Any) -> None:
    """Compile programs: an ELF object, a shared library, assembly text, or LLVM IR.

    C programs link against the object, or load the library: bpfc_aot.h has the tables of programs and maps in it. All
    programs when PROG is left out; LLVM IR is of one, as bpfc's own runtime takes it. --set of a constant specializes
    the code: what it decides against is left out. For bpfel and bpfeb, bytecode for Linux to load. --arch all writes a
    file for each target of the programs' byte order: put {arch} into the name of -o.
    """
    request = Request(**wanted)
    if request.arch == ALL:
        _emit_all(terminal, loaded, program, request)
        return
    if request.is_binary and request.output == "-" and sys.stdout.isatty() and not terminal.speaks_json:
        raise click.UsageError("an object is nothing for a terminal: name a file with -o")
    emit = _emit_bytecode if request.arch in BYTECODE else _emit_native
    names, code = emit(loaded, program, request)
    called: dict[str, object] = {"program": names[0]} if len(names) == 1 else {"programs": list(names)}
    if request.explain_branches:
        called |= _explain(terminal, loaded, names, request)
    if request.output != "-":
        _write(request.output, code)
        said = {**called, "emit": request.emit, "path": request.output, "bytes": len(code)}
        if terminal.speaks_json:
            terminal.record("bpfc.compile/1", said)
        terminal.detail(f"wrote {len(code)} bytes to {request.output}")
    elif terminal.speaks_json:
        content = code if request.is_binary else code.decode()
        terminal.record("bpfc.compile/1", {**called, "emit": request.emit, "content": content})
    else:
        sys.stdout.buffer.write(code)


def _explain(
    terminal: Terminal, loaded: Loaded, names: tuple[str, ...], request: Request
) -> dict[str, object]:
    """Say what constants decided on stderr, or give it for the JSON."""
    arch = None if request.arch in BYTECODE else request.arch
    found = [explain_for(loaded, loaded.program(name), request.level, arch) for name in names]
    if not terminal.speaks_json:
        terminal.note(explanation_text(found))
    return {"explanations": [explanation_json(one) for one in found]}


def _emit_native(loaded: Loaded, program: str | None, request: Request) -> tuple[tuple[str, ...], bytes]:
    from backends.registry import host, target_named  # late: llvmlite, as what follows

    if request.emit == "llvm":
        from bpfc.codegen import Form

        chosen = select_program(loaded, program)
        return (chosen.name,), emit_bytes(loaded, chosen, request.options, request.arch, Form.LLVM)
    from bpfc.aot import emit_aot

    names = tuple(one.name for one in select_programs(loaded, program))
    target = target_named(request.arch) if request.arch else host()
    return names, emit_aot(loaded, names, target, request.emit, request.options, request.cpus)


def _emit_all(terminal: Terminal, loaded: Loaded, program: str | None, request: Request) -> None:
    """One file a target; programs are checked and optimized once."""
    from backends.registry import NAMES, target_named
    from bpfc.aot import emit_aot
    from bpfc.codegen import Front

    if "{arch}" not in request.output or request.emit == "llvm":
        raise click.UsageError(
            "--arch all writes obj, so or asm to several files: put {arch} into the name of -o"
        )
    names = tuple(one.name for one in select_programs(loaded, program))
    order = "big" if any(loaded.program(name).big_endian for name in names) else "little"
    fronts: dict[str, Front] = {}
    for target in (target_named(name) for name in NAMES):
        if target.byte_order != order:
            continue
        code = emit_aot(loaded, names, target, request.emit, request.options, request.cpus, fronts)
        path = request.output.replace("{arch}", target.name)
        _write(path, code)
        said = {"programs": list(names), "emit": request.emit, "path": path, "bytes": len(code)}
        if terminal.speaks_json:
            terminal.record("bpfc.compile/1", said)
        terminal.detail(f"wrote {len(code)} bytes to {path}")


def _emit_bytecode(loaded: Loaded, program: str | None, request: Request) -> tuple[tuple[str, ...], bytes]:
    from bpfc.bpf_output import bpf_text, emit_bpf

    assert request.arch is not None, "which is why it is bytecode"
    if request.emit == "obj":
        names = tuple(one.name for one in select_programs(loaded, program))
        return names, emit_bpf(loaded, request.arch, names, request.options)
    if request.emit == "asm":
        name = select_program(loaded, program).name
        return (name,), bpf_text(loaded, request.arch, name, request.options).encode()
    raise click.UsageError(f"--emit {request.emit} is not for {request.arch}, which is bytecode: obj or asm")


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
