"""Values of BTF types: bytes to what Python has for them, and back.

    integer, pointer, address   int              char[n]                str up to the first zero
    bool                        bool             u8[n]                  bytes, taken as hexadecimal too
    float                       float            other arrays           list
    enum                        name, or int     struct, union          Record, anonymous members as its own

A Record is a dict whose members are attributes too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from errno import EINVAL
from typing import Any, Final, Literal, final

from ir.btf import Btf
from ir.btf_types import Array, Enum, Float, Int, Member, Pointer, Qualifier, Struct, TypeTag
from ir.diagnostics import Diagnostic, RejectedError

_FLOATS: Final = {2: "e", 4: "f", 8: "d"}
_CHARS: Final = ("char", "signed char")


@final
class Record(dict[str, object]):
    """The members of a struct by name; `record.member` is `record["member"]`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no member '{name}'") from None


def decode_value(btf: Btf, type_id: int, data: bytes) -> object:
    """The value of `data`, which may be longer, as type `type_id`; bytes where a type has no values."""
    type = btf.type(btf.strip(type_id))
    match type:
        case Int():
            return _decode_int(btf, type, data)
        case Enum():
            value = _number(btf, data[: type.size], type.is_signed)
            return next((one.name for one in type.values if one.value == value), value)
        case Pointer():
            return _number(btf, data[:8], False)
        case Float(size=size) if size in _FLOATS:
            return struct.unpack(_order(btf) + _FLOATS[size], data[:size])[0]
        case Array():
            return _decode_array(btf, type, data)
        case Struct():
            return Record(_decode_members(btf, type, data))
        case _:
            return bytes(data)


def encode_value(btf: Btf, type_id: int, value: object) -> bytes:
    """The bytes of `value` as type `type_id`. Raises RejectedError when it is no value of that type.

    Bytes of the right size are taken for any type; members that a mapping leaves out are zero.
    """
    size = btf.size_of(type_id)
    if isinstance(value, bytes | bytearray | memoryview):
        if len(value) == size or (_is_text(btf, type_id) and len(value) < size):
            return bytes(value).ljust(size, b"\0")
        raise misfit(btf, type_id, value, f"{size} bytes")
    type = btf.type(btf.strip(type_id))
    match type:
        case Int() if isinstance(value, int):
            return _encode_number(btf, type_id, value, type.size, type.bits)
        case Enum():
            number = next((one.value for one in type.values if one.name == value), value)
            if isinstance(number, int):
                return _encode_number(btf, type_id, number, type.size, 8 * type.size)
            raise misfit(btf, type_id, value, "a number or " + ", ".join(one.name for one in type.values))
        case Pointer() if isinstance(value, int):
            return _encode_number(btf, type_id, value, 8, 64)
        case Float() if isinstance(value, int | float) and size in _FLOATS:
            return struct.pack(_order(btf) + _FLOATS[size], value)
        case Array():
            return _encode_array(btf, type_id, type, value)
        case Struct() if isinstance(value, Mapping):
            return _encode_struct(btf, type_id, type, value)
        case _:
            raise misfit(
                btf, type_id, value, f"{size} bytes" if isinstance(value, str) else "another kind of value"
            )


def _decode_int(btf: Btf, type: Int, data: bytes) -> int | bool:
    value = _number(btf, data[: type.size], False)
    if type.bits < 8 * type.size:
        shift = 8 * type.size - type.bits - type.bit_offset if btf.big_endian else type.bit_offset
        value = value >> max(shift, 0) & (1 << type.bits) - 1
    if type.is_bool:
        return bool(value)
    return value - (1 << type.bits) if type.is_signed and value >> (type.bits - 1) else value


def _decode_array(btf: Btf, type: Array, data: bytes) -> object:
    size = btf.size_of(type.element_id)
    element = btf.type(btf.strip(type.element_id))
    if isinstance(element, Int) and element.size == 1 and not element.is_bool:
        raw = bytes(data[: type.count])
        if element.name not in _CHARS:
            return raw
        return raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    starts = range(0, size * type.count, size or 1)
    return [decode_value(btf, type.element_id, data[start : start + size]) for start in starts]


