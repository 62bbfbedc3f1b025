"""Program extensions: a program that replaces a global function of a running one (freplace).

    entry of g   | jmp -> ext |    calls from now on run ext; those under way finish in g
    g            | ...        |    ext gets g's arguments and its run: fuel, context, tail calls left

The extension is compiled as if it were the function in the target's program: its context and its helpers.
"""

from __future__ import annotations

from dataclasses import replace
from errno import EBADF, EINVAL
from typing import TYPE_CHECKING, Final, final

from bpfc.compile import compile_program
from bpfc.links import Link, LinkKind
from bpfc.places import Place
from ir.btf import Btf
from ir.btf_types import Pointer, Struct
from ir.context import PLAIN, Argument, ContextLayout, layout_of
from ir.diagnostics import Diagnostic, Location, RejectedError
from ir.function_model import prototype_of
from ir.helper_sets import allowed_helpers
from ir.helpers import helper_by_id
from ir.isa import Callee, Kind, row_of
from ir.kinds import AttachType, ProgramType
from ir.object import FunctionInfo, Program
from ir.type_match import match_functions
from runtime.epoch import epochs
from runtime.hook import ProgramHooks, attach_lock
from runtime.linker import LinkedImage, link

if TYPE_CHECKING:
    from bpfc.attachable import Attachable
    from bpfc.running import RunningProgram

_TRACERS: Final = (ProgramType.TRACING, ProgramType.LSM)


def attach_freplace(extension: Attachable, target: RunningProgram, name: str) -> Link:
    """Replace global function `name` of `target`. Raises RejectedError: EINVAL, EBUSY, EBADF, EACCES."""
    with attach_lock():
        for side in (extension, target):
            if side.runtime.is_closed:
                raise _refused("closed", f"the object of '{side.program.name}' was closed", EBADF)
        info = _checked_function(extension, target, name)
        hooks = target.hooks
        hook = hooks.hook(name)
        hook.require_extendable()
        hooks.require_no_table()
        image = _compile(extension, target, info)
        attached = _Attached(extension, target, info, image)
        try:
            hook.entry.arm(image.address_of(extension.program.name))
        except BaseException:
            attached.release()
            raise
        hook.is_extended = True
        hooks.extended += 1
        extension.targets.like = _kind(target)
        return attached.link()


@final
class _Attached:
    """An attached extension: keeps both objects alive, and undoes itself. Who traces it holds it, too."""

    def __init__(
        self, extension: Attachable, target: RunningProgram, info: FunctionInfo, image: LinkedImage
    ) -> None:
        self.extension, self.target, self.info, self.image = extension, target, info, image
        self._holds = 1
        extension.runtime.hold()
        target.runtime.hold()

    def link(self) -> Link:
        """The link for the user."""
        program = self.target.program.name
        own = self.extension.program
        place = Place(
            own,
            self.extension,
            self.extension.runtime.loaded.object.btf,
            ProgramHooks(own.name, self.image),
            self.image,
            lambda: self._holds > 0,
            self.hold,
            self.release,
        )
        return Link(LinkKind.FREPLACE, self.extension, program, self.info.name, self._detach, place=place)

    def hold(self) -> None:
        """Keep the code."""
        self._holds += 1

    def release(self) -> None:
        """Undo a `hold`; nobody can be on the way into the code that `hold` was for."""
        self._holds -= 1
        if not self._holds:
            epochs().retire(self._free)

    def _detach(self) -> None:
        hook = self.target.hooks.hook(self.info.name)
        hook.entry.disarm()
        hook.is_extended = False
        self.target.hooks.extended -= 1
        self.release()

    def _free(self) -> None:
        self.image.close()
        self.extension.runtime.release()
        self.target.runtime.release()


def _checked_function(extension: Attachable, target: RunningProgram, name: str) -> FunctionInfo:
    """The function to replace, when the rules of 6.5 allow it."""
    program, wanted = extension.program, target.program
    if wanted.type is ProgramType.EXT:
        raise _refused("target-is-extension", f"'{wanted.name}' is an extension itself", EINVAL)
    if wanted.type in _TRACERS:
        raise _refused("target-is-tracer", f"'{wanted.name}' is a tracing program", EINVAL)
    if program.type not in (ProgramType.EXT, wanted.type):
        said = f"'{program.name}' is a {program.type.name.lower()} program, wanted an extension"
        raise _refused("not-an-extension", said, EINVAL)
    info = next((function for function in wanted.functions if function.name == name), None)
    if info is None or (info.is_global and name not in target.hooks.functions):
        why = "has no function" if info is None else "does not call, so it was deleted,"
        raise _refused("no-such-function", f"'{wanted.name}' {why} '{name}'", EINVAL)
    if not info.is_global:
        raise _refused(
            "static-function", f"'{name}' is static; only global functions can be replaced", EINVAL
        )
    if extension.targets.like not in (None, _kind(target)):
        said = f"'{program.name}' was first attached to a program of another type than '{wanted.name}'"
        raise _refused("other-target-type", said, EINVAL)
    _check_types(extension, target, info)
    _check_helpers(program, wanted.type)
    if _changes_packet(program, program.functions[0], wanted.type) and not _changes_packet(
        wanted, info, wanted.type
    ):
        said = f"'{program.name}' changes packet data and '{name}' does not"
        raise _refused("changes-packet", said, EINVAL)
    return info


