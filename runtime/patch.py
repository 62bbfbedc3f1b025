"""Changing code while threads run through it: one contract for every patch site.

    verify     every site holds what it is believed to hold, else EBUSY and nothing is changed
    store      one naturally aligned store a site, through the writable alias
    publish    once for all sites (`runtime/publish`)

Between store and publish a thread may execute either form; other bytes are never seen. What a site means,
which sites form a key and who owns them is not known here (`runtime/static_keys`).

An entry site jumps to the veneer of its function, and the veneer to the address in its literal. So a hook is
changed by a store to the literal, which is data; only the first and the last touch an instruction. What is
near may be jumped to at once (`EntryHook.arm`), which saves the veneer and costs a store to the site each time.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Literal, final

from backends.native_code import Form, PatchSite, SiteKind
from backends.target import Patching
from ir.diagnostics import Diagnostic, Location, RejectedError
from runtime.layout import WORD
from runtime.linker import LinkedImage
from runtime.memory import CodeBlock
from runtime.publish import WORD_FORMATS, Publisher, publisher
from runtime.region import CODE_LOCK


@final
class PatchPoint:
    """A patch site in memory: `words[index]` is the word that holds it, `mask` its bits of that word.

    `form` is what the patcher stored last; it is never read back from the code. `as_nop` and `as_jump` are the
    whole word in both forms while its other bits stay as they are; -1, when the jump falls short. `is_fixed`:
    the site has only its first form, because the side it would jump to was unreachable and deleted.
    """

    __slots__ = (
        *("address", "block", "function", "index", "is_fixed", "mask", "site", "words"),
        *("as_jump", "as_nop", "bits", "form", "_first", "_patching"),
    )

    def __init__(
        self,
        site: PatchSite,
        function: str,
        place: tuple[CodeBlock, memoryview, int],
        patching: Patching,
        forms: tuple[bytes, bytes] | None,
        is_fixed: bool = False,
    ) -> None:
        """`place`: the block, its words, and the site's offset there; `forms`: its NOP and its jump, if that is near."""
        self.site, self.function, self.is_fixed = site, function, is_fixed
        self.block, self.words, offset = place
        self.address = self.block.address + offset
        self.form = site.first_form
        self.index = (offset + patching.unit_offset) // patching.unit
        first = offset - self.index * patching.unit
        self.mask = _word(b"\xff" * patching.length, first, patching.unit)
        self._first, self._patching = first, patching
        self.bits = (0, 0)
        self.as_nop = self.as_jump = -1
        if forms is not None:
            self._take(forms)

    def __repr__(self) -> str:
        kind = self.site.kind.name.lower()
        return f"<{kind} site of {self.function} at {self.address:#x}: {self.form.name.lower()}>"

    def reaches(self, distance: int) -> bool:
        """Whether its jump spans `distance` bytes."""
        return self._patching.is_near(distance)

    def aim(self, distance: int) -> None:
        """From now on its jump spans `distance` bytes, which must be near; what is in memory stays for now."""
        patching = self._patching
        assert patching.is_near(distance), "a site's jump reaches"
        self._take((patching.nop(distance), patching.jump(distance)))

    def _take(self, forms: tuple[bytes, bytes]) -> None:
        nop, jump = (_word(form, self._first, self._patching.unit) for form in forms)
        self.bits = (nop, jump)
        self._take_rest(self.words[self.index])

    def _take_rest(self, word: int) -> None:
        """Take what stands around the site from a word as it is."""
        rest = word & ~self.mask
        self.as_nop, self.as_jump = rest | self.bits[Form.NOP], rest | self.bits[Form.JUMP]

    def refusal(self) -> tuple[str, int] | None:
        """Why the site can't be changed, with an errno; None when only the bits around it have changed."""
        if self.bits[0] == self.bits[1]:
            return "its jump falls short", errno.ERANGE
        found = self.words[self.index]
        if found & self.mask != self.bits[self.form]:
            return f"it does not hold its {self.form.name.lower()}", errno.EBUSY
        self._take_rest(found)
        return None


@final
class Patcher:
    """The only one to change code in place. `stores` counts the changes made. One a process: `patcher`."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.stores = 0

    def poke(self, nops: Sequence[PatchPoint] = (), jumps: Sequence[PatchPoint] = ()) -> int:
        """Make NOPs of some sites and jumps of others, of all or of none; how many had to be changed.

        Sites already in the wanted form, and fixed ones, need no store. RejectedError: EBUSY when a site does
        not hold what was last stored there, ENOENT when its image is gone, ERANGE when its jump falls short.
        UnsupportedError (EOPNOTSUPP) when this machine can't publish changed code.
        """
        nop, jump = Form.NOP, Form.JUMP
        with CODE_LOCK:
            to_nop = [point for point in nops if point.form is jump and not point.is_fixed]
            to_jump = [point for point in jumps if point.form is nop and not point.is_fixed]
            due = to_nop + to_jump
            if not due:
                return 0
            self.publisher.require()
            blocks = {point.block for point in due}
            _require_open(due, blocks)
            _require_forms(due)
            for point in to_nop:
                point.words[point.index] = point.as_nop
                point.form = nop
            for point in to_jump:
                point.words[point.index] = point.as_jump
                point.form = jump
            self.stores += len(due)
            self.publisher.publish(blocks)
            return len(due)

    def redirect(self, point: PatchPoint, distance: int) -> None:
        """Make `point`, whatever it is, a jump that spans `distance` bytes. Raises as `poke`; ERANGE where it can't."""
        with CODE_LOCK:
            self.publisher.require()
            _require_open([point], [point.block])
            if not point.reaches(distance):
                raise RejectedError([_problem(point, "its jump falls short", errno.ERANGE)])
            _require_forms([point])
            before = point.words[point.index]
            point.aim(distance)
            point.form = Form.JUMP
            if point.as_jump == before:
                return
            point.words[point.index] = point.as_jump
            self.stores += 1
            self.publisher.publish({point.block})