def _decode_members(btf: Btf, type: Struct, data: bytes) -> Iterator[tuple[str, object]]:
    for member in type.members:
        if member.bit_size:
            yield member.name, _decode_bits(btf, type, member, data)
            continue
        inside = data[member.bit_offset // 8 :]
        inner = btf.type(btf.strip(member.type_id))
        if not member.name and isinstance(inner, Struct):
            yield from _decode_members(btf, inner, inside)
        elif member.name:
            yield (
                member.name,
                decode_value(btf, member.type_id, inside[: _size_or(btf, member.type_id, len(inside))]),
            )


def _decode_bits(btf: Btf, type: Struct, member: Member, data: bytes) -> int:
    bits = 8 * type.size
    start = bits - member.bit_offset - member.bit_size if btf.big_endian else member.bit_offset
    value = _number(btf, data[: type.size], False) >> start & (1 << member.bit_size) - 1
    inner = btf.type(btf.strip(member.type_id))
    is_signed = isinstance(inner, Int | Enum) and inner.is_signed
    return value - (1 << member.bit_size) if is_signed and value >> (member.bit_size - 1) else value


def _encode_array(btf: Btf, type_id: int, type: Array, value: object) -> bytes:
    size = btf.size_of(type_id)
    if isinstance(value, str) and _is_text(btf, type_id):
        return encode_value(btf, type_id, value.encode())
    if isinstance(value, str) and _is_bytes(btf, type):
        raw = _from_hex(value)
        if raw is not None and len(raw) == size:
            return raw
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) > type.count:
        raise misfit(btf, type_id, value, f"at most {type.count} elements")
    return b"".join(encode_value(btf, type.element_id, one) for one in value).ljust(size, b"\0")


def _encode_struct(btf: Btf, type_id: int, type: Struct, value: Mapping[object, object]) -> bytes:
    image = bytearray(type.size)
    placed = dict(_places(btf, type, 0))
    for name, inner in value.items():
        place = placed.get(str(name))
        if place is None:
            raise misfit(btf, type_id, name, f"one of its members: {', '.join(placed)}")
        member, bit = place
        if member.bit_size:
            if not isinstance(inner, int):
                raise misfit(btf, member.type_id, inner, "a number")
            _put_bits(btf, image, bit, member.bit_size, inner)
            continue
        raw = encode_value(btf, member.type_id, inner)
        image[bit // 8 : bit // 8 + len(raw)] = raw
    return bytes(image)


def _places(btf: Btf, type: Struct, at: int) -> Iterator[tuple[str, tuple[Member, int]]]:
    """Each named member and its bit offset, those of anonymous members too."""
    for member in type.members:
        inner = btf.type(btf.strip(member.type_id))
        if not member.name and isinstance(inner, Struct):
            yield from _places(btf, inner, at + member.bit_offset)
        elif member.name:
            yield member.name, (member, at + member.bit_offset)


def _put_bits(btf: Btf, image: bytearray, bit: int, width: int, value: int) -> None:
    start = 8 * len(image) - bit - width if btf.big_endian else bit
    mask = (1 << width) - 1
    whole = _number(btf, bytes(image), False) & ~(mask << start) | (value & mask) << start
    image[:] = whole.to_bytes(len(image), _byteorder(btf))


def _encode_number(btf: Btf, type_id: int, value: int, size: int, bits: int) -> bytes:
    if not -(1 << (bits - 1)) <= value < 1 << bits:
        raise misfit(btf, type_id, value, f"a number of {bits} bits")
    return (int(value) & (1 << 8 * size) - 1).to_bytes(size, _byteorder(btf))


def _is_text(btf: Btf, type_id: int) -> bool:
    array = btf.type(btf.strip(type_id))
    element = btf.type(btf.strip(array.element_id)) if isinstance(array, Array) else None
    return isinstance(element, Int) and element.name in _CHARS


def _is_bytes(btf: Btf, array: Array) -> bool:
    element = btf.type(btf.strip(array.element_id))
    return isinstance(element, Int) and element.size == 1 and not element.is_bool


def _from_hex(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _size_or(btf: Btf, type_id: int, size: int) -> int:
    """The size of a member; a flexible array takes what is left."""
    return btf.size_of(type_id) or size


def _number(btf: Btf, data: bytes, signed: bool) -> int:
    return int.from_bytes(data, _byteorder(btf), signed=signed)


def _byteorder(btf: Btf) -> Literal["big", "little"]:
    return "big" if btf.big_endian else "little"


def _order(btf: Btf) -> str:
    return ">" if btf.big_endian else "<"


def misfit(btf: Btf, type_id: int, value: object, wanted: str) -> RejectedError:
    """The error for a value that is none of a type; what is `wanted` instead in words."""
    type = btf.type(type_id)
    while isinstance(type, Qualifier | TypeTag):
        type_id = type.type_id
        type = btf.type(type_id)
    name = btf.name(type_id) or f"type {type_id}"
    said = f"{value!r:.80} is no value of '{name}', wanted {wanted}"
    return RejectedError([Diagnostic("bad-value", said, errno=EINVAL)])
