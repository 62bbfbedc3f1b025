"""Changing code while threads run through it: one contract for every patch site.

    verify     every site holds what it is believed to hold, else EBUSY and nothing is changed
    store      one naturally aligned store a site, through the writable alias
    publish    once for all sites (`runtime/publish`)

Between store and publish a thread may execute either form; other bytes are never seen. What a site means,
which sites form a key and who owns them is not known here (`runtime/static_keys`).

An entry site only ever jumps to the veneer of its function, and the veneer to the address in its literal. So
a hook is changed by a store to the literal, which is data; only the first and the last touch an instruction.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final, Literal, final

from backends.native_code import Form, PatchSite, SiteKind
from ir.diagnostics import Diagnostic, Location, RejectedError
from runtime.layout import WORD
from runtime.linker import LinkedImage
from runtime.memory import CodeBlock
from runtime.publish import PATCH_LOCK, Publisher, publisher
from runtime.region import Region

_FORMATS: Final[dict[int, Literal["B", "I", "Q"]]] = {1: "B", 4: "I", 8: "Q"}


@final
class PatchPoint:
    """A patch site in memory: where its word is, and the bits of the word that are the site, in both forms.

    `form` is what the patcher stored last; it is never read back from the code. `is_fixed`: the site has no
    other form than its first, because the side it would jump to was found unreachable and deleted.
    """

    __slots__ = ("address", "bits", "block", "form", "function", "index", "is_fixed", "mask", "site", "words")

    def __init__(self, image: LinkedImage, site: PatchSite, words: memoryview) -> None:
        patching = image.target.patching
        offset, target = image.offset_of_site(site), image.jump_target_of(site)
        distance = patching.length if target is None else target - offset
        self.site = site
        self.function = image.code.symbols[site.function].name
        self.block = image.block
        self.address = image.address + offset
        self.form = site.first_form
        self.is_fixed = target is None
        self.words = words
        self.index = (offset + patching.unit_offset) // patching.unit
        first = offset - self.index * patching.unit
        self.mask = _word(b"\xff" * patching.length, first, patching.unit)
        self.bits = (0, 0)
        if patching.is_near(distance):
            forms = (patching.nop(distance), patching.jump(distance))
            self.bits = (_word(forms[0], first, patching.unit), _word(forms[1], first, patching.unit))

    def __repr__(self) -> str:
        kind = self.site.kind.name.lower()
        return f"<{kind} site of {self.function} at {self.address:#x}: {self.form.name.lower()}>"


@final
class Patcher:
    """The only one to change code in place. `stores` counts the changes made. One a process: `patcher`."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.stores = 0

    def poke(self, changes: Iterable[tuple[PatchPoint, Form]]) -> int:
        """Bring every site into its wanted form, or none of them; how many had to be changed.

        Sites already in the wanted form, and fixed ones, need no store. RejectedError: EBUSY when a site does
        not hold what was last stored there, ENOENT when its image is gone, ERANGE when its jump falls short.
        UnsupportedError (EOPNOTSUPP) when this machine can't publish changed code.
        """
        with PATCH_LOCK:
            due = [(point, form) for point, form in changes if point.form != form and not point.is_fixed]
            if not due:
                return 0
            self.publisher.require()
            _verify(due)
            for point, form in due:
                point.words[point.index] = point.words[point.index] & ~point.mask | point.bits[form]
                point.form = form
            self.stores += len(due)
            self.publisher.publish(_ranges(due))
            return len(due)


@cache
def patcher() -> Patcher:
    """The patcher of this process."""
    return Patcher(publisher())


def patch_points(image: LinkedImage, kind: SiteKind) -> tuple[PatchPoint, ...]:
    """The sites of one kind in an image, in the order of their addresses, as the code stands after linking.

    Ask once an image: points remember what was stored, and two of one site would not know of each other.
    """
    words = image.block.words(_FORMATS[image.target.patching.unit])
    return tuple(PatchPoint(image, site, words) for site in image.code.sites if site.kind is kind)


@final
class EntryHook:
    """What runs instead of a patchable function: while armed, its entry jumps to `target`."""

    def __init__(self, image: LinkedImage, point: PatchPoint, patcher: Patcher) -> None:
        self.point = point
        self.body = point.address + point.site.length
        self._patcher = patcher
        veneer = image.layout.entries[point.site.function]
        self._literal = (veneer + image.target.veneer.literal) // WORD
        self._words = image.block.words("Q")

    @property
    def is_armed(self) -> bool:
        """Whether new calls go to `target`."""
        return self.point.form is Form.JUMP

    @property
    def target(self) -> int:
        """Where the veneer goes: the function's own body while nothing is hooked."""
        with PATCH_LOCK:
            _require_open([self.point])
            return int(self._words[self._literal])

    def arm(self, target: int) -> None:
        """Send all new calls to `target`; when armed already, one store of data does it."""
        self._aim(target)
        self._patcher.poke([(self.point, Form.JUMP)])

    def disarm(self) -> None:
        """Let the function run again. Threads that are on the way to the old target no longer reach it."""
        self._aim(self.body)
        self._patcher.poke([(self.point, Form.NOP)])

    def _aim(self, target: int) -> None:
        with PATCH_LOCK:
            _require_open([self.point])
            self._words[self._literal] = target


def _verify(due: Sequence[tuple[PatchPoint, Form]]) -> None:
    """Refuse all when one of them can't be done."""
    _require_open(point for point, _ in due)
    problems = []
    for point, _ in due:
        bits = point.bits
        if bits[0] == bits[1]:
            problems.append(_problem(point, "its jump falls short", errno.ERANGE))
        elif point.words[point.index] & point.mask != bits[point.form]:
            problems.append(_problem(point, f"it does not hold its {point.form.name.lower()}", errno.EBUSY))
    if problems:
        raise RejectedError(problems)


def _require_open(points: Iterable[PatchPoint]) -> None:
    gone = [
        _problem(point, "its image was unloaded", errno.ENOENT) for point in points if not point.block.size
    ]
    if gone:
        raise RejectedError(gone)


def _problem(point: PatchPoint, why: str, number: int) -> Diagnostic:
    kind = point.site.kind.name.lower()
    message = f"the {kind} site at {point.address:#x} can't be changed: {why}"
    return Diagnostic("patch-refused", message, Location(function=point.function), errno=number)


def _ranges(due: Sequence[tuple[PatchPoint, Form]]) -> list[tuple[Region, int, int]]:
    """What was changed, as one range a block."""
    starts: dict[CodeBlock, tuple[int, int]] = {}
    for point, _ in due:
        offset = point.address - point.block.address
        low, high = starts.get(point.block, (offset, offset))
        starts[point.block] = (min(low, offset), max(high, offset + point.site.length))
    return [(block.region, block.start + low, block.start + high) for block, (low, high) in starts.items()]


def _word(data: bytes, start: int, unit: int) -> int:
    """The part of `data`, laid at byte `start` of a word, that is inside it; as the machine reads a word."""
    word = bytearray(unit)
    for position, byte in enumerate(data, start):
        if 0 <= position < unit:
            word[position] = byte
    return int.from_bytes(word, sys.byteorder)
