"""The values that BTF types are read into, one frozen class per kind (include/uapi/linux/btf.h).

Other types are named by id, 0 being void. Offsets and sizes are in bits where they say so, else in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import final


class BtfKind(IntEnum):
    """BTF_KIND_*."""

    UNKN = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


class Linkage(IntEnum):
    """How far the name of a function or variable reaches."""

    STATIC = 0
    GLOBAL = 1
    EXTERN = 2


NAMED_BY_STRING = frozenset(BtfKind) - {
    BtfKind.PTR,
    BtfKind.ARRAY,
    BtfKind.VOLATILE,
    BtfKind.CONST,
    BtfKind.RESTRICT,
    BtfKind.FUNC_PROTO,
}


@final
@dataclass(frozen=True, slots=True)
class Void:
    """Type 0."""


VOID = Void()


@final
@dataclass(frozen=True, slots=True)
class Int:
    """An integer of `size` bytes, of which `bits` bits from bit `bit_offset` on count."""

    name: str
    size: int
    bits: int
    bit_offset: int = 0
    is_signed: bool = False
    is_char: bool = False
    is_bool: bool = False


@final
@dataclass(frozen=True, slots=True)
class Float:
    """A floating-point number."""

    name: str
    size: int


@final
@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer to `type_id`; 8 bytes."""

    type_id: int


@final
@dataclass(frozen=True, slots=True)
class Array:
    """`count` elements."""

    element_id: int
    index_id: int
    count: int


@final
@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or union; `bit_size` is 0 unless it is a bit field."""

    name: str
    type_id: int
    bit_offset: int
    bit_size: int = 0


@final
@dataclass(frozen=True, slots=True)
class Struct:
    """A struct or union of `size` bytes."""

    name: str
    is_union: bool
    size: int
    members: tuple[Member, ...]


@final
@dataclass(frozen=True, slots=True)
class Enumerator:
    """A named value of an enum."""

    name: str
    value: int


@final
@dataclass(frozen=True, slots=True)
class Enum:
    """An enum; `is_wide` when its values are recorded with 64 bits (BTF_KIND_ENUM64)."""

    name: str
    size: int
    is_signed: bool
    values: tuple[Enumerator, ...]
    is_wide: bool = False


@final
@dataclass(frozen=True, slots=True)
class Forward:
    """A struct or union that is declared only."""

    name: str
    is_union: bool


@final
@dataclass(frozen=True, slots=True)
class Typedef:
    """Another name for `type_id`."""

    name: str
    type_id: int


@final
@dataclass(frozen=True, slots=True)
class Qualifier:
    """const, volatile or restrict."""

    kind: BtfKind
    type_id: int


@final
@dataclass(frozen=True, slots=True)
class Function:
    """A function; `type_id` is its Prototype."""

    name: str
    type_id: int
    linkage: Linkage


@final
@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function; '' when its name is not recorded."""

    name: str
    type_id: int


@final
@dataclass(frozen=True, slots=True)
class Prototype:
    """What a function takes and returns."""

    returns: int
    parameters: tuple[Parameter, ...]
    is_variadic: bool = False


@final
@dataclass(frozen=True, slots=True)
class Variable:
    """A global variable."""

    name: str
    type_id: int
    linkage: Linkage


@final
@dataclass(frozen=True, slots=True)
class SectionEntry:
    """Where the Variable (or extern Function) `type_id` lies in its section, in bytes."""

    type_id: int
    offset: int
    size: int


@final
@dataclass(frozen=True, slots=True)
class DataSection:
    """An ELF section of variables; `size` 0 when the compiler left it to the loader."""

    name: str
    size: int
    entries: tuple[SectionEntry, ...]


@final
@dataclass(frozen=True, slots=True)
class DeclTag:
    """btf_decl_tag: `value` on `type_id`, or on its member or parameter `component` (-1: on the whole)."""

    value: str
    type_id: int
    component: int


@final
@dataclass(frozen=True, slots=True)
class TypeTag:
    """btf_type_tag: `value` on `type_id`."""

    value: str
    type_id: int


Type = (
    Void
    | Int
    | Float
    | Pointer
    | Array
    | Struct
    | Enum
    | Forward
    | Typedef
    | Qualifier
    | Function
    | Prototype
    | Variable
    | DataSection
    | DeclTag
    | TypeTag
)
