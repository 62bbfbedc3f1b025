"""Trampolines: the programs around one function, and the images that run them.

attach, detach    a new image for the programs there are now; the entry goes to it; the old one is retired
last detach       the entry is as if nothing had ever been attached

Detaching never fails: a link has a word that switches it off in the image that runs. Only then a smaller image is
made, and when there is no memory for one the old image stays, with that program skipped.

An old image is retired: it is told not to run programs after functions that are still under way, and freed when
no thread counts itself in it (`runtime/epoch`, `runtime/threads`). What its programs need lives as long.
"""

from __future__ import annotations

import time
from enum import IntEnum
from errno import E2BIG, EBUSY
from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol, final

from backends.image_shape import Shape
from backends.native_code import Needs
from backends.trampoline import SYMBOL
from ir.diagnostics import Diagnostic, Location, RejectedError, UnsupportedError
from ir.function_model import Model
from runtime.epoch import epochs
from runtime.hook_space import HookSpace
from runtime.linker import LinkedImage
from runtime.records import Word

if TYPE_CHECKING:
    from runtime.hook import Hook

PATIENCE: Final = 2.0  # seconds to wait for memory of images that are about to be freed


class When(IntEnum):
    """When a program runs; the order in an image."""

    ENTRY = 0
    OVERRIDE = 1
    EXIT = 2
    SESSION = 3  # at entry and at exit


class Traced(Protocol):
    """A program that trampolines can call, at `address`; `record` is what they know of it. Kept alive by `hold`."""

    @property
    def address(self) -> int: ...

    @property
    def record(self) -> int: ...

    @property
    def guard(self) -> int:
        """The offset of its guard in threads' blocks."""

    @property
    def needs(self) -> Needs: ...

    @property
    def identity(self) -> object:
        """Equal for two forms of one program."""

    def hold(self) -> None: ...

    def release(self) -> None: ...


@final
class Attachment:
    """One program around one function; `link` is the word that switches it, and its cookie."""

    def __init__(self, when: When, program: Traced, cookie: int, space: HookSpace) -> None:
        self.when, self.program = when, program
        self.link = space.link_record(cookie)

    def hold(self) -> None:
        """An image uses it."""
        self.link.hold()
        self.program.hold()

    def release(self) -> None:
        """An image that used it is gone."""
        self.link.release()
        self.program.release()


@final
class Trampoline:
    """The programs around the function of a hook. Callers hold `attach_lock`."""

    def __init__(self, hook: Hook, model: Model, has_run: bool, address: int) -> None:
        self.hook, self.model, self.has_run, self.address = hook, model, has_run, address
        self.space = hook.space.hooks
        self.links: list[Attachment] = []
        self.image: Image | None = None

    def attach(self, when: When, program: Traced, cookie: int) -> Attachment:
        """Let a program run around the function. RejectedError: EBUSY, E2BIG; UnsupportedError: ENOMEM."""
        if any(found.program.identity == program.identity for found in self.links):
            raise _refused(self.hook.name, "the program is attached to it already", EBUSY)
        taken = sum(_weight(found.when) for found in self.links)
        most = self.space.target.most_programs
        if taken + _weight(when) > most:
            raise _refused(self.hook.name, f"no more than {most} programs can be attached to it", E2BIG)
        attachment = Attachment(when, program, cookie, self.space)
        attachment.hold()
        try:
            self._switch([attachment, *self.links])
        finally:
            attachment.release()
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """Let a program no longer run; never fails."""
        attachment.link.switch_off()
        left = [found for found in self.links if found is not attachment]
        if not left:
            self.hook.entry.disarm()
            self._retire(None, left)
            return
        try:
            self._switch(left)
        except (MemoryError, UnsupportedError):
            self.links = left  # the image that runs skips the program

    def _switch(self, links: list[Attachment]) -> None:
        image = Image(self, links)
        try:
            self.hook.entry.arm(image.address)
        except BaseException:
            image.close()
            raise
        self._retire(image, links)

    def _retire(self, image: Image | None, links: list[Attachment]) -> None:
        old, self.image, self.links = self.image, image, links
        if old is not None:
            old.retire()


