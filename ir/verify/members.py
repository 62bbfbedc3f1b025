"""Walking a structure's BTF by byte offsets: what member is there, what it points to, how far it may be relied on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, final

from ir.btf import Btf
from ir.btf_types import Array, Enum, Int, Member, Pointer, Struct, TypeTag

_DEPTH: Final = 16
_WORD: Final = 8


@final
@dataclass(frozen=True, slots=True)
class PointerMember:
    """A member that points to structure `target`; `tag` is the pointer's type tag (rcu, user, percpu), '' if none.

    `in_union`: some other member may be meant by the same bytes.
    """

    target: int
    struct: str
    name: str
    tag: str
    in_union: bool = False


def size_of(btf: Btf, type_id: int) -> int:
    """Bytes of a type."""
    type = btf.type(btf.strip(type_id))
    return type.size if isinstance(type, Struct | Int | Enum) else btf.size_of(type_id)


def ends_open(btf: Btf, type_id: int) -> bool:
    """Whether the structure ends in an array of no fixed length."""
    type = btf.type(btf.strip(type_id))
    if not isinstance(type, Struct) or not type.members:
        return False
    last = btf.type(btf.strip(type.members[-1].type_id))
    return isinstance(last, Array) and last.count == 0


def find_pointer(btf: Btf, type_id: int, offset: int) -> PointerMember | None:
    """The member at `offset` that points to a structure, None when there is no such."""
    return _find_pointer(btf, type_id, offset, "", "", _DEPTH)


def _find_pointer(
    btf: Btf, type_id: int, offset: int, struct: str, name: str, depth: int
) -> PointerMember | None:
    type = btf.type(btf.strip(type_id))
    if not depth:
        return None
    if isinstance(type, Struct):
        holder = type.name or struct
        for member in _members_at(btf, type, offset):
            start = member.bit_offset // 8
            found = _find_pointer(btf, member.type_id, offset - start, holder, member.name, depth - 1)
            if found is not None:
                return replace(found, in_union=True) if type.is_union and len(type.members) > 1 else found
    elif isinstance(type, Array):
        size = btf.size_of(type.element_id)
        return _find_pointer(btf, type.element_id, offset % size if size else offset, struct, name, depth - 1)
    elif isinstance(type, Pointer) and not offset:
        tag = tag_of(btf, type)
        target = pointed_struct(btf, type)
        return PointerMember(target, struct, name, tag) if target is not None else None
    return None


def tag_of(btf: Btf, pointer: Pointer) -> str:
    """The type tag of what is pointed to, '' if none."""
    tag = btf.type(pointer.type_id)
    return tag.value if isinstance(tag, TypeTag) else ""


def pointed_struct(btf: Btf, pointer: Pointer) -> int | None:
    """The structure pointed to in the kernel's own memory, None when it is another type or lies elsewhere."""
    if tag_of(btf, pointer) in ("user", "percpu"):
        return None
    inner = btf.strip(pointer.type_id)
    return inner if isinstance(btf.type(inner), Struct) else None


def fits(btf: Btf, type_id: int, offset: int, size: int, depth: int = _DEPTH) -> bool:
    """Whether `size` bytes at `offset` lie in one member, and a pointer is taken whole (kernel: btf_struct_walk)."""
    type = btf.type(btf.strip(type_id))
    if not depth:
        return False
    if isinstance(type, Struct):
        return any(
            _fits_bits(member, offset, size)
            if member.bit_size
            else fits(btf, member.type_id, offset - member.bit_offset // 8, size, depth - 1)
            for member in _members_at(btf, type, offset, bits=True)
        )
    if isinstance(type, Array):
        element = btf.type(btf.strip(type.element_id))
        each = btf.size_of(type.element_id)
        if isinstance(element, Struct | Pointer | Array):
            return fits(btf, type.element_id, offset % each if each else offset, size, depth - 1)
        return not type.count or offset + size <= each * type.count
    if isinstance(type, Pointer):
        return offset == 0 and size == _WORD
    return offset + size <= btf.size_of(type_id)


def _fits_bits(member: Member, offset: int, size: int) -> bool:
    """Whether an access covers a part of a bit field and ends no later than the field's last word."""
    end = member.bit_offset + member.bit_size
    return member.bit_offset < 8 * (offset + size) and 8 * offset < end


def is_struct_at(btf: Btf, type_id: int, offset: int, wanted: str) -> bool:
    """Whether there is a `wanted` at `offset` of a structure: itself, its first member, or one within."""
    for _ in range(_DEPTH):
        type = btf.type(btf.strip(type_id))
        if not isinstance(type, Struct):
            return False
        if type.name == wanted and not offset:
            return True
        inner = next(_members_at(btf, type, offset), None)
        if inner is None:
            return False
        type_id, offset = inner.type_id, offset - inner.bit_offset // 8
    return False


def _members_at(btf: Btf, type: Struct, offset: int, bits: bool = False) -> Iterator[Member]:
    """The members that cover `offset`: several in a union; bit fields only if `bits`."""
    for member in type.members:
        start = member.bit_offset // 8
        if start > offset:
            continue
        if member.bit_size:
            if bits and 8 * offset < member.bit_offset + member.bit_size:
                yield member
            continue
        size = size_of(btf, member.type_id)
        if offset < start + size or (not size and member is type.members[-1]):
            yield member