def _kind(target: RunningProgram) -> tuple[ProgramType, AttachType | None]:
    return target.program.type, target.program.attach_type


def _check_helpers(program: Program, type: ProgramType) -> None:
    """Refuse helpers that programs of the target's type do not have."""
    allowed = allowed_helpers(type)
    for slot, insn in zip(program.starts, program.insns, strict=False):
        row = row_of(insn)
        if row.kind is Kind.CALL and row.callee is Callee.HELPER and insn.imm not in allowed:
            said = f"{type.name.lower()} programs, one of which this extends, have no helper {insn.imm}"
            raise RejectedError(
                [Diagnostic("helper-not-allowed", said, program.location(slot), errno=EINVAL)]
            )


def _check_types(extension: Attachable, target: RunningProgram, info: FunctionInfo) -> None:
    btf, id = extension.runtime.loaded.object.btf, extension.program.functions[0].btf_id
    target_btf = target.runtime.loaded.object.btf
    for types, number, name in ((btf, id, extension.program.name), (target_btf, info.btf_id, info.name)):
        if types is None or not number:
            raise _refused("no-btf", f"'{name}' has no BTF to say what it takes", EINVAL)
    assert btf is not None, "checked above"
    assert target_btf is not None, "checked above"
    extension.warnings += match_functions((target_btf, info.btf_id), (btf, id))


def _compile(extension: Attachable, target: RunningProgram, info: FunctionInfo) -> LinkedImage:
    """The extension as the target's function; its `run` is the target's."""
    runtime = extension.runtime
    world = runtime.world
    program = replace(extension.program, type=target.program.type, attach_type=target.program.attach_type)
    context = _context(target, info)
    options = replace(runtime.options, count_insns=target.runtime.options.count_insns)
    compiled = compile_program(program, world.declared, options, world.overridden, context)
    runtime.fill_program_arrays(extension.program)
    return link(compiled.code, world.resolve, world.pool)


def _context(target: RunningProgram, info: FunctionInfo) -> ContextLayout:
    """What the function's registers hold, by its type."""
    layout = layout_of(target.program.type)
    btf = target.runtime.loaded.object.btf
    prototype = prototype_of(btf, info.btf_id)
    assert btf is not None, "types were checked"
    assert prototype is not None, "types were checked"
    kinds = [_argument(btf, parameter.type_id, layout) for parameter in prototype.parameters]
    if info.start == 0 and layout is not PLAIN and kinds[:1] != [Argument.CONTEXT]:
        said = f"main '{info.name}' does not take a struct {layout.name} *, so nothing can stand for it"
        raise _refused("wrong-context-type", said, EINVAL)
    return replace(layout, entry=tuple(kinds))


def _argument(btf: Btf, type_id: int, layout: ContextLayout) -> Argument:
    type_ = btf.type(btf.strip(type_id))
    if not isinstance(type_, Pointer):
        return Argument.NUMBER
    pointed = btf.type(btf.strip(type_.type_id))
    is_context = isinstance(pointed, Struct) and (pointed.name == layout.name or layout is PLAIN)
    return Argument.CONTEXT if is_context else Argument.ADDRESS


def _changes_packet(program: Program, function: FunctionInfo, type: ProgramType) -> bool:
    """Whether a function, or one that it calls, calls a helper that may move packet data."""
    seen: set[int] = set()
    work = [function]
    while work:
        info = work.pop()
        if info.start in seen:
            continue
        seen.add(info.start)
        for slot, insn in zip(program.starts, program.insns, strict=False):
            if not info.start <= slot < info.start + info.slots or row_of(insn).kind is not Kind.CALL:
                continue
            callee = row_of(insn).callee
            if callee is Callee.SUBPROGRAM:
                called = program.function_at(slot + 1 + insn.imm)
                work += [called] if called is not None else []
            elif callee is Callee.HELPER:
                helper = helper_by_id(insn.imm, type)
                if helper is not None and helper.changes_packet:
                    return True
    return False


def _refused(code: str, message: str, errno: int) -> RejectedError:
    return RejectedError([Diagnostic(code, message, Location(), errno=errno)])
