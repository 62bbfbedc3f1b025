"""Native code as the compiler leaves it: sections, symbols, relocations, patch sites; and its form as bytes.

Offsets are bytes from the start of a section; symbols and sections are named by their index. `to_bytes` and
`from_bytes` are exact inverses, the same code gives the same bytes, and any byte changed or missing is found:

    magic 8 | version u32 | length of body u64 | BLAKE2b of body 16 | body: counts, records, strings, contents
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from hashlib import blake2b
from typing import Final, NamedTuple, final

from ir.diagnostics import Diagnostic, UnreadableError

MAGIC: Final = b"bpfcode\0"
VERSION: Final = 4
UNDEFINED: Final = -1
NO_SLOT: Final = -1

_HEADER: Final = struct.Struct("<8sIQ16s")
_COUNTS: Final = struct.Struct("<IIIIIII")
_SECTION: Final = struct.Struct("<IQIQBBxx")
_SYMBOL: Final = struct.Struct("<IiqQBBBx")
_RELOCATION: Final = struct.Struct("<IQIIq")
_LINE: Final = struct.Struct("<IQi4x")
_SITE: Final = struct.Struct("<BBxxIQIIQq")


class SiteKind(IntEnum):
    """What a patch site is for."""

    ENTRY = 0  # the first instruction of a function
    STATIC = 1  # a static branch
    SKIP = 2  # the way past fexit programs inside a trampoline
    SLOT = 3  # a pointer in memory, not code


class Form(IntEnum):
    """What stands at a patch site."""

    NOP = 0
    JUMP = 1


class Needs(IntFlag):
    """What the entry of a program reads of what its caller prepares; a caller that runs it often asks."""

    RUN = 1  # its run state
    CONTEXT = 2  # the content of its context
    HEADER = 4  # what stands before the context, which helpers read
    CPU = 8  # the processor's number in its run state
    ALL = 15


class Section(NamedTuple):
    """A piece of memory of `size` bytes; `data` is empty where they are all zero from the start (.bss)."""

    name: str
    data: bytes
    size: int
    alignment: int
    is_executable: bool
    is_writable: bool


class Symbol(NamedTuple):
    """A name for a place; `section` is UNDEFINED where another image has to define it.

    `local_entry`: bytes from a function's start to where its own image enters it.
    """

    name: str
    section: int
    offset: int
    size: int
    is_global: bool
    is_function: bool
    local_entry: int = 0


class Relocation(NamedTuple):
    """What to write at `offset` of `section`, by its official name, once `symbol` has an address."""

    section: int
    offset: int
    type: str
    symbol: int
    addend: int


class LineMark(NamedTuple):
    """From byte `offset` of `section` on, code is for the BPF instruction at `slot` (NO_SLOT: for none), up to the next."""

    section: int
    offset: int
    slot: int


@final
@dataclass(frozen=True, slots=True)
class PatchSite:
    """An instruction that may be changed while it runs: `length` bytes at `offset`, inside one aligned word.

    `function` is the symbol it belongs to; `key` the number that lowering gave a static branch (copies that
    LLVM makes of a branch share it), 0 for others. `target_offset` is the only place in the section that a
    STATIC or SKIP site can jump to, -1 for others. `first_form` is how the bytes stand in the section's data.
    """

    kind: SiteKind
    section: int
    offset: int
    length: int
    function: int
    key: int = 0
    target_offset: int = -1
    first_form: Form = Form.NOP


@final
@dataclass(frozen=True, slots=True)
class NativeCode:
    """A compiled module for the target called `target`, not placed yet."""

    target: str
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[Relocation, ...]
    sites: tuple[PatchSite, ...] = ()
    needs: Needs = Needs.ALL
    lines: tuple[LineMark, ...] = ()

    @property
    def undefined(self) -> tuple[str, ...]:
        """The names that others must define, in the object's order."""
        return tuple(symbol.name for symbol in self.symbols if symbol.section == UNDEFINED and symbol.name)

    def symbol(self, name: str) -> Symbol:
        """The symbol called `name`; KeyError when there is none."""
        for symbol in self.symbols:
            if symbol.name == name:
                return symbol
        raise KeyError(name)

    def to_bytes(self) -> bytes:
        """The code as bytes that `from_bytes` reads."""
        strings = _Strings()
        records: list[bytes] = [
            _COUNTS.pack(
                strings.index(self.target),
                len(self.sections),
                len(self.symbols),
                len(self.relocations),
                len(self.sites),
                len(self.lines),
                self.needs,
            )
        ]
        records += [
            _SECTION.pack(strings.index(name), len(data), alignment, size, is_executable, is_writable)
            for name, data, size, alignment, is_executable, is_writable in self.sections
        ]
        records += [_SYMBOL.pack(strings.index(name), *rest) for name, *rest in self.symbols]
        records += [
            _RELOCATION.pack(section, offset, strings.index(type), symbol, addend)
            for section, offset, type, symbol, addend in self.relocations
        ]
        records += [
            _SITE.pack(
                s.kind, s.first_form, s.section, s.offset, s.length, s.function, s.key, s.target_offset
            )
            for s in self.sites
        ]
        records += [_LINE.pack(*mark) for mark in self.lines]
        texts = "\0".join(strings.texts).encode()
        records += [len(texts).to_bytes(4, "little"), texts, *(section.data for section in self.sections)]
        body = b"".join(records)
        return _HEADER.pack(MAGIC, VERSION, len(body), _digest(body)) + body