@final
class Image:
    """The code that runs some programs around a function. Owns its memory and keeps the programs alive."""

    def __init__(self, trampoline: Trampoline, attachments: list[Attachment]) -> None:
        self._space = space = trampoline.space
        self._attachments = attachments
        runs = [
            [attachment for attachment in attachments if attachment.when in kinds]
            for kinds in ((When.ENTRY, When.SESSION), (When.OVERRIDE,), (When.EXIT, When.SESSION))
        ]
        self._flag: Word | None = None
        self._count: int | None = None
        self._busy: set[int] | None = None
        self._image: LinkedImage | None = None
        try:
            prepared = space.prepare(_shape(trampoline, runs))
            if prepared.is_counted:
                self._flag = Word(space.records)
                self._count = _take_count(space)
            self._image = space.link(prepared, self._symbols(trampoline, runs))
        except BaseException:
            self._give_back()
            raise
        for attachment in attachments:
            attachment.hold()

    @property
    def address(self) -> int:
        """Where functions' entries go."""
        assert self._image is not None, "the image was not closed"
        return self._image.address_of(SYMBOL)

    @property
    def is_occupied(self) -> bool:
        """Whether a thread counts itself in, or has not been seen outside of the one program since this is asked."""
        threads = self._space.threads
        if self._count is not None:
            return threads.is_inside(self._count)
        running = threads.running(self._attachments[0].program.guard)
        self._busy = running if self._busy is None else self._busy & running
        return bool(self._busy)

    def retire(self) -> None:
        """Free it once nobody is in it; nobody can enter it any more. Any thread may call a hooked function."""
        if self._flag is not None:
            self._flag.set(1)
        epochs().retire(self.close, lambda: not self.is_occupied, by_anyone=True)

    def close(self) -> None:
        """Free it now."""
        self._give_back()
        for attachment in self._attachments:
            attachment.release()
        self._attachments = []

    def _give_back(self) -> None:
        if self._image is not None:
            self._image.close()
        if self._count is not None:
            self._space.threads.give_count(self._count)
        if self._flag is not None:
            self._flag.close()
        self._image = self._count = None

    def _symbols(self, trampoline: Trampoline, runs: list[list[Attachment]]) -> dict[str, int]:
        found = {
            **self._space.shared,
            "count": self._count or 0,
            "ip": trampoline.address,
            "image": self._flag.address if self._flag is not None else 0,
            "original": trampoline.hook.entry.body,
        }
        for number, attachment in enumerate(chain(*runs)):
            found[f"program.{number}"] = attachment.program.address
            found[f"record.{number}"] = attachment.program.record
            found[f"guard.{number}"] = attachment.program.guard
            found[f"link.{number}"] = attachment.link.address
        return found


def _take_count(space: HookSpace) -> int:
    """A count for an image. Those of retired images come back within milliseconds, so who attaches often waits for them."""
    end = time.monotonic() + PATIENCE
    while not space.threads.has_count and time.monotonic() < end:
        epochs().collect()
        time.sleep(1e-3)
    return space.threads.take_count()


def _weight(when: When) -> int:
    """How many of the programs that may be attached an attachment counts as."""
    return 2 if when is When.SESSION else 1


def _shape(trampoline: Trampoline, runs: list[list[Attachment]]) -> Shape:
    entries, overrides, exits = map(len, runs)
    needs = 0  # IntFlag adds up slowly
    sessions: dict[Attachment, int] = {}
    for attachment in chain(*runs):
        needs |= attachment.program.needs.value
        if attachment.when is When.SESSION:
            sessions.setdefault(attachment, len(sessions))
    numbers = tuple(sessions.get(attachment, -1) for attachment in chain(*runs)) if sessions else ()
    target = trampoline.space.target
    calling = target.calling
    registers = len(calling.arguments)
    counts = entries, overrides, exits
    machine = Needs(needs), registers, calling.tail_words
    return Shape(trampoline.model, trampoline.has_run, *counts, *machine, numbers, target.word, calling.pairs)


def _refused(name: str, why: str, number: int) -> RejectedError:
    message = f"nothing can be attached to '{name}': {why}"
    return RejectedError([Diagnostic("attach-refused", message, Location(function=name), errno=number)])
