"""`bpfc dump`: a program in each of the forms it goes through."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from bpfc.cli.explain import arch_for, explain_for, explain_option, explanation_json, explanation_text
from bpfc.cli.objects import select_program, select_programs, with_object
from bpfc.cli.root import Group
from bpfc.cli.terminal import Terminal

if TYPE_CHECKING:
    from bpfc.loaded import Loaded
    from bpfc.options import Options
    from ir.object import Program

LEVELS: Final = ("auto", "O0", "O1", "O2", "O3")
_SEPARATOR: Final = "\n"
_lines = click.option("-S", "with_lines", is_flag=True, help="With the lines of C.")
_visual = click.option("--visual", is_flag=True, help="The control-flow graph, for graphviz' dot.")
level_option = click.option(
    "--level", type=click.Choice(LEVELS), default="auto", help="How hard to optimize."
)
arch_option = click.option("--arch", metavar="A", help="For another machine: bpfc targets lists them.")


@click.group(cls=Group)
def command() -> None:
    """A program as BPF instructions, SSA form, LLVM IR or native code."""


@command.command("xlated")
@with_object
@_lines
@_visual
@click.option(
    "--symbols", is_flag=True, help="Calls as Linux's tools print them: call pc+40#bpf_prog_TAG_NAME."
)
@click.option("--live", is_flag=True, help="Only what is left once read-only data has decided its branches.")
@explain_option
def xlated(
    terminal: Terminal, loaded: Loaded, program: str | None, with_lines: bool, visual: bool, symbols: bool,
    live: bool, explain_branches: bool,
) -> None:  # fmt: skip
    """The instructions, in the syntax of LLVM and the kernel's verifier."""
    from bpfc.cli.graphs import draw_xlated
    from bpfc.cli.listings import list_xlated, xlated_json

    if explain_branches:
        _explain(terminal, loaded, program, "auto", arch_for(loaded))
        return
    chosen = select_programs(loaded, program)
    if live:
        from bpfc.insn_sets import transformed  # late: few want it

        chosen = [transformed(one, loaded.maps).program for one in chosen]
    if visual:
        _say(terminal, "dot", [(one, draw_xlated(one, loaded.maps)) for one in chosen])
    elif terminal.speaks_json:
        terminal.record("bpfc.dump.xlated/1", {"programs": [xlated_json(one) for one in chosen]})
    elif symbols:
        from bpfc.symbols import list_calls  # late: few want them

        terminal.say(_SEPARATOR.join("\n".join([*list_calls(one), ""]) for one in chosen))
    else:
        terminal.say(_SEPARATOR.join(list_xlated(one, with_lines) for one in chosen))


@command.command("ir")
@with_object
@_lines
@_visual
@level_option
@click.option("--passes", metavar="PIPELINE", help="These instead of the level's: bpfc passes lists them.")
@click.option("--pass-by-pass", is_flag=True, help="The form after each pass that changed something.")
@click.option("--print-after", metavar="PASS", multiple=True, help="The form after this pass.")
@click.option("--validate-each", is_flag=True, help="Check after each pass that the form is well-formed.")
@explain_option
@click.option("--slots", is_flag=True, help="With the instructions that values come from.")
def ir(
    terminal: Terminal, loaded: Loaded, program: str | None, explain_branches: bool, **wanted: Any
) -> None:
    """The SSA form, after the passes."""
    from bpfc.cli.passes_report import Request, optimize

    if explain_branches:
        _explain(terminal, loaded, program, wanted["level"], arch_for(loaded))
        return
    request = Request(**wanted)
    texts = [(one, optimize(one, loaded.maps, request)) for one in select_programs(loaded, program)]
    _say(terminal, "dot" if request.visual else "ir", texts)


