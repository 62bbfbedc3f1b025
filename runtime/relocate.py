"""The bytes of an image at given addresses, and how each of its calls reaches its callee.

call f@PLT              in reach:  call f            else:  call veneer; its literal = f
call *f@GOT(%rip)       in reach:  call f            else:  as it stands; table entry = f
mov  s@GOT(%rip), r     in reach:  lea s(%rip), r    else:  as it stands; table entry = s
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from backends.native_code import UNDEFINED, NativeCode, Relocation, SiteKind
from backends.target import Base, RelocationType, Target, Veneer
from ir.diagnostics import Diagnostic, Location, RejectedError
from runtime.layout import WORD, Layout
from runtime.link_report import Call, Reach

Resolver: TypeAlias = Callable[[str], int | None]

_ERANGE: Final = 34
_ENOENT: Final = 2


@final
@dataclass(frozen=True, slots=True)
class Placement:
    """Addresses of an image: its code block, its data block, every symbol by index, and table entries that
    others own.

    `slots` are addresses of 64-bit pointers, by symbol index: what is reached through one of them stays so,
    near or not, because the pointer may be changed at any time.
    """

    code: int
    data: int
    symbols: tuple[int, ...]
    slots: Mapping[int, int]


@final
@dataclass(frozen=True, slots=True)
class Relocated:
    """The contents of the blocks of an image at its addresses."""

    code: bytes
    data: bytes
    calls: tuple[Call, ...]


def place(
    code: NativeCode,
    layout: Layout,
    addresses: tuple[int, int],
    resolve: Resolver,
    slots: Mapping[str, int],
    table_base: str = "",
) -> Placement:
    """The address of every symbol; RejectedError names those that nobody defines.

    `table_base` is the symbol that stands for the base of the table of contents.
    """
    symbols: list[int] = []
    missing: list[Diagnostic] = []
    for symbol in code.symbols:
        if symbol.section != UNDEFINED:
            block = addresses[layout.section_is_data[symbol.section]]
            symbols.append(block + layout.sections[symbol.section] + symbol.offset)
            continue
        is_base = symbol.name == table_base and table_base
        found = addresses[0] + layout.table_base if is_base else resolve(symbol.name)
        if found is None and symbol.name not in slots:
            missing.append(Diagnostic("undefined-symbol", f"nothing defines '{symbol.name}'", errno=_ENOENT))
        symbols.append(found or 0)
    if missing:
        raise RejectedError(missing)
    owned = {index: slots[symbol.name] for index, symbol in enumerate(code.symbols) if symbol.name in slots}
    return Placement(*addresses, tuple(symbols), owned)


def relocate(code: NativeCode, target: Target, layout: Layout, placement: Placement) -> Relocated:
    """The bytes of an image; RejectedError (ERANGE) for values that do not fit."""
    return _Relocation(code, target, layout, placement).run()


@final
class _Relocation:
    """The image while it is written."""

    def __init__(self, code: NativeCode, target: Target, layout: Layout, placement: Placement) -> None:
        self.native, self.target, self.layout, self.placement = code, target, layout, placement
        self.code = bytearray(layout.code_size)
        self.data = bytearray(layout.data_size)
        self.calls: list[Call] = []
        self.low_parts: list[Relocation] = []
        self.values: dict[tuple[int, int], int] = {}  # what was stored, by (section, offset)
        self.problems: list[Diagnostic] = []

    def run(self) -> Relocated:
        for section, offset, is_data in zip(
            self.native.sections, self.layout.sections, self.layout.section_is_data, strict=True
        ):
            block = self.data if is_data else self.code
            block[offset : offset + len(section.data)] = section.data
        self._write_veneers()
        self._write_table()
        for relocation in self.native.relocations:
            self._apply(relocation)
        for relocation in self.low_parts:
            self._apply_low_part(relocation)
        if self.problems:
            raise RejectedError(self.problems)
        return Relocated(bytes(self.code), bytes(self.data), tuple(self.calls))

    def _write_veneers(self) -> None:
        """Veneers for calls, and those of patchable functions: back into the body while nobody hooks it."""
        for symbol, offset in self.layout.veneers.items():
            self._write_veneer(self.target.veneer, offset, self.placement.symbols[symbol])
        for site in self.native.sites:
            if site.kind is not SiteKind.ENTRY:
                continue
            start = self.layout.sections[site.section] + site.offset
            veneer, body = self.layout.entries[site.function], self.layout.bodies[site.function]
            self._write_veneer(self.target.entry_veneer, veneer, self.placement.code + body)
            if self.target.hooking is not None:
                distances = self.layout.table_base - body, start + site.length - body
                stub = self.target.hooking.body(*distances)
                self.code[body : body + len(stub)] = stub
            self.code[start : start + site.length] = self.target.patching.nop(veneer - start)

    def _write_veneer(self, veneer: Veneer, offset: int, literal: int) -> None:
        self.code[offset : offset + len(veneer.code)] = veneer.code
        self._write_word(offset + veneer.literal, literal)

    def _write_table(self) -> None:
        for symbol, offset in self.layout.table.items():
            self._write_word(offset, self.placement.symbols[symbol])

    def _write_word(self, offset: int, value: int) -> None:
        self.code[offset : offset + WORD] = value.to_bytes(WORD, self.target.byte_order)

    def _apply(self, relocation: Relocation) -> None:
        type = self.target.relocations[relocation.type]
        is_data = self.layout.section_is_data[relocation.section]
        offset = self.layout.sections[relocation.section] + relocation.offset
        place = (self.placement.data if is_data else self.placement.code) + offset
        block = self.data if is_data else self.code
        direct = self.placement.symbols[relocation.symbol] + relocation.addend - place
        match type.base:
            case Base.ABSOLUTE | Base.ADD | Base.SUBTRACT:  # the latter two encode by what stands there
                self._store(block, offset, type, relocation, direct + place)
            case Base.RELATIVE:
                self._store(block, offset, type, relocation, direct)
            case Base.BRANCH:
                self._branch(offset, type, relocation, place, direct)
            case Base.TABLE:
                base = self.placement.code + self.layout.table_base
                self._store(block, offset, type, relocation, direct + place - base)
            case Base.PAGE:
                self._store(block, offset, type, relocation, _page(direct + place) - _page(place))
            case Base.GOT | Base.GOT_PAGE | Base.GOT_LOW | Base.GOT_TABLE:
                self._through_table(offset, type, relocation, place, direct)
            case Base.PAIRED:
                self.low_parts.append(relocation)
            case Base.HINT:
                pass

    def _apply_low_part(self, relocation: Relocation) -> None:
        """The second instruction of a pair: its symbol is the place of the first one."""
        first = self.native.symbols[relocation.symbol]
        value = self.values[first.section, first.offset]
        offset = self.layout.sections[relocation.section] + relocation.offset
        self._store(self.code, offset, self.target.relocations[relocation.type], relocation, value)

    def _branch(
        self, offset: int, type: RelocationType, relocation: Relocation, place: int, direct: int
    ) -> None:
        """A direct branch, to the callee where it is in reach and else to its veneer."""
        veneer = self.layout.veneers.get(relocation.symbol)
        direct += self.native.symbols[relocation.symbol].local_entry
        is_near = type.low <= direct < type.high and not self.target.veneer.sets_up
        if is_near or veneer is None:
            self.calls.append(Call(relocation, offset, direct, Reach.NEAR))
            self._store(self.code, offset, type, relocation, direct)
            return
        self.calls.append(Call(relocation, offset, direct, Reach.VENEER))
        value = self.placement.code + veneer + relocation.addend - place
        self._store(self.code, offset, type, relocation, value)
        before, after = self.target.veneer.restore
        end = offset + type.size
        if before and self.code[end : end + len(before)] == before:
            self.code[end : end + len(after)] = after

    def _through_table(
        self, offset: int, type: RelocationType, relocation: Relocation, place: int, direct: int
    ) -> None:
        """An access through the offset table, made direct where it can be and nobody may change the entry."""
        relax = type.relax
        slot = self.placement.slots.get(relocation.symbol)
        if relax is not None:
            start, end = offset - relax.before, offset + relax.size
            old = bytes(self.code[start:end])
            is_near = type.low <= direct < type.high
            new = relax.direct(old, direct) if is_near and slot is None else None
            if relax.is_call(old):
                reach = Reach.NEAR if new else Reach.TABLE if slot is None else Reach.SLOT
                self.calls.append(Call(relocation, offset, direct, reach))
            if new is not None:
                self.code[start:end] = new
                return
        entry = self.placement.code + self.layout.table[relocation.symbol] if slot is None else slot
        entry += relocation.addend
        values = {
            Base.GOT: entry - place,
            Base.GOT_LOW: entry - _page(entry),
            Base.GOT_PAGE: _page(entry) - _page(place),
            Base.GOT_TABLE: entry - self.placement.code - self.layout.table_base,
        }
        self._store(self.code, offset, type, relocation, values[type.base])

    def _store(
        self, block: bytearray, offset: int, type: RelocationType, relocation: Relocation, value: int
    ) -> None:
        if not type.low <= value < type.high:
            self._out_of_range(relocation, type, value)
            return
        self.values[relocation.section, relocation.offset] = value
        order = self.target.byte_order
        old = int.from_bytes(block[offset : offset + type.size], order)
        block[offset : offset + type.size] = type.encode(old, value).to_bytes(type.size, order)

    def _out_of_range(self, relocation: Relocation, type: RelocationType, value: int) -> None:
        name = self.native.symbols[relocation.symbol].name
        message = f"{relocation.type} of '{name}' is {value:#x}, wanted {type.low:#x} up to {type.high:#x}"
        section = self.native.sections[relocation.section].name
        at = Location(section=section, offset=relocation.offset)
        self.problems.append(Diagnostic("relocation-out-of-range", message, at, errno=_ERANGE))


def _page(address: int) -> int:
    return address & ~0xFFF
