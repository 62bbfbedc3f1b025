"""Fields of map values that belong to the kernel: locks, timers, kernel pointers, lists and trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from errno import E2BIG
from itertools import islice
from types import MappingProxyType
from typing import Final, final

from ir.btf import Btf
from ir.btf_types import Array, DataSection, Pointer, Struct, TypeTag, Variable
from ir.diagnostics import Diagnostic, UnreadableError

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
_ROOTS: Final = ("bpf_list_head", "bpf_rb_root")
_CONTAINS: Final = "contains:"
_TAGS: Final = frozenset(("kptr_untrusted", "kptr", "percpu_kptr", "uptr"))
MOST_NESTED: Final = 32
MOST_FIELDS: Final = 64


@final
@dataclass(frozen=True, slots=True)
class SpecialField:
    """`size` bytes at `offset`.

    `kind` is the structure's name or the tag of a kernel pointer to `type_id`. `contains`: the type and the node, as
    `type:member`, of what a list or tree is of, where the program's tags are asked for that.
    """

    offset: int
    size: int
    kind: str
    type_id: int = 0
    contains: str = ""

    @property
    def is_root(self) -> bool:
        """Whether it is the head of a list or the root of a tree."""
        return self.kind in _ROOTS

    @property
    def is_pointer(self) -> bool:
        """Whether it is a kernel pointer, which may be loaded and stored whole."""
        return self.kind in _TAGS


def find_special_fields(
    btf: Btf, type_id: int, tags: Mapping[tuple[int, int], Sequence[str]] = MappingProxyType({})
) -> tuple[SpecialField, ...]:
    """The special fields of a type, in order. `tags`: the declaration tags of types and their components.

    Raises UnreadableError when types nest more than MOST_NESTED deep, or there are more than MOST_FIELDS fields.
    """
    return tuple(sorted(_Finder(btf, tags).of(type_id, 0), key=lambda field: field.offset)) if type_id else ()


@final
class _Finder:
    """Looks at each type once, however many ways lead to it."""

    def __init__(self, btf: Btf, tags: Mapping[tuple[int, int], Sequence[str]]) -> None:
        self._btf, self._tags = btf, tags
        self._found: dict[int, tuple[SpecialField, ...]] = {}

    def of(self, type_id: int, depth: int) -> tuple[SpecialField, ...]:
        """The fields of a type, at their offsets in it."""
        id = self._btf.strip(type_id)
        found = self._found.get(id)
        if found is None:
            if depth == MOST_NESTED:
                raise self._refused(f"type {id} is nested more than {MOST_NESTED} deep")
            found = self._found[id] = tuple(islice(self._look(id, depth + 1), MOST_FIELDS + 1))
        if len(found) > MOST_FIELDS:
            raise self._refused(f"type {id} has more than {MOST_FIELDS} special fields")
        return found

    def _look(self, id: int, depth: int) -> Iterator[SpecialField]:
        btf = self._btf
        match btf.type(id):
            case Struct(name=name) if name in _SIZES:
                yield SpecialField(0, _SIZES[name], name)
            case Struct(members=members):
                for number, member in enumerate(members):
                    if member.bit_offset % 8 == 0:
                        inner = self._inside(member.type_id, member.bit_offset // 8, depth)
                        yield from self._tagged(inner, id, number)
            case Array(element_id=element, count=count):
                repeated = self.of(element, depth)
                size = btf.size_of(element) if repeated else 0
                for number in range(count if repeated else 0):
                    yield from _moved(repeated, number * size)
            case Pointer(type_id=target):
                tagged = btf.type(target)
                if isinstance(tagged, TypeTag) and tagged.value in _TAGS:
                    yield SpecialField(0, 8, tagged.value, btf.strip(tagged.type_id))
            case DataSection(entries=entries):
                for entry in entries:
                    variable = btf.type(entry.type_id)
                    if isinstance(variable, Variable):
                        inside = self._inside(variable.type_id, entry.offset, depth)
                        yield from self._tagged(inside, entry.type_id, -1)
            case _:
                pass

    def _inside(self, type_id: int, offset: int, depth: int) -> Iterator[SpecialField]:
        return _moved(self.of(type_id, depth), offset)

    def _tagged(self, fields: Iterator[SpecialField], id: int, component: int) -> Iterator[SpecialField]:
        """`fields`, roots with what the tag of their declaration says that they contain."""
        tags = [tag for tag in self._tags.get((id, component), ()) if tag.startswith(_CONTAINS)]
        for field in fields:
            is_named = field.is_root and not field.contains and tags
            yield replace(field, contains=tags[0].removeprefix(_CONTAINS)) if is_named else field

    def _refused(self, message: str) -> UnreadableError:
        return UnreadableError([Diagnostic("bad-btf-fields", message, self._btf.at, errno=E2BIG)])


def _moved(fields: tuple[SpecialField, ...], offset: int) -> Iterator[SpecialField]:
    return (replace(field, offset=offset + field.offset) for field in fields)
