"""BTF: the types of an object or of the kernel, as one .BTF section holds them.

    header | types: records of 32-bit words, numbered 1, 2, ... in order | strings, each ended by a zero byte

A record is (name, info, size or type) and what its kind adds. Opening a section only finds where the
records start: types become values when they are asked for, so the kernel's 150 000 open in a fraction of a
second. Split BTF (of a kernel module) continues the numbers and strings of its base. See the kernel's
Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from errno import EINVAL
from functools import cached_property, partial
from struct import Struct as Layout
from struct import pack
from typing import final

from ir.btf_names import Names, text_of
from ir.btf_types import (
    NAMED_BY_STRING,
    VOID,
    Array,
    BtfKind,
    DataSection,
    DeclTag,
    Enum,
    Enumerator,
    Float,
    Forward,
    Function,
    Int,
    Linkage,
    Member,
    Parameter,
    Pointer,
    Prototype,
    Qualifier,
    SectionEntry,
    Struct,
    Type,
    Typedef,
    TypeTag,
    Variable,
)
from ir.diagnostics import NOWHERE, Diagnostic, Location, UnreadableError

MAGIC = 0xEB9F
MAX_NAME = 4096
MAX_INDEXED = 512
"""Names that begin within another string are looked for up to there: the kernel allows no longer ones (KSYM_NAME_LEN)."""

MAX_DEPTH = 32
"""How many typedefs, qualifiers and arrays may follow each other (libbpf's MAX_RESOLVE_DEPTH)."""

_HEADER_SIZE = 24
_K = BtfKind
# Words after the common three, and words per element of vlen.
_EXTRA: dict[int, int] = {_K.INT: 1, _K.ARRAY: 3, _K.VAR: 1, _K.DECL_TAG: 1}
_PER_ELEMENT: dict[int, int] = {
    _K.STRUCT: 3,
    _K.UNION: 3,
    _K.ENUM: 2,
    _K.FUNC_PROTO: 2,
    _K.DATASEC: 3,
    _K.ENUM64: 3,
}


@final
class Btf:
    """The types of one .BTF section on top of those of `base`. Made by `read_btf`; not to be changed."""

    def __init__(
        self,
        data: bytes,
        words: array[int],
        strings: bytes,
        big_endian: bool,
        base: Btf | None,
        at: Location,
        first_byte: int,
    ) -> None:
        self.data = data
        self.big_endian = big_endian
        self.base = base
        self.at = at
        self.first_id = len(base) if base is not None else 1
        self._first_byte = first_byte
        self._words = words
        self._strings = strings
        self._first_string = base.strings_end if base is not None else 0
        self._starts = _find_records(words, at)
        self._types: dict[int, Type] = {}

    def __len__(self) -> int:
        """One more than the highest id: void is type 0."""
        return self.first_id + len(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Btf) and self.data == other.data and self.base == other.base

    def __hash__(self) -> int:
        return hash(self.data)

    @property
    def strings_end(self) -> int:
        """The string offset at which a split section goes on."""
        return self._first_string + len(self._strings)

    def ids(self) -> range:
        """The ids of this section's own types."""
        return range(self.first_id, len(self))

    def byte_offset(self, id: int) -> int:
        """Where in `data` the record of own type `id` starts. Raises UnreadableError when there is none."""
        return self._first_byte + 4 * self._start(id)

    def kind(self, id: int) -> BtfKind:
        """The kind of type `id`. Raises UnreadableError when there is no such type."""
        if id == 0:
            return BtfKind.UNKN
        if id < self.first_id and self.base is not None:
            return self.base.kind(id)
        return BtfKind(self._words[self._start(id) + 1] >> 24 & 0x1F)

    def name(self, id: int) -> str:
        """The name of type `id`, '' when it is anonymous. Raises UnreadableError when there is none."""
        if id == 0:
            return ""
        if id < self.first_id and self.base is not None:
            return self.base.name(id)
        return self.string(self._words[self._start(id)]) if self.kind(id) in NAMED_BY_STRING else ""

    def type(self, id: int) -> Type:
        """Type `id`. Raises UnreadableError when there is none, or its strings are not there."""
        found = self._types.get(id)
        if found is not None:
            return found
        if id == 0:
            return VOID
        if id < self.first_id and self.base is not None:
            return self.base.type(id)
        built = self._types[id] = self._build(self._start(id))
        return built

    def pointer_to(self, id: int) -> int:
        """The first of this section's own types that is a pointer to type `id`; 0 when there is none."""
        order = ">" if self.big_endian else "<"
        pattern = pack(order + "2I", BtfKind.PTR << 24, id)
        at, end = self._first_byte, self._first_byte + 4 * len(self._words)
        while (at := self.data.find(pattern, at, end)) >= 0:
            start, rest = divmod(at - 4 - self._first_byte, 4)
            number = bisect_left(self._starts, start)
            if not rest and number < len(self._starts) and self._starts[number] == start:
                return self.first_id + number
            at += 1
        return 0

    def string(self, offset: int, limit: int = MAX_NAME, cut: bool = False) -> str:
        """The string at `offset`. Raises UnreadableError when it is outside, or over `limit` unless `cut`."""
        if offset == 0:
            return ""
        if offset < self._first_string and self.base is not None:
            return self.base.string(offset, limit, cut)
        begin = offset - self._first_string
        if begin >= len(self._strings):
            raise self._error("bad-btf-string", f"string offset {offset} is outside the string section")
        end = self._strings.find(b"\0", begin, begin + limit + 1)
        if end < 0:
            if not cut:
                raise self._error("bad-btf-string", f"string at offset {offset} is longer than {limit} bytes")
            end = begin + limit
        return text_of(self._strings[begin:end])

    def find(self, name: str, *kinds: BtfKind) -> Iterator[int]:
        """The ids of the types called `name` (of one of `kinds`, when given), lowest first."""
        if self.base is not None:
            yield from self.base.find(name, *kinds)
        for id in self.names.ids(name):
            if not kinds or self.kind(id) in kinds:
                yield id

    def of_kind(self, kind: BtfKind) -> list[int]:
        """The ids of this section's own types of a kind."""
        words = self._words
        return [
            id for id, start in enumerate(self._starts, self.first_id) if words[start + 1] >> 24 & 31 == kind
        ]

    def find_flavours(self, name: str) -> Iterator[int]:
        """The ids of the types called `name` or a flavour of it (`name___old`), lowest first."""
        if self.base is not None:
            yield from self.base.find_flavours(name)
        found = [*self.names.ids(name)]
        for full in self.names.flavours(name):
            if full != name:
                found += self.names.ids(full)
        yield from sorted(found)

    @cached_property
    def names(self) -> Names:
        """This section's own types by name."""
        words = self._words
        offsets = array("I", [words[start] for start in self._starts])
        return Names(
            offsets, self.first_id, self._string_tables(), partial(self.string, limit=MAX_INDEXED, cut=True)
        )

    def _string_tables(self) -> list[tuple[int, bytes]]:
        base = self.base._string_tables() if self.base is not None else []
        return [*base, (self._first_string, self._strings)]

    def strip(self, id: int) -> int:
        """`id` without typedefs, qualifiers and type tags. Raises UnreadableError when they never end."""
        for _ in range(MAX_DEPTH):
            match self.type(id):
                case Typedef(type_id=inner) | Qualifier(type_id=inner) | TypeTag(type_id=inner):
                    id = inner
                case _:
                    return id
        raise self._error("btf-loop", f"type {id} is a chain of more than {MAX_DEPTH} types")

    def size_of(self, id: int) -> int:
        """Bytes that a value of type `id` takes. Raises UnreadableError for a type that has no size."""
        count = 1
        for _ in range(MAX_DEPTH):
            match self.type(id):
                case Int(size=size) | Struct(size=size) | Enum(size=size) | Float(size=size):
                    return count * size
                case DataSection(size=size):
                    return count * size
                case Pointer():
                    return count * 8
                case Array(element_id=inner, count=times):
                    id, count = inner, count * times
                case Typedef(type_id=inner) | Qualifier(type_id=inner) | TypeTag(type_id=inner):
                    id = inner
                case Variable(type_id=inner) | DeclTag(type_id=inner):
                    id = inner
                case _:
                    raise self._error("btf-no-size", f"type {id} '{self.name(id)}' has no size")
        raise self._error("btf-loop", f"type {id} is a chain of more than {MAX_DEPTH} types")

    def _error(self, code: str, message: str) -> UnreadableError:
        return UnreadableError([Diagnostic(code, message, self.at, errno=EINVAL)])

    def _start(self, id: int) -> int:
        if not self.first_id <= id < len(self):
            raise self._error("bad-btf-id", f"there is no type {id}; the highest is {len(self) - 1}")
        return self._starts[id - self.first_id]

    def _build(self, start: int) -> Type:
        words = self._words
        name_offset, info, third = words[start : start + 3]
        kind = BtfKind(info >> 24 & 0x1F)
        count, flag = info & 0xFFFF, bool(info >> 31)
        name = self.string(name_offset) if kind in NAMED_BY_STRING else ""
        more = start + 3
        match kind:
            case _K.INT:
                return _build_int(name, third, words[more])
            case _K.PTR:
                return Pointer(third)
            case _K.ARRAY:
                return Array(*words[more : more + 3])
            case _K.STRUCT | _K.UNION:
                return Struct(name, kind is _K.UNION, third, tuple(self._members(more, count, flag)))
            case _K.ENUM | _K.ENUM64:
                wide = kind is _K.ENUM64
                return Enum(name, third, flag, tuple(self._enumerators(more, count, flag, wide)), wide)
            case _K.FWD:
                return Forward(name, flag)
            case _K.TYPEDEF:
                return Typedef(name, third)
            case _K.VOLATILE | _K.CONST | _K.RESTRICT:
                return Qualifier(kind, third)
            case _K.FUNC:
                return Function(name, third, _linkage(count))
            case _K.FUNC_PROTO:
                return self._prototype(more, count, third)
            case _K.VAR:
                return Variable(name, third, _linkage(words[more]))
            case _K.DATASEC:
                fields = range(more, more + 3 * count, 3)
                return DataSection(name, third, tuple(SectionEntry(*words[i : i + 3]) for i in fields))
            case _K.FLOAT:
                return Float(name, third)
            case _K.DECL_TAG:
                component = words[more]
                return DeclTag(name, third, component - (1 << 32) if component >> 31 else component)
            case _:
                return TypeTag(name, third)

    def _members(self, start: int, count: int, flag: bool) -> Iterator[Member]:
        words = self._words
        for i in range(start, start + 3 * count, 3):
            name, type_id, offset = words[i : i + 3]
            if flag:
                yield Member(self.string(name), type_id, offset & 0xFF_FFFF, offset >> 24)
            else:
                yield Member(self.string(name), type_id, offset, 0)

    def _enumerators(self, start: int, count: int, signed: bool, wide: bool) -> Iterator[Enumerator]:
        words, step = self._words, 3 if wide else 2
        bits = 64 if wide else 32
        for i in range(start, start + step * count, step):
            value = words[i + 1] | (words[i + 2] << 32 if wide else 0)
            if signed and value >> (bits - 1):
                value -= 1 << bits
            yield Enumerator(self.string(words[i]), value)

    def _prototype(self, start: int, count: int, returns: int) -> Prototype:
        pairs = [tuple(self._words[i : i + 2]) for i in range(start, start + 2 * count, 2)]
        is_variadic = bool(pairs) and pairs[-1] == (0, 0)
        if is_variadic:
            pairs.pop()
        return Prototype(returns, tuple(Parameter(self.string(name), id) for name, id in pairs), is_variadic)


def read_btf(data: bytes, base: Btf | None = None, at: Location = NOWHERE) -> Btf:
    """The types in a .BTF section. Raises UnreadableError when a record does not fit, or its kind is unknown.

    Ids and strings that point nowhere are found when they are followed, or all at once by `check_btf`.
    """

    def fail(message: str) -> UnreadableError:
        return UnreadableError([Diagnostic("bad-btf", message, at, errno=EINVAL)])

    if len(data) < _HEADER_SIZE:
        raise fail(f"BTF of {len(data)} bytes is shorter than its header")
    order = {b"\x9f\xeb": "<", b"\xeb\x9f": ">"}.get(data[:2])
    if order is None:
        raise fail(f"BTF begins with {data[:2].hex()}, not with its magic number")
    header = Layout(order + "HBBIIIII").unpack_from(data)
    _, version, _, length, type_offset, type_length, string_offset, string_length = header
    if version != 1 or not _HEADER_SIZE <= length <= len(data):
        raise fail(
            f"BTF header has version {version} and length {length}, wanted 1 and at least {_HEADER_SIZE}"
        )
    room = len(data) - length
    if type_offset % 4 or type_length % 4 or type_offset + type_length > room:
        raise fail(f"BTF types at {type_offset}, {type_length} bytes, do not fit into {room} bytes")
    if string_offset + string_length > room:
        raise fail(f"BTF strings at {string_offset}, {string_length} bytes, do not fit into {room} bytes")
    strings = data[length + string_offset : length + string_offset + string_length]
    if (strings and strings[-1]) or (base is None and strings[:1] != b"\0"):
        raise fail("BTF strings do not begin and end with a zero byte")
    words = array("I", data[length + type_offset : length + type_offset + type_length])
    if (order == ">") != (sys.byteorder == "big"):
        words.byteswap()
    return Btf(data, words, strings, order == ">", base, at, length + type_offset)


def _find_records(words: array[int], at: Location) -> array[int]:
    """Where each type starts, in words. The one loop over all types: keep it small."""
    extra = [3 + _EXTRA.get(kind, 0) if kind in _KNOWN else 0 for kind in range(32)]
    per_element = [_PER_ELEMENT.get(kind, 0) for kind in range(32)]
    starts = array("I")
    append = starts.append
    position, end = 0, len(words)
    try:
        while position < end:
            append(position)
            info = words[position + 1]
            kind = info >> 24 & 31
            size = extra[kind]
            if not size:
                break
            position += size + per_element[kind] * (info & 0xFFFF)
    except IndexError:
        position = end + 1
    if position == end:
        return starts
    if position > end:
        said = f"type {len(starts)} does not fit into the types of {end * 4} bytes"
    else:
        said = f"type {len(starts)} is of unknown kind {words[position + 1] >> 24 & 31}"
    raise UnreadableError([Diagnostic("bad-btf", said, at, errno=EINVAL)])


_KNOWN = frozenset(kind for kind in BtfKind if kind is not BtfKind.UNKN)


def _linkage(value: int) -> Linkage:
    return Linkage(value) if value <= 2 else Linkage.STATIC


def _build_int(name: str, size: int, word: int) -> Int:
    encoding = word >> 24 & 15
    return Int(
        name, size, word & 0xFF, word >> 16 & 0xFF, bool(encoding & 1), bool(encoding & 2), bool(encoding & 4)
    )
