"""What may stand for what: the rules of extensions, each refusal with its errno, the reason and the remedy.

types       parameters alike, both functions global (ir/type_match)
proof       the extension is verified as the target's function, in the target's program type
packets     it changes packet data only where callers expect that
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from errno import EINVAL
from typing import TYPE_CHECKING, Final, final

from ir.btf import Btf
from ir.btf_types import Pointer, Struct
from ir.context import PLAIN, Argument, ContextLayout, layout_of
from ir.diagnostics import Diagnostic, Location, RejectedError
from ir.function_model import prototype_of
from ir.kinds import ProgramType
from ir.lift import lift
from ir.object import FunctionInfo, Map, Program
from ir.packet_changes import functions_that_change_packets
from ir.type_match import Match, match_functions
from ir.verify.global_functions import arguments_of
from ir.verify.prove import verify
from ir.verify.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bpfc.attachable import Attachable
    from bpfc.running_program import RunningProgram

_TRACERS: Final = (ProgramType.TRACING, ProgramType.LSM)


@final
@dataclass(frozen=True, slots=True)
class Replacement:
    """An extension as a function of its target's: `program` has the target's type, `context` is the function's."""

    function: FunctionInfo
    program: Program
    context: ContextLayout
    warnings: tuple[Diagnostic, ...]


def replacement(extension: Attachable, target: RunningProgram, name: str) -> Replacement:
    """How `extension` would stand for function `name` of `target`. Raises RejectedError unless it may."""
    function = _function(extension, target, name)
    source = extension.program
    target_btf, btf = _types(extension, target, function)
    context = _context(source, target, function, target_btf)
    match = _match(source, (target_btf, function.btf_id), (btf, source.functions[0].btf_id), context.name)
    context = replace(context, result=match.result)
    program = replace(source, type=target.program.type, attach_type=target.program.attach_type)
    _check_packets(extension, program, context, target, function)
    pointees = _prove(extension, program, context, target)
    if any(size for size, _ in pointees) and target.is_proved:
        context = replace(context, pointees=pointees)
    return Replacement(function, program, context, match.warnings)


def _function(extension: Attachable, target: RunningProgram, name: str) -> FunctionInfo:
    """The function of that name, which may be replaced as far as the function and the programs' types go."""
    program, wanted = extension.program, target.program
    if wanted.type is ProgramType.EXT:
        said = f"'{wanted.name}' is an extension itself"
        raise refused(
            program, "target-is-extension", said, "attach to the program that it extends, or trace it"
        )
    if wanted.type in _TRACERS:
        said = f"'{wanted.name}' is a tracing program"
        raise refused(program, "target-is-tracer", said, "detach it and attach another in its place")
    if program.type not in (ProgramType.EXT, wanted.type):
        said = f"'{program.name}' is {_article(program.type)} program, wanted an extension"
        raise refused(program, "not-an-extension", said, 'put it into section "freplace/..."')
    info = next((function for function in wanted.functions if function.name == name), None)
    if info is None:
        known = ", ".join(target.hooks.functions)
        said = f"'{wanted.name}' has no function '{name}'"
        raise refused(program, "no-such-function", said, f"functions that can be replaced: {known}")
    if not info.is_global:
        said = f"'{name}' is static; only global functions can be replaced"
        raise refused(program, "static-function", said, "define it without `static`, and with __noinline")
    if not target.runtime.options.extensible:
        said = f"'{wanted.name}' was compiled so that nothing can replace its functions"
        raise refused(program, "not-extensible", said, "start it without Options(extensible=False)")
    if name not in target.hooks.functions:
        said = f"'{wanted.name}' does not call '{name}', so it was deleted"
        note = "set the constants that decide about the call before the program is started"
        raise refused(program, "dead-function", said, note)
    return info


