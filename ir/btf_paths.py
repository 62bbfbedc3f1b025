"""What lies at an offset of a value, as C names it: byte 12 of `conf` is `conf.actions[2]`."""

from __future__ import annotations

from ir.btf import MAX_DEPTH, Btf
from ir.btf_types import Array, Struct


def path_at(btf: Btf, type_id: int, offset: int, size: int) -> str:
    """The members and elements that lead to `size` bytes at byte `offset`; '' for the whole, or what has no name."""
    path = ""
    for _ in range(MAX_DEPTH):
        type = btf.type(btf.strip(type_id))
        if isinstance(type, Array):
            element = btf.size_of(type.element_id)
            if not element or size > element:
                return path
            path += f"[{offset // element}]"
            type_id, offset = type.element_id, offset % element
        elif isinstance(type, Struct):
            inside = [
                member
                for member in type.members
                if not member.bit_size
                and member.bit_offset // 8 <= offset
                and offset + size <= member.bit_offset // 8 + btf.size_of(member.type_id)
            ]
            if not inside:
                return path
            path += f".{inside[0].name}" if inside[0].name else ""
            type_id, offset = inside[0].type_id, offset - inside[0].bit_offset // 8
        else:
            break
    return path
