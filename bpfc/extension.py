"""Program extensions: a program that replaces a global function of a running one (freplace).

    entry of g   | jmp -> ext |    calls from now on run ext; those under way finish in g
    g            | ...        |    ext gets g's arguments and its run: fuel, context, tail calls left

The extension is checked and compiled as if it were the function in the target's program (bpfc/extension_rules), once
for each kind of function: its code stays as long as its object, so that attaching again is two stores.
"""

from __future__ import annotations

from dataclasses import replace
from errno import EBADF
from typing import TYPE_CHECKING, final
from weakref import WeakKeyDictionary

from bpfc.compile import compile_program
from bpfc.extension_rules import Replacement, refused, replacement
from bpfc.links import Link, LinkKind
from bpfc.places import Place
from ir.context import ContextLayout
from ir.kinds import AttachType, ProgramType
from ir.object import Program
from runtime.hook import ProgramHooks, attach_lock
from runtime.linker import LinkedImage, link

if TYPE_CHECKING:
    from bpfc.attachable import Attachable
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram


@final
class Extension:
    """A program as one that replaces functions; `program` owns it, and closes it when no link is left.

    `loaded` is what it was loaded for, until its first attachment; later targets must be of the `kind` of the first.
    """

    def __init__(self, program: Attachable) -> None:
        self.program = program
        self.loaded: tuple[RunningProgram, str] | None = None
        self.kind: tuple[ProgramType, AttachType | None] | None = None
        self.links = 0
        self.forms: dict[object, Form] = {}
        self._checked: WeakKeyDictionary[RunningProgram, dict[str, Form]] = WeakKeyDictionary()

    def load(self, target: RunningProgram, function: str) -> None:
        """Check and compile for a function of `target`, which `attach` then replaces if no other is named."""
        with attach_lock():
            self._form(target, function)
            self.loaded = (target, function)
            self.kind = _kind(target)

    def attach(
        self, target: RunningProgram | None, function: str | None, instead_of: Link | None = None
    ) -> Link:
        """Replace a global function. Raises RejectedError: EINVAL, EBUSY, EBADF, EACCES, E2BIG.

        With `instead_of`, in the place of that link's extension, which is detached: no call in between runs the function.
        """
        with attach_lock():
            if target is None and function is None and self.loaded is not None:
                target, function = self.loaded
            if target is None or function is None:
                said = f"'{self.program.program.name}' replaces a function of a running program"
                raise refused(
                    self.program.program,
                    "no-attach-target",
                    said,
                    "name both, the program and the function",
                )
            form = self._form(target, function)
            attached = _Attached(self, form, target, function, instead_of)
            self.kind = _kind(target)
            self.loaded = None
            return attached.link

    def close(self) -> None:
        """Free the code: nobody is in it any more."""
        for form in self.forms.values():
            self.program.drop_image(form.image)
        self.forms.clear()

    def _form(self, target: RunningProgram, function: str) -> Form:
        """The extension compiled for a function of `target`; checked for it when first asked."""
        for side in (self.program, target):
            if side.runtime.is_closed:
                said = f"the object of '{side.program.name}' was closed"
                raise refused(
                    self.program.program, "closed", said, "attach while both objects are started", EBADF
                )
        space = self.program.runtime.world.space
        space.require_same(target.hooks.space, self.program.program.name, target.program.name)
        found = self._checked.setdefault(target, {}).get(function)
        if found is not None:
            return found
        if self.kind not in (None, _kind(target)):
            said = f"'{self.program.program.name}' was loaded for a program of another type than '{target.program.name}'"
            raise refused(
                self.program.program, "other-target-type", said, "load its object once more for that"
            )
        new = replacement(self.program, target, function)
        self.program.warnings += new.warnings
        form = self._checked[target][function] = self._compiled(new, target)
        return form

    def _compiled(self, new: Replacement, target: RunningProgram) -> Form:
        runtime = self.program.runtime
        counts = target.runtime.options.count_insns
        key = (new.program.type, new.program.attach_type, repr(new.context), counts, runtime.world.overridden)
        form = self.forms.get(key)
        if form is None:
            image = _compile(runtime, new.program, new.context, counts)
            self.program.take_image(image)
            form = self.forms[key] = Form(self.program, new.program, image)
        return form


@final
class Form:
    """An extension's code for functions of one kind, where others can trace it."""

    def __init__(self, extension: Attachable, program: Program, image: LinkedImage) -> None:
        runtime = extension.runtime
        self.image = image
        self.address = image.address_of(program.name)
        self.place = Place(
            extension.program,
            extension,
            runtime.loaded.object.btf,
            ProgramHooks(program.name, image, runtime.world.space),
            image,
            lambda: not runtime.is_closed,
            runtime.hold,
            runtime.release,
        )


@final
class _Attached:
    """An extension in the place of a function; keeps both objects in memory. Callers hold `attach_lock`."""

    def __init__(
        self, extension: Extension, form: Form, target: RunningProgram, function: str, instead_of: Link | None
    ) -> None:
        self._extension, self._target = extension, target
        self._hook = target.hooks.hook(function)
        previous = self._hook.extension
        if instead_of is None:
            self._hook.require_extendable()
            target.hooks.require_no_table()
        elif not isinstance(previous, _Attached) or previous.link is not instead_of:
            said = f"{instead_of!r} is not what replaces '{function}' of '{target.program.name}'"
            raise refused(extension.program.program, "other-link", said, "give the link that does")
        self._hook.entry.arm(form.address, is_direct=True)
        self.link: Link = Link(
            LinkKind.FREPLACE,
            extension.program,
            target.program.name,
            function,
            self._detach,
            place=form.place,
        )
        self._hook.extension = self
        target.hooks.extended += 1
        extension.links += 1
        for side in (extension.program, target):
            side.runtime.hold()
        if instead_of is not None:
            instead_of.close()

    def _detach(self) -> None:
        if self._hook.extension is self:  # else another took its place
            self._hook.entry.disarm()
            self._hook.extension = None
        self._target.hooks.extended -= 1
        self._extension.links -= 1
        for side in (self._extension.program, self._target):
            side.runtime.release()  # frees nothing before those who are inside have left


def _compile(runtime: Runtime, program: Program, context: ContextLayout, counts: bool) -> LinkedImage:
    """The extension as the target's function; its `run` is the target's."""
    world = runtime.world
    options = replace(runtime.options, count_insns=counts)
    compiled = compile_program(
        program, world.declared, options, world.overridden, context, world.space.compile_target
    )
    runtime.fill_program_arrays(program)
    return link(compiled.code, world.resolve, world.pool)


def _kind(target: RunningProgram) -> tuple[ProgramType, AttachType | None]:
    return target.program.type, target.program.attach_type