def from_bytes(data: bytes) -> NativeCode:
    """What `to_bytes` wrote; UnreadableError for anything else."""
    body = _checked_body(data)
    target, *counts, needs = _COUNTS.unpack_from(body)
    tables: list[list[tuple[int, ...]]] = []
    at = _COUNTS.size
    for record, count in zip((_SECTION, _SYMBOL, _RELOCATION, _SITE, _LINE), counts, strict=True):
        end = at + record.size * count
        tables.append(list(record.iter_unpack(body[at:end])))
        at = end
    length = int.from_bytes(body[at : at + 4], "little")
    texts = body[at + 4 : at + 4 + length].decode().split("\0")
    at += 4 + length
    sections = []
    for name, stored, alignment, size, is_executable, is_writable in tables[0]:
        contents = body[at : at + stored]
        sections.append(
            Section(texts[name], contents, size, alignment, bool(is_executable), bool(is_writable))
        )
        at += stored
    return NativeCode(
        texts[target],
        tuple(sections),
        tuple(
            Symbol(texts[name], section, offset, size, bool(is_global), bool(is_function), local_entry)
            for name, section, offset, size, is_global, is_function, local_entry in tables[1]
        ),
        tuple(
            Relocation(section, offset, texts[type], symbol, addend)
            for section, offset, type, symbol, addend in tables[2]
        ),
        tuple(
            PatchSite(SiteKind(kind), section, offset, length, function, key, target_offset, Form(form))
            for kind, form, section, offset, length, function, key, target_offset in tables[3]
        ),
        Needs(needs),
        tuple(LineMark(*mark) for mark in tables[4]),
    )


class _Strings:
    """The distinct strings of a NativeCode in order of first use."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._indices: dict[str, int] = {}

    def index(self, text: str) -> int:
        found = self._indices.setdefault(text, len(self.texts))
        if found == len(self.texts):
            self.texts.append(text)
        return found


def _checked_body(data: bytes) -> bytes:
    """The part behind the header, when the header and the digest say that it is whole and ours."""
    if len(data) < _HEADER.size or data[: len(MAGIC)] != MAGIC:
        raise _unreadable("these bytes are not native code that bpfc wrote")
    _, version, length, digest = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if version != VERSION:
        raise _unreadable(f"native code of format {version}, this bpfc reads format {VERSION}")
    if len(body) != length:
        raise _unreadable(f"native code has {len(body)} bytes, its header says {length}")
    if _digest(body) != digest:
        raise _unreadable("native code does not have the digest that its header says")
    return body


def _unreadable(message: str) -> UnreadableError:
    return UnreadableError([Diagnostic("unreadable-native-code", message)])


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=16).digest()