@command.command("llvm")
@with_object
@level_option
@arch_option
@explain_option
@click.option("--unoptimized", is_flag=True, help="As lowered, before LLVM's own passes.")
def llvm(
    terminal: Terminal, loaded: Loaded, program: str | None, level: str, arch: str | None,
    explain_branches: bool, unoptimized: bool,
) -> None:  # fmt: skip
    """The LLVM IR."""
    from bpfc.codegen import Form

    if explain_branches:
        _explain(terminal, loaded, program, level, arch)
        return
    form = Form.LOWERED if unoptimized else Form.LLVM
    chosen = select_programs(loaded, program)
    _say(terminal, "llvm", [(one, emit_text(loaded, one, level, arch, form)) for one in chosen])


@command.command("jited")
@with_object
@_lines
@level_option
@arch_option
@explain_option
@click.option("--symbols", is_flag=True, help="Only the symbols: offset, size, name.")
@click.option("--llvm-asm", is_flag=True, help="LLVM's assembly text, even where capstone is installed.")
def jited(
    terminal: Terminal, loaded: Loaded, program: str | None, with_lines: bool, level: str, arch: str | None,
    explain_branches: bool, symbols: bool, llvm_asm: bool,
) -> None:  # fmt: skip
    """The native code, disassembled by capstone (extra: dis), else LLVM's assembly text."""
    from bpfc.cli import native
    from bpfc.codegen import Form

    if explain_branches:
        _explain(terminal, loaded, program, level, arch)
        return
    one = select_program(loaded, program)
    if llvm_asm or not (symbols or terminal.speaks_json or native.can_disassemble()):
        terminal.say(emit_text(loaded, one, level, arch, Form.ASSEMBLY))
        if not llvm_asm:
            terminal.note("capstone would show the bytes too: pip install 'bpfc[dis]'")
        return
    code = native.compile_for(loaded, one, level, arch, with_lines)
    if terminal.speaks_json:
        terminal.record("bpfc.dump.jited/1", native.code_json(one, code))
    elif symbols:
        terminal.stream(native.symbol_lines(code))
    else:
        keys = native.key_names(loaded, one)
        terminal.stream(native.disassemble(code, keys, native.source_texts(one) if with_lines else None))


@command.command("link")
@with_object
@level_option
def link(terminal: Terminal, loaded: Loaded, program: str | None, level: str) -> None:
    """The calls of a program as linked into this process: near or far, and why."""
    from bpfc.cli import native
    from bpfc.options import Options

    one = select_program(loaded, program)
    with loaded.start(Options(level=level)) as runtime:
        image = runtime[one.name].image
        if terminal.speaks_json:
            terminal.record("bpfc.dump.link/1", native.link_json(one, image))
        else:
            terminal.stream(native.link_lines(image))


def _explain(terminal: Terminal, loaded: Loaded, program: str | None, level: str, arch: str | None) -> None:
    """Say the explanation instead of the code."""
    found = [explain_for(loaded, one, level, arch) for one in select_programs(loaded, program)]
    data = {"programs": [explanation_json(one) for one in found]}
    terminal.result("bpfc.explain/1", data, explanation_text(found))


def emit_text(loaded: Loaded, program: Program, level: str, arch: str | None, form: Any) -> str:
    """A program as LLVM IR or assembly text."""
    from bpfc.options import Options

    return emit_bytes(loaded, program, Options(level=level), arch, form).decode()


def emit_bytes(loaded: Loaded, program: Program, options: Options, arch: str | None, form: Any) -> bytes:
    """A program for machine `arch` (None: this one) in a `Form`."""
    from backends.registry import host, target_named
    from bpfc.codegen import emit
    from bpfc.compile import effective_level

    options = replace(options, level=effective_level(program, options))
    return emit(program, loaded.maps, options, target_named(arch) if arch else host(), form)


def _say(terminal: Terminal, kind: str, texts: list[tuple[Program, str]]) -> None:
    if terminal.speaks_json:
        programs = [{"name": program.name, "text": text} for program, text in texts]
        terminal.record(f"bpfc.dump.{kind}/1", {"programs": programs})
    else:
        terminal.say(_SEPARATOR.join(text for _, text in texts))