def _types(extension: Attachable, target: RunningProgram, info: FunctionInfo) -> tuple[Btf, Btf]:
    """The types of both sides: the target's, the extension's."""
    program = extension.program
    found: list[Btf] = []
    for side, function in ((target, info), (extension, program.functions[0])):
        btf = side.runtime.loaded.object.btf
        if btf is None or not function.btf_id:
            raise refused(
                program, "no-btf", f"'{function.name}' has no BTF to say what it takes", "compile with -g"
            )
        found.append(btf)
    return found[0], found[1]


def _context(program: Program, target: RunningProgram, info: FunctionInfo, btf: Btf) -> ContextLayout:
    """What the function's registers hold, by its type."""
    layout = layout_of(target.program.type)
    prototype = prototype_of(btf, info.btf_id)
    parameters = prototype.parameters if prototype is not None else ()
    kinds = [_argument(btf, parameter.type_id, layout) for parameter in parameters]
    is_main = info.start == 0
    if is_main and layout is not PLAIN and kinds[:1] != [Argument.CONTEXT]:
        said = f"main '{info.name}' does not take a struct {layout.name} *, so nothing can stand for it"
        raise refused(program, "wrong-context-type", said, f"declare its parameter as struct {layout.name} *")
    return replace(layout, entry=tuple(kinds), is_main=is_main)


def _match(program: Program, target: tuple[Btf, int], extension: tuple[Btf, int], context: str) -> Match:
    try:
        return match_functions(target, extension, context)
    except RejectedError as error:
        at = Location(program.file, program.section, program.name)
        raise RejectedError([replace(error.diagnostics[0], at=at)]) from None


def _argument(btf: Btf, type_id: int, layout: ContextLayout) -> Argument:
    type_ = btf.type(btf.strip(type_id))
    if not isinstance(type_, Pointer):
        return Argument.NUMBER
    pointed = btf.type(btf.strip(type_.type_id))
    is_context = isinstance(pointed, Struct) and (pointed.name == layout.name or layout is PLAIN)
    return Argument.CONTEXT if is_context else Argument.ADDRESS


def _check_packets(
    extension: Attachable,
    program: Program,
    context: ContextLayout,
    target: RunningProgram,
    info: FunctionInfo,
) -> None:
    if not _may_change_packets(program, extension.runtime.world.declared, program.functions[0], context):
        return
    if _may_change_packets(target.program, target.runtime.world.declared, info):
        return
    said = f"'{program.name}' changes packet data and '{info.name}' does not"
    note = f"callers go on using pointers into the packet; let '{info.name}' call such a helper, too"
    raise refused(program, "changes-packet", said, note)


def _may_change_packets(
    program: Program, maps: Mapping[str, Map], function: FunctionInfo, context: ContextLayout | None = None
) -> bool:
    return function.name in functions_that_change_packets(lift(program, maps, context))


def _prove(
    extension: Attachable, program: Program, context: ContextLayout, target: RunningProgram
) -> tuple[tuple[int, bool], ...]:
    """Verify the extension: its target may have been proved safe, and carries no checks that it stays so.

    What its arguments point to (bytes, whether they may be NULL), 0 for others: callers that are proved see to it.
    """
    loaded = extension.runtime.loaded
    module = lift(program, extension.runtime.world.declared, context)
    kernel = loaded.kernel or target.runtime.loaded.kernel
    report = verify(module, loaded.object.license, loaded.object.btf, kernel)
    if not report.is_accepted:
        raise RejectedError(report.diagnostics)
    subject = Subject(module, loaded.object.license, loaded.object.btf, kernel)
    arguments = arguments_of(subject, module.main) or ()
    return tuple((each.size if each.kind == "memory" else 0, each.is_nullable) for each in arguments)


def refused(extension: Program, code: str, message: str, note: str, errno: int = EINVAL) -> RejectedError:
    """The refusal to attach an extension; `note` says what would help."""
    at = Location(extension.file, extension.section, extension.name)
    return RejectedError([Diagnostic(code, message, at, notes=(note,), errno=errno)])


def _article(type_: ProgramType) -> str:
    name = type_.name.lower()
    return f"{'an' if name[0] in 'aeioux' else 'a'} {name}"
