"""How keys, values and events look in Python: plain bytes, or what BTF says they mean.

bytes     bytes, anything with a buffer (ctypes, numpy); numbers for 1, 2, 4 or 8 bytes
BTF       numbers, strings, lists, records (ir/btf_values); keys as named tuples, because they are hashed
"""

from __future__ import annotations

import sys
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from errno import EINVAL
from functools import cache
from typing import Literal, Protocol, final

from ir.btf import Btf
from ir.btf_types import Struct
from ir.btf_values import decode_value, encode_value, misfit
from ir.map_layout import key_bytes
from ir.object import Map
from runtime.maps.errors import map_error


class Codec(Protocol):
    """Both ways between bytes and Python."""

    def encode(self, value: object) -> bytes:
        """The bytes of a value; RejectedError when it does not fit."""

    def decode(self, data: bytes) -> object:
        """The value of some bytes."""


@final
class BytesCodec:
    """Plain bytes of `size`; `what` they are is said in errors. Numbers are encoded in `order`."""

    def __init__(self, declared: Map, what: str, size: int, order: Literal["little", "big"]) -> None:
        self._declared, self._what, self._size, self._order = declared, what, size, order

    def encode(self, value: object) -> bytes:
        """Bytes as they are; a number in as many bytes as the map wants."""
        if isinstance(value, int) and self._size in (1, 2, 4, 8):
            bits = 8 * self._size
            if -(1 << (bits - 1)) <= value < 1 << bits:
                return (value & (1 << bits) - 1).to_bytes(self._size, self._order)
        raw = raw_bytes(value)
        if raw is None:
            said = f"takes a {self._what} of {self._size} bytes, not {value!r:.80}"
            raise map_error(self._declared, EINVAL, said)
        return raw

    def decode(self, data: bytes) -> bytes:
        """The bytes."""
        return data


@final
class BtfCodec:
    """Values of type `type_id`. `is_key`: structures become named tuples and lists tuples."""

    def __init__(self, btf: Btf, type_id: int, is_key: bool = False) -> None:
        self._btf, self._type_id, self._is_key = btf, type_id, is_key
        type = btf.type(btf.strip(type_id))
        self._members = [member.name for member in type.members] if isinstance(type, Struct) else None

    def encode(self, value: object) -> bytes:
        """A mapping, a sequence in the order of the members, a number, a string, or bytes."""
        raw = raw_bytes(value)
        if raw is not None:
            value = raw
        elif hasattr(value, "_asdict"):
            value = value._asdict()
        elif self._members is not None and isinstance(value, Sequence) and not isinstance(value, str):
            if len(value) != len(self._members):
                raise misfit(self._btf, self._type_id, value, f"{len(self._members)} members")
            value = dict(zip(self._members, value, strict=True))
        return encode_value(self._btf, self._type_id, value)

    def decode(self, data: bytes) -> object:
        """What the bytes mean."""
        value = decode_value(self._btf, self._type_id, data)
        return _hashable(value) if self._is_key else value


def codec_of(
    declared: Map, btf: Btf | None, what: str, order: Literal["little", "big"] = sys.byteorder
) -> Codec:
    """The codec of a map's keys ("key") or values ("value"), in the byte order of who runs the program."""
    size = key_bytes(declared) if what == "key" else declared.value_size
    type_id = declared.key_btf_id if what == "key" else declared.value_btf_id
    if btf is None or not type_id or btf.size_of(type_id) != size:
        return BytesCodec(declared, what, size, order)
    return BtfCodec(btf, type_id, is_key=what == "key")


def raw_bytes(value: object) -> bytes | None:
    """The bytes of anything with a buffer; None for what has none."""
    if isinstance(value, int | str | Mapping):
        return None
    try:
        return bytes(memoryview(value))  # type: ignore[arg-type]  # asked, not known
    except TypeError:
        return None


@cache
def _key_type(names: tuple[str, ...]) -> Callable[..., object]:
    return namedtuple("Key", names, rename=True)


def _hashable(value: object) -> object:
    if isinstance(value, Mapping):
        names = tuple(value)
        return _key_type(names)(*(_hashable(value[name]) for name in names))
    if isinstance(value, list):
        return tuple(_hashable(one) for one in value)
    return value
