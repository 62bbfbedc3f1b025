"""Pipelines: passes in order, as values with a text form.

    remove-nops,fold-rodata,prune-branches{max=5},remove-dead-code{verified=true}

Options in braces are the pass's fields, separated by spaces; those at their default are not printed. Passes
over bytecode stand before those over the SSA form, as a program is lifted between them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from errno import EINVAL
from time import perf_counter_ns
from typing import Any, ClassVar, Final, Protocol, final

from ir.bytecode import Rewritten, unchanged
from ir.core import Module
from ir.diagnostics import Diagnostic, RejectedError
from ir.explain import Decision, Notes
from ir.object import Program
from ir.passes.fold_constants import FoldConstants
from ir.passes.fold_rodata import FoldRodata
from ir.passes.merge_blocks import MergeBlocks
from ir.passes.promote_stack import PromoteStack
from ir.passes.prune_branches import PruneBranches
from ir.passes.remove_dead_code import RemoveDeadCode
from ir.passes.remove_nops import RemoveNops
from ir.passes.value_numbering import ValueNumbering

_MOST_DIGITS: Final = 9
_ELEMENT: Final = re.compile(r"\s*([a-z][a-z0-9-]*)\s*(?:\{([^{}]*)\})?\s*")
_OPTION: Final = re.compile(r"([a-z_]+)=(\S+)")


class Pass(Protocol):
    """A transformation of a module: a frozen dataclass whose fields are its options."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def run(self, module: Module, notes: Notes) -> bool:
        """Transform `module`, append what is worth telling to `notes`; whether anything changed."""
        ...


class ProgramPass(Protocol):
    """A transformation of a program's instructions, otherwise as `Pass`."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def rewrite(self, program: Program) -> Rewritten:
        """The new program, and where its slots went."""
        ...


class Watcher(Protocol):
    """Somebody who looks after every pass."""

    def after(self, done: Pass, module: Module, changed: bool, ns: int) -> None:
        """`done` has run, in `ns` nanoseconds."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Changes:
    """What a pipeline did."""

    changed: bool
    decisions: tuple[Decision, ...]


@final
@dataclass(frozen=True, slots=True)
class Pipeline:
    """Passes in the order they run; `str` gives the text that `parse_pipeline` takes."""

    passes: tuple[Pass, ...]
    program_passes: tuple[ProgramPass, ...] = ()

    def __str__(self) -> str:
        names = [*map(format_pass, self.program_passes), *map(format_pass, self.passes)]
        return ",".join(names)

    def without(self, kind: type[Pass]) -> Pipeline:
        """The same pipeline without the passes of one kind."""
        return replace(self, passes=tuple(each for each in self.passes if type(each) is not kind))

    def rewrite(self, program: Program) -> Rewritten:
        """Run the passes over bytecode: the new program, and where its slots went."""
        done = unchanged(program)
        for each in self.program_passes:
            done = done.then(each.rewrite(done.program))
        return done

    def run(self, module: Module, watchers: Sequence[Watcher] = ()) -> Changes:
        """Run the passes over the SSA form once, in order, on `module`, in place."""
        notes: Notes = []
        changed = False
        for each in self.passes:
            start = perf_counter_ns()
            did = each.run(module, notes)
            ns = perf_counter_ns() - start
            changed |= did
            for watcher in watchers:
                watcher.after(each, module, did, ns)
        return Changes(changed, tuple(notes))


PASSES: Final[Mapping[str, type[Any]]] = {
    each.name: each
    for each in (
        FoldConstants,
        FoldRodata,
        MergeBlocks,
        PromoteStack,
        PruneBranches,
        RemoveDeadCode,
        ValueNumbering,
    )
}
PROGRAM_PASSES: Final[Mapping[str, type[Any]]] = {RemoveNops.name: RemoveNops}

DEFAULT_FAST: Final = Pipeline((PromoteStack(), FoldRodata(), FoldConstants(), RemoveDeadCode()))
"""The fast tier: what decides whether a program loads, and removing what is dearer to compile."""

DEFAULT: Final = Pipeline(
    (
        PromoteStack(),
        FoldRodata(),
        FoldConstants(),
        PruneBranches(),
        ValueNumbering(),
        RemoveDeadCode(),
        MergeBlocks(),
    )
)
"""What the optimizing tiers run before LLVM."""


def format_pass(each: Pass | ProgramPass) -> str:
    """`name{option=value ...}`."""
    options = []
    for option in fields(each):  # type: ignore[arg-type]  # every pass is a dataclass; a Protocol cannot say so
        value = getattr(each, option.name)
        if value != option.default:
            options.append(f"{option.name}={str(value).lower()}")
    return each.name + (f"{{{' '.join(options)}}}" if options else "")


def parse_pipeline(text: str) -> Pipeline:
    """The pipeline that `text` names. Raises RejectedError."""
    passes: list[Pass] = []
    program_passes: list[ProgramPass] = []
    position = 0
    while position < len(text):
        match = _ELEMENT.match(text, position)
        position = match.end() if match is not None else position
        if match is None or text[position : position + 1] not in ("", ","):
            raise _rejected("bad-pipeline", f"'{text[position:]}' is not a list of passes")
        position += 1
        if match[1] not in PROGRAM_PASSES:
            passes.append(_make_pass(PASSES, match[1], match[2] or ""))
        elif passes:
            said = f"'{match[1]}' works on bytecode and comes after '{passes[-1].name}', which does not"
            raise _rejected("bad-pipeline", said)
        else:
            program_passes.append(_make_pass(PROGRAM_PASSES, match[1], match[2] or ""))
    return Pipeline(tuple(passes), tuple(program_passes))


def _make_pass(known: Mapping[str, type[Any]], name: str, text: str) -> Any:
    if name not in known:
        names = ", ".join(sorted({*PASSES, *PROGRAM_PASSES}))
        raise _rejected("unknown-pass", f"no pass is named '{name}'", f"known are {names}")
    kinds = {option.name: type(option.default) for option in fields(known[name])}
    options: dict[str, int | str] = {}
    for word in text.split():
        match = _OPTION.fullmatch(word)
        if match is None or match[1] not in kinds:
            note = f"its options: {', '.join(kinds) or 'none'}"
            raise _rejected("unknown-option", f"'{word}' is not an option of '{name}'", note)
        options[match[1]] = _parse_value(name, match[1], match[2], kinds[match[1]])
    return known[name](**options)


def _parse_value(name: str, option: str, text: str, kind: type[object]) -> int | str:
    if kind is bool and text in ("true", "false"):
        return text == "true"
    if kind is int and text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS:
        return int(text)
    if kind is str:
        return text
    raise _rejected("bad-option", f"option '{option}' of '{name}' wants {kind.__name__}, found '{text}'")


def _rejected(code: str, message: str, *notes: str) -> RejectedError:
    return RejectedError([Diagnostic(code, message, notes=notes, errno=EINVAL)])
