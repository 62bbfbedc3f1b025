"""Entries of native functions that were compiled to be hooked: a jump takes the place of the NOPs left there.

    f:   nop nop nop nop nop       f:   jmp veneer        veneer: jmp *literal ──► image
         body                           body                      literal

`-fpatchable-function-entry=N` lists such entries in section __patchable_function_entries, `-pg -mfentry -mnop-mcount
-mrecord-mcount` in __mcount_loc. Nothing else is taken for one. The page with the entry is mapped a second time,
writable, and then changed as all code is (`runtime/patch`): no page is writable where it is executed.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from dataclasses import dataclass
from errno import EINVAL, ENOMEM, EOPNOTSUPP
from functools import cache
from typing import Final, final

from backends.native_code import Form, PatchSite, SiteKind
from backends.target import Target
from ir.diagnostics import Diagnostic, Location, RejectedError, UnsupportedError
from runtime.hook import Hook
from runtime.layout import WORD
from runtime.libraries import Library, NativeSymbol
from runtime.memory import CodeBlock
from runtime.patch import Patcher, PatchPoint
from runtime.publish import WORD_FORMATS
from runtime.region import CODE_LOCK, PAGE, Protection, Region, mappings
from runtime.space import host_space

SECTIONS: Final = ("__patchable_function_entries", "__mcount_loc")
_LONGEST: Final = 256  # bytes of NOPs that are looked at
_BEFORE: Final = 64  # bytes of them that may stand before a function


@final
@dataclass(frozen=True, slots=True)
class Sled:
    """Where a jump fits: `site` is its address, `body` where the function goes on behind it."""

    site: int
    body: int


def find_sled(library: Library, function: NativeSymbol) -> Sled:
    """The patchable entry of a function. RejectedError (EINVAL) when it has none, or none that can be changed."""
    if function.is_indirect:
        raise _refused(
            function, "is chosen among several when the library is loaded", "hook the one that is chosen"
        )
    target = host_space().target
    records = [word for section in SECTIONS for word in library.words(section)]
    pads = target.patching.sleds.pads
    low, high = function.address - _BEFORE, function.address + max(map(len, pads), default=0) + 1
    start = next((record for record in sorted(records) if low <= record < high), None)
    if start is None:
        note = (
            "compile it with -fpatchable-function-entry=16, or hook the calls of one library (bpfc.imported)"
        )
        raise _refused(function, "has no patchable entry", note)
    patching = target.patching
    entry = function.address
    # Safe because a function's first bytes are mapped, and what follows them is only read up to the page's end.
    code = ctypes.string_at(entry, min(_LONGEST, PAGE - entry % PAGE))
    pad = next((len(pad) for pad in pads if code.startswith(pad)), 0)
    at = entry + pad
    starts = [at]
    for length in patching.sleds.lengths(code[pad:]):
        starts.append(starts[-1] + length)
    for site in starts:
        behind = [other for other in starts if other >= site + patching.length]
        if behind and patching.fits(site):
            return Sled(site, behind[0])
    room = starts[-1] - at
    said = f"has {room} bytes of NOPs at its entry, none of them where one store can change {patching.length}"
    raise _refused(function, said, "compile it with -fpatchable-function-entry=16 -falign-functions=16")


def entry_hook_of(library: Library, function: NativeSymbol) -> Hook:
    """The hook of a function at its entry, one for each. Callers hold `attach_lock`.

    RejectedError as `find_sled`; UnsupportedError: EOPNOTSUPP, ENOMEM.
    """
    found = _hooks().get(function.address)
    if found is None:
        sled = find_sled(library, function)
        library.stay()
        found = _hooks()[function.address] = Hook(function.name, _entry(function, sled), host_space())
    return found


@cache
def _hooks() -> dict[int, Hook]:
    """The hooks of patchable entries by the addresses of their functions; for as long as the process lives."""
    return {}


@cache
def _pages() -> dict[int, CodeBlock]:
    """The pages of native code that were mapped a second time, by their address; for as long as the process lives."""
    return {}


@final
class SledEntry:
    """An entry of native code: while armed, it jumps to a veneer, whose literal is a word of `words`."""

    def __init__(
        self, point: PatchPoint, body: int, words: memoryview, literal: int, patcher: Patcher
    ) -> None:
        self.body = body
        self._point, self._words, self._literal, self._patcher = point, words, literal, patcher

    def arm(self, target: int, *, is_direct: bool = False) -> None:
        """Send all new calls to `target`, always through the veneer: no other jump is quiet."""
        self._words[self._literal] = target
        self._patcher.poke(jumps=[self._point])

    def disarm(self) -> None:
        """Let the function run again."""
        self._words[self._literal] = self.body
        self._patcher.poke(nops=[self._point])


def _entry(function: NativeSymbol, sled: Sled) -> SledEntry:
    space = host_space()
    target, patching = space.target, space.target.patching
    space.patcher.publisher.require()
    with CODE_LOCK:
        page = _adopt(sled.site // PAGE * PAGE, target)
        block, offset = _place_veneer(sled, target)
        block.write(offset, target.veneer.code)
        literal = (offset + target.veneer.literal) // WORD
        words = block.words("Q")
        words[literal] = sled.body
        space.patcher.publisher.publish([block])
        at = sled.site - page.address
        forms = page.read(at, patching.length), patching.jump(block.address + offset - sled.site)
        if not _differ_in_one_unit(at, forms, patching.unit):
            said = f"the entry of '{function.name}' can't become a jump in one store"
            raise UnsupportedError([Diagnostic("no-live-patching", said, errno=EOPNOTSUPP)])
        site = PatchSite(SiteKind.ENTRY, 0, at, patching.length, 0, first_form=Form.NOP)
        place = page, page.words(WORD_FORMATS[patching.unit]), at
        point = PatchPoint(site, function.name, place, patching, forms)
    return SledEntry(point, sled.body, words, literal, space.patcher)


def _differ_in_one_unit(offset: int, forms: tuple[bytes, bytes], unit: int) -> bool:
    changed = [offset + n for n, (old, new) in enumerate(zip(*forms, strict=True)) if old != new]
    return len({byte // unit for byte in changed}) == 1


def _adopt(address: int, target: Target) -> CodeBlock:
    """The page at `address`, mapped a second time."""
    found = _pages().get(address)
    if found is None:
        protection = Protection.WRITE_XOR_EXECUTE
        region = Region(address, PAGE, protection, target.poison, replace=True, adopt=True)
        found = _pages()[address] = CodeBlock(region, 0, PAGE, None)
    return found


@cache
def _veneers() -> dict[int, tuple[CodeBlock, set[int]]]:
    """Pages with veneers by their address, and the offsets that are taken; for as long as the process lives."""
    return {}


def _place_veneer(sled: Sled, target: Target) -> tuple[CodeBlock, int]:
    """Room for a veneer where a jump from the site to it is quiet: the block, and the offset there."""
    size = target.veneer.size
    taken = mappings()
    for distance in sorted(
        target.patching.sleds.quiet(sled.site), key=lambda found: _is_slow(sled.site, found)
    ):
        place = sled.site + distance
        page, offset = place // PAGE * PAGE, place % PAGE
        if page <= 0 or offset + size > PAGE:
            continue
        known = _veneers().get(page)
        if known is None:
            if not _is_free(taken, page):
                continue
            known = _veneers()[page] = host_space().pool.allocate_code(PAGE, page), set()
        if all(abs(offset - other) >= size for other in known[1]):
            known[1].add(offset)
            return known[0], offset
    said = "there is no free memory in reach of the function"
    raise UnsupportedError([Diagnostic("out-of-code-memory", said, errno=ENOMEM)])


def _is_slow(site: int, distance: int) -> bool:
    """Whether a jump crosses a multiple of 4 GiB: processors keep such targets in slower tables, where a hook costs half as
    much again.
    """
    return site >> 32 != site + distance >> 32


def _is_free(taken: list[tuple[int, int]], page: int) -> bool:
    """Whether nothing is mapped at a page; where the main thread's stack may grow is left alone, as mmap(2) does."""
    index = bisect_right(taken, (page, 1 << 64)) - 1
    return (index < 0 or taken[index][1] <= page) and (
        index + 1 >= len(taken) or taken[index + 1][0] >= page + PAGE
    )


def _refused(function: NativeSymbol, why: str, note: str) -> RejectedError:
    said = f"'{function.name}' can't be hooked at its entry: it {why}"
    at = Location(function=function.name)
    return RejectedError([Diagnostic("no-patchable-entry", said, at, notes=(note,), errno=EINVAL)])