@cache
def patcher() -> Patcher:
    """The patcher of this process."""
    return Patcher(publisher())


def patch_points(image: LinkedImage, kind: SiteKind) -> tuple[PatchPoint, ...]:
    """The sites of one kind in an image, in the order of their addresses, as the code stands after linking.

    Ask once an image: points remember what was stored, and two of one site would not know of each other.
    """
    patching = image.target.branches if kind is SiteKind.STATIC else image.target.patching
    words = image.block.words(WORD_FORMATS[patching.unit])
    return tuple(_point(image, site, words, patching) for site in image.code.sites if site.kind is kind)


def _point(image: LinkedImage, site: PatchSite, words: memoryview, patching: Patching) -> PatchPoint:
    offset, target = image.offset_of_site(site), image.jump_target_of(site)
    distance = patching.length if target is None else target - offset
    before = image.code.sections[site.section].data[max(site.offset - WORD, 0) : site.offset]
    forms = patching.branch_forms(distance, before)
    function = image.code.symbols[site.function].name
    return PatchPoint(site, function, (image.block, words, offset), patching, forms, target is None)


@final
class EntryHook:
    """What runs instead of a patchable function: while armed, its entry leads to `target`."""

    def __init__(self, image: LinkedImage, point: PatchPoint, patcher: Patcher) -> None:
        self.point = point
        self.body = image.address + image.layout.bodies[point.site.function]
        self._patcher = patcher
        veneer = image.layout.entries[point.site.function]
        self._to_veneer = image.address + veneer - point.address
        patching = image.target.patching
        # Where a store changes the mask of a branch and not its distance, or a veneer sets up what functions rely on,
        # the only way is through it.
        self._is_near = (
            patching.is_near if patching.unit >= patching.length and not image.target.hooking else _never
        )
        self._literal = (veneer + image.target.entry_veneer.literal) // WORD
        self._words = image.block.words("Q")
        self._order = image.target.byte_order

    @property
    def is_armed(self) -> bool:
        """Whether new calls go to `target`."""
        return self.point.form is Form.JUMP

    @property
    def target(self) -> int:
        """Where the veneer goes: the function's own body while nothing is hooked."""
        with CODE_LOCK:
            _require_open([self.point], [self.point.block])
            return _swapped(int(self._words[self._literal]), self._order)

    def arm(self, target: int, *, is_direct: bool = False) -> None:
        """Send all new calls to `target`; when armed already, one store of data does it.

        With `is_direct` they jump there, if that is in reach, without the veneer in between.
        """
        self._aim(target)
        distance = target - self.point.address
        is_direct = is_direct and self._is_near(distance)
        self._patcher.redirect(self.point, distance if is_direct else self._to_veneer)

    def disarm(self) -> None:
        """Let the function run again. Threads that are on the way to the old target no longer reach it."""
        self._aim(self.body)
        self._patcher.poke(nops=[self.point])

    def _aim(self, target: int) -> None:
        with CODE_LOCK:
            _require_open([self.point], [self.point.block])
            self._words[self._literal] = _swapped(target, self._order)


def _never(_: int) -> bool:
    return False


def _require_forms(points: Sequence[PatchPoint]) -> None:
    """Refuse all when one of them does not hold what was stored there last."""
    jump = Form.JUMP
    changed = [
        point
        for point in points
        if point.words[point.index] != (point.as_jump if point.form is jump else point.as_nop)
    ]
    refusals = [(point, point.refusal()) for point in changed]
    problems = [_problem(point, *refusal) for point, refusal in refusals if refusal is not None]
    if problems:
        raise RejectedError(problems)


def _require_open(points: Iterable[PatchPoint], blocks: Iterable[CodeBlock]) -> None:
    if all(block.is_open for block in blocks):
        return
    gone = [point for point in points if not point.block.is_open]
    raise RejectedError([_problem(point, "its image was unloaded", errno.ENOENT) for point in gone])


def _problem(point: PatchPoint, why: str, number: int) -> Diagnostic:
    kind = point.site.kind.name.lower()
    message = f"the {kind} site at {point.address:#x} can't be changed: {why}"
    return Diagnostic("patch-refused", message, Location(function=point.function), errno=number)


def _swapped(word: int, order: Literal["little", "big"]) -> int:
    """A 64-bit word of the other side in this machine's byte order, and back."""
    return int.from_bytes(word.to_bytes(WORD, order), sys.byteorder)


def _word(data: bytes, start: int, unit: int) -> int:
    """The part of `data`, laid at byte `start` of a word, that is inside it; as the machine reads a word."""
    word = bytearray(unit)
    for position, byte in enumerate(data, start):
        if 0 <= position < unit:
            word[position] = byte
    return int.from_bytes(word, sys.byteorder)
