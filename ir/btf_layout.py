"""How C would lay out the types of BTF: alignments, and whether a struct was packed."""

from __future__ import annotations

from errno import EINVAL
from typing import final

from ir.btf import MAX_DEPTH, Btf
from ir.btf_types import Array, Enum, Float, Int, Member, Pointer, Struct
from ir.diagnostics import Diagnostic, UnreadableError

POINTER_SIZE = 8


@final
class Layout:
    """Alignments of the types of `btf`, each worked out once."""

    def __init__(self, btf: Btf) -> None:
        self.btf = btf
        self._alignments: dict[int, int] = {}

    def alignment(self, id: int, depth: int = 0) -> int:
        """Bytes that a value of type `id` is aligned to; 1 for a packed struct. Raises UnreadableError."""
        id = self.btf.strip(id)
        known = self._alignments.get(id)
        if known is not None:
            return known
        if depth > MAX_DEPTH:
            said = f"type {id} is nested more than {MAX_DEPTH} deep"
            raise UnreadableError([Diagnostic("btf-loop", said, self.btf.at, errno=EINVAL)])
        match self.btf.type(id):
            case Int(size=size) | Enum(size=size) | Float(size=size):
                found = min(size, 16) if size in (1, 2, 4, 8, 16) else 1
            case Pointer():
                found = POINTER_SIZE
            case Array(element_id=element):
                found = self.alignment(element, depth + 1)
            case Struct() as struct:
                found = 1 if self.is_packed(struct, depth) else self._largest(struct, depth)
            case _:
                found = 1
        self._alignments[id] = found
        return found

    def is_packed(self, struct: Struct, depth: int = 0) -> bool:
        """Whether members lie where, or the struct ends where, their alignment would not let them."""
        largest = self._largest(struct, depth)
        if struct.size % largest:
            return True
        return any(
            not member.bit_size and member.bit_offset % (8 * self.alignment(member.type_id, depth + 1))
            for member in struct.members
        )

    def next_offset(self, member: Member, end: int, is_packed: bool) -> int:
        """The bit at which C would put `member` behind one that ends at bit `end`."""
        if member.bit_size:
            unit = 8 * self.btf.size_of(member.type_id)
            fits = is_packed or end // unit == (end + member.bit_size - 1) // unit
            return end if fits else -(-end // unit) * unit
        unit = 8 if is_packed else 8 * self.alignment(member.type_id)
        return -(-end // unit) * unit

    def bits_of(self, member: Member) -> int:
        """The bits that `member` takes."""
        return member.bit_size or 8 * self.btf.size_of(member.type_id)

    def _largest(self, struct: Struct, depth: int) -> int:
        return max((self.alignment(member.type_id, depth + 1) for member in struct.members), default=1)
