"""The linker: native code placed in memory, bound to its symbols, callable.

A LinkedImage owns the memory of one module. Calls are near where the callee is in reach and far where not, in
slots of constant size (`runtime/relocate`), so `relink` after a callee has moved changes slots and literals
and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self, final

from backends.native_code import UNDEFINED, NativeCode, PatchSite, SiteKind
from backends.registry import target_named
from backends.target import Target
from runtime.layout import LINE, Layout, layout_of
from runtime.link_report import CallReport, report_calls
from runtime.memory import CodeBlock, DataBlock, Pool, near_pool
from runtime.region import CODE_LOCK, PAGE
from runtime.relocate import Relocated, Resolver, place, relocate


@final
@dataclass(frozen=True, slots=True)
class LinkedSymbol:
    """A defined symbol of an image: its name, address and length in bytes."""

    name: str
    address: int
    length: int
    is_function: bool


@final
class LinkedImage:
    """Native code in executable memory. Owns that memory; `close` frees it, when nobody can be in it any
    more.
    """

    def __init__(
        self,
        code: NativeCode,
        target: Target,
        layout: Layout,
        blocks: tuple[CodeBlock, DataBlock | None],
        slots: Mapping[str, int],
    ) -> None:
        self.code = code
        self.target = target
        self.layout = layout
        self.block, self.data = blocks
        self.slots = slots
        self._linked: Relocated | None = None
        self._by_name = {symbol.name: symbol for symbol in self.symbols}

    @property
    def address(self) -> int:
        """Where the image's code block is executed."""
        return self.block.address

    @property
    def symbols(self) -> tuple[LinkedSymbol, ...]:
        """The defined symbols, in the object's order."""
        return tuple(
            LinkedSymbol(
                symbol.name,
                self._section_address(symbol.section) + symbol.offset,
                symbol.size,
                symbol.is_function,
            )
            for symbol in self.code.symbols
            if symbol.section != UNDEFINED
        )

    @property
    def functions(self) -> tuple[LinkedSymbol, ...]:
        """The functions among the symbols."""
        return tuple(symbol for symbol in self.symbols if symbol.is_function)

    @property
    def calls(self) -> tuple[CallReport, ...]:
        """The link report: each call, near or far and why."""
        return report_calls(self.code, self.target, self._linked.calls) if self._linked is not None else ()

    def address_of(self, name: str) -> int:
        """The address of a defined symbol; KeyError when there is none of that name."""
        return self._by_name[name].address

    def address_of_site(self, site: PatchSite) -> int:
        """Where a patch site of this image is executed."""
        return self._section_address(site.section) + site.offset

    def offset_of_site(self, site: PatchSite) -> int:
        """Where a patch site is in the code block."""
        return self.layout.sections[site.section] + site.offset

    def jump_target_of(self, site: PatchSite) -> int | None:
        """The only place in the code block that a site can jump to; None when there is none."""
        if site.kind is SiteKind.ENTRY:
            return self.layout.entries[site.function]
        return self.layout.sections[site.section] + site.target_offset if site.target_offset >= 0 else None

    def relink(self, resolve: Resolver | Mapping[str, int]) -> None:
        """Bind the image to its symbols again, after some have moved: only slots, literals and table entries
        change.

        Nobody may be running the image: slots are not changed in one store. Changing a callee under running
        threads is what call tables are for (`runtime/call_table`).
        """
        data_address = self.data.address if self.data else 0
        addresses = (self.block.address, data_address)
        placement = place(
            self.code, self.layout, addresses, _function(resolve), self.slots, self.target.table_base
        )
        new = relocate(self.code, self.target, self.layout, placement)
        with CODE_LOCK:
            self._write(new)

    def close(self) -> None:
        """Poison and free the memory. Patches in progress are waited for, later ones refused."""
        with CODE_LOCK:
            self.block.close()
        if self.data is not None:
            self.data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, new: Relocated) -> None:
        """Write the whole image the first time, later only what has changed: patched sites stay so."""
        old, self._linked = self._linked, new
        if old is None:
            self.block.write(0, new.code)
            if self.data is not None:
                self.data.view[: len(new.data)] = new.data
            return
        for start, end in _differences(old.code, new.code):
            self.block.write(start, new.code[start:end])
        if self.data is not None:
            for start, end in _differences(old.data, new.data):
                self.data.view[start:end] = new.data[start:end]

    def _section_address(self, section: int) -> int:
        block = self.data if self.layout.section_is_data[section] else self.block
        assert block is not None, "a section that is data has a data block"
        return block.address + self.layout.sections[section]


def link(
    code: NativeCode,
    resolve: Resolver | Mapping[str, int],
    pool: Pool | None = None,
    *,
    slots: Mapping[str, int] | None = None,
    at: int | None = None,
    layout: Layout | None = None,
) -> LinkedImage:
    """Place native code in memory of `pool` (the process's own, if not said) and bind it to its symbols.

    `resolve` gives the addresses of undefined symbols. `slots` gives those of pointers to functions: calls of
    these names that lowering wrote as `nonlazybind` go through the pointer, so one store retargets them (LLVM
    may load it once for all rounds of a loop; where that matters, lowering loads the pointer atomically by a
    symbol of its own). `at` asks for an address. `layout` is the code's own, for who links the same code often.

    Raises RejectedError: `undefined-symbol` (ENOENT), `relocation-out-of-range` (ERANGE).
    """
    target = target_named(code.target)
    layout = layout or layout_of(code, target)
    pool = pool or near_pool()
    block = pool.allocate_code(layout.code_size, at)
    data = pool.allocate_data(layout.data_size, _behind(block, at)) if layout.data_size else None
    image = LinkedImage(code, target, layout, (block, data), dict(slots or {}))
    linked = False
    try:
        image.relink(resolve)
        linked = True
    finally:
        if not linked:
            image.close()
    return image


def _behind(block: CodeBlock, at: int | None) -> int | None:
    """Where the data of an image goes that has its code at a given address: to the next page."""
    return None if at is None else -(-(block.address + block.size) // PAGE) * PAGE


def _function(resolve: Resolver | Mapping[str, int]) -> Resolver:
    return resolve.get if isinstance(resolve, Mapping) else resolve


def _differences(old: bytes, new: bytes) -> list[tuple[int, int]]:
    """The ranges in which two images of one layout differ."""
    found: list[tuple[int, int]] = []
    for offset in _different_bytes(old, new):
        if found and found[-1][1] == offset:
            found[-1] = (found[-1][0], offset + 1)
        else:
            found.append((offset, offset + 1))
    return found


def _different_bytes(old: bytes, new: bytes) -> Iterator[int]:
    """The offsets at which two byte strings of one length differ; equal lines are skipped at once."""
    for start in range(0, len(old), LINE):
        if old[start : start + LINE] != new[start : start + LINE]:
            end = min(start + LINE, len(old))
            yield from (offset for offset in range(start, end) if old[offset] != new[offset])
