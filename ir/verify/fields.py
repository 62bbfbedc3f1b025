"""Fields of map values that belong to the kernel: locks, timers, kernel pointers, lists and trees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from ir.btf import Btf
from ir.btf_types import Array, DataSection, Pointer, Struct, TypeTag, Variable

_SIZES: Final = {
    "bpf_spin_lock": 4,
    "bpf_res_spin_lock": 4,
    "bpf_timer": 16,
    "bpf_wq": 16,
    "bpf_list_head": 16,
    "bpf_list_node": 24,
    "bpf_rb_root": 16,
    "bpf_rb_node": 32,
    "bpf_refcount": 4,
    "bpf_task_work": 8,
}
_TAGS: Final = frozenset(("kptr_untrusted", "kptr", "percpu_kptr", "uptr"))
_DEPTH: Final = 16
_MOST_FIELDS: Final = 64


@final
@dataclass(frozen=True, slots=True)
class SpecialField:
    """`size` bytes at `offset`.

    `kind` is the structure's name or the tag of a kernel pointer to `type_id`.
    """

    offset: int
    size: int
    kind: str
    type_id: int = 0

    @property
    def is_pointer(self) -> bool:
        """Whether it is a kernel pointer, which may be loaded and stored whole."""
        return self.kind in _TAGS


def find_special_fields(btf: Btf, type_id: int) -> tuple[SpecialField, ...]:
    """The special fields of a type, in order."""
    if not type_id:
        return ()
    return tuple(sorted(_walk(btf, type_id, 0, 0), key=lambda field: field.offset))[:_MOST_FIELDS]


def _walk(btf: Btf, type_id: int, offset: int, depth: int) -> Iterator[SpecialField]:
    id = btf.strip(type_id)
    type = btf.type(id)
    if isinstance(type, Struct):
        if type.name in _SIZES:
            yield SpecialField(offset, _SIZES[type.name], type.name)
            return
        for member in type.members if depth < _DEPTH else ():
            if member.bit_offset % 8 == 0:
                yield from _walk(btf, member.type_id, offset + member.bit_offset // 8, depth + 1)
    elif isinstance(type, Array) and depth < _DEPTH:
        size = btf.size_of(type.element_id)
        inner = list(_walk(btf, type.element_id, 0, depth + 1)) if size else []
        for number in range(min(type.count, _MOST_FIELDS) if inner else 0):
            for field in inner:
                at = offset + number * size + field.offset
                yield SpecialField(at, field.size, field.kind, field.type_id)
    elif isinstance(type, Pointer):
        tagged = btf.type(type.type_id)
        if isinstance(tagged, TypeTag) and tagged.value in _TAGS:
            yield SpecialField(offset, 8, tagged.value, btf.strip(tagged.type_id))
    elif isinstance(type, DataSection):
        for entry in type.entries:
            variable = btf.type(entry.type_id)
            if isinstance(variable, Variable):
                yield from _walk(btf, variable.type_id, offset + entry.offset, depth + 1)
