"""Writing BTF: types as values to the bytes of a .BTF section; the inverse of `read_btf`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import pack
from typing import final

from ir.btf import MAGIC, Btf
from ir.btf_types import (
    Array,
    BtfKind,
    DataSection,
    DeclTag,
    Enum,
    Float,
    Forward,
    Function,
    Int,
    Pointer,
    Prototype,
    Qualifier,
    Struct,
    Type,
    Typedef,
    TypeTag,
    Variable,
    Void,
)

_K = BtfKind
_HEADER_SIZE = 24


def encode_btf(types: Sequence[Type], big_endian: bool = False, base: Btf | None = None) -> bytes:
    """The .BTF section that holds `types`; the first gets id 1, or the next after those of `base`."""
    strings = _Strings(base)
    words = [word & 0xFFFF_FFFF for type in types for word in _record(type, strings)]
    order = ">" if big_endian else "<"
    body = pack(f"{order}{len(words)}I", *words)
    text = strings.content()
    header = pack(f"{order}HBBIIIII", MAGIC, 1, 0, _HEADER_SIZE, 0, len(body), len(body), len(text))
    return header + body + text


@final
class _Strings:
    """The string section while it grows: each string once, in the order of first use."""

    def __init__(self, base: Btf | None) -> None:
        self._start = base.strings_end if base is not None else 0
        self._offsets = {} if base is not None else {"": 0}
        self._parts = [] if base is not None else [b"\0"]
        self._size = sum(map(len, self._parts))

    def offset(self, text: str) -> int:
        if not text:
            return 0
        if text not in self._offsets:
            part = text.encode() + b"\0"
            self._offsets[text] = self._start + self._size
            self._parts.append(part)
            self._size += len(part)
        return self._offsets[text]

    def content(self) -> bytes:
        return b"".join(self._parts)


def _record(type: Type, strings: _Strings) -> list[int]:
    name = strings.offset
    match type:
        case Int():
            flags = type.is_signed | type.is_char << 1 | type.is_bool << 2
            return [
                *_head(name(type.name), _K.INT, type.size),
                flags << 24 | type.bit_offset << 16 | type.bits,
            ]
        case Float():
            return _head(name(type.name), _K.FLOAT, type.size)
        case Pointer():
            return _head(0, _K.PTR, type.type_id)
        case Array():
            return [*_head(0, _K.ARRAY, 0), type.element_id, type.index_id, type.count]
        case Struct():
            return _struct(type, strings)
        case Enum():
            kind = _K.ENUM64 if type.is_wide else _K.ENUM
            head = _head(name(type.name), kind, type.size, len(type.values), type.is_signed)
            return [*head, *_enumerators(type, strings)]
        case Forward():
            return _head(name(type.name), _K.FWD, 0, 0, type.is_union)
        case Typedef():
            return _head(name(type.name), _K.TYPEDEF, type.type_id)
        case Qualifier():
            return _head(0, type.kind, type.type_id)
        case Function():
            return _head(name(type.name), _K.FUNC, type.type_id, type.linkage)
        case Prototype():
            pairs = [word for p in type.parameters for word in (name(p.name), p.type_id)]
            pairs += [0, 0] * type.is_variadic
            return [*_head(0, _K.FUNC_PROTO, type.returns, len(pairs) // 2), *pairs]
        case Variable():
            return [*_head(name(type.name), _K.VAR, type.type_id), type.linkage]
        case DataSection():
            entries = [word for e in type.entries for word in (e.type_id, e.offset, e.size)]
            return [*_head(name(type.name), _K.DATASEC, type.size, len(type.entries)), *entries]
        case DeclTag():
            return [*_head(name(type.value), _K.DECL_TAG, type.type_id), type.component]
        case TypeTag():
            return _head(name(type.value), _K.TYPE_TAG, type.type_id)
        case Void():
            raise AssertionError("void is type 0 and has no record")


def _head(name: int, kind: BtfKind, third: int, count: int = 0, flag: bool = False) -> list[int]:
    return [name, flag << 31 | kind << 24 | count, third]


def _struct(struct: Struct, strings: _Strings) -> list[int]:
    has_bit_fields = any(member.bit_size for member in struct.members)
    kind = _K.UNION if struct.is_union else _K.STRUCT
    words = _head(strings.offset(struct.name), kind, struct.size, len(struct.members), has_bit_fields)
    for member in struct.members:
        words += [strings.offset(member.name), member.type_id, member.bit_size << 24 | member.bit_offset]
    return words


def _enumerators(enum: Enum, strings: _Strings) -> Iterator[int]:
    for value in enum.values:
        yield strings.offset(value.name)
        yield value.value
        if enum.is_wide:
            yield value.value >> 32
