"""`bpfc dump ir`: running passes and printing what they leave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from errno import EINVAL
from typing import final

from bpfc.cli.graphs import draw_module
from bpfc.codegen import PIPELINES
from bpfc.compile import effective_level
from bpfc.options import Options
from ir.core import Block, Function, Module
from ir.diagnostics import Diagnostic, RejectedError
from ir.lift import lift
from ir.object import Map, Program
from ir.pipeline import Pass, Pipeline, Watcher, format_pass, parse_pipeline
from ir.text import format_function, format_module
from ir.watchers import ValidateEach


@final
@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of `dump ir`; the options of the command."""

    with_lines: bool = False
    visual: bool = False
    level: str = "auto"
    passes: str | None = None
    pass_by_pass: bool = False
    print_after: tuple[str, ...] = ()
    validate_each: bool = False
    slots: bool = False


@final
@dataclass(slots=True)
class _Printer:
    """Watcher: keeps the text after each pass that is asked for."""

    request: Request
    texts: list[str] = field(default_factory=list)

    def after(self, done: Pass, module: Module, changed: bool, ns: int) -> None:
        wanted = done.name in self.request.print_after or (self.request.pass_by_pass and changed)
        took = f"{ns / 1000:.0f} us"
        if wanted:
            self.texts.append(f"; after {format_pass(done)} ({took})\n{_format(module, self.request)}")
        elif self.request.pass_by_pass:
            self.texts.append(f"; after {format_pass(done)} ({took}): unchanged\n")


def optimize(program: Program, maps: Mapping[str, Map], request: Request) -> str:
    """The text that is asked for. Raises RejectedError."""
    pipeline = _pipeline(program, request)
    _require_run(pipeline, request.print_after)
    module = lift(pipeline.rewrite(program).program, maps)
    printer = _Printer(request)
    watchers: list[Watcher] = [ValidateEach(), printer] if request.validate_each else [printer]
    if request.pass_by_pass:
        printer.texts.append(f"; lifted\n{_format(module, request)}")
    pipeline.run(module, watchers)
    if request.visual:
        return draw_module(module, _block_texts)
    if not request.pass_by_pass and not request.print_after:
        printer.texts.append(_format(module, request))
    return "\n".join(printer.texts)


def _pipeline(program: Program, request: Request) -> Pipeline:
    if request.passes is not None:
        return parse_pipeline(request.passes)
    return PIPELINES[effective_level(program, replace(Options(), level=request.level))]


def _require_run(pipeline: Pipeline, names: Iterable[str]) -> None:
    """Raise RejectedError for a pass that the pipeline does not run: nothing comes after it."""
    run = [each.name for each in pipeline.passes]
    for name in names:
        if name not in run:
            said, note = f"no pass '{name}' is run", f"these are: {', '.join(run) or 'none'}"
            raise RejectedError([Diagnostic("pass-not-run", said, notes=(note,), errno=EINVAL)])


def _format(module: Module, request: Request) -> str:
    return format_module(module, slots=request.slots, lines=request.with_lines) + "\n"


def _block_texts(function: Function) -> dict[Block, list[str]]:
    """A function's printed lines, by block."""
    texts: list[list[str]] = []
    for line in format_function(function).splitlines()[1:]:
        if line.startswith("block "):
            texts.append([])
        texts[-1].append(line)
    return dict(zip(function.blocks, texts, strict=True))
