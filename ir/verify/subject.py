"""What is being verified: a module, the program it came from, its types, and the areas its pointers point into."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Final, final

from ir.btf import Btf
from ir.btf_types import BtfKind, DeclTag
from ir.core import Alu, Function, Module, Param
from ir.helper_sets import allowed_helpers
from ir.kinds import MapType, ProgramType
from ir.object import Map
from ir.verify.contexts import ContextRules, rules_of
from ir.verify.fields import SpecialField, find_special_fields
from ir.verify.scalar import Scalar
from ir.verify.targets import Target, find_target
from ir.verify.transfer import ScalarAlgebra
from ir.verify.values import ANY, Area, AreaKind, Known
from ir.verify.writable_members import writable_ranges

FRAME_SIZE: Final = 512
LOCKS: Final = ("bpf_spin_lock", "bpf_res_spin_lock")
_READ_ONLY: Final = 1 << 7  # BPF_F_RDONLY_PROG
_WRITE_ONLY: Final = 1 << 8  # BPF_F_WRONLY_PROG
_GPL: Final = frozenset(
    ("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL")
)

KernelTypes = Btf | Callable[[], Btf | None] | None
"""The types of a kernel, or what finds them when they are needed; None when they are not known."""


@final
class Subject:
    """The program and everything that is looked up about it. Areas are made once for a key."""

    def __init__(
        self,
        module: Module,
        license: str = "",
        btf: Btf | None = None,
        kernel: KernelTypes = None,
        unprivileged: bool = False,
    ) -> None:
        program = module.program
        self.module = module
        self.program = program
        self.maps: Mapping[str, Map] = module.maps
        self.type = program.type
        self.attach_type = program.attach_type
        self.is_gpl = license in _GPL
        self.btf = btf
        self._kernel = kernel
        self.unprivileged = unprivileged
        self.algebra = ScalarAlgebra(program.big_endian)
        self.context: ContextRules | None = rules_of(program.type, program.attach_type)
        self.helpers = allowed_helpers(program.type, program.attach_type, program.attach_target)
        self.stack_used: dict[str, int] = {}
        self.guards: dict[
            Alu, tuple[object, ...]
        ] = {}  # what each sum of an unprivileged program is guarded for
        self._lost: dict[int, Scalar] = {}
        self._areas: dict[Hashable, Area] = {}
        self._special: dict[str, tuple[SpecialField, ...]] = {}
        self._object_fields: dict[int, tuple[SpecialField, ...]] = {}
        self._functions: dict[Area, tuple[str, ...]] = {}
        self._symbols: dict[tuple[Area, int, int], Param] = {}
        self._writable: dict[int, tuple[tuple[int, int], ...]] = {}

    def lost(self, slot: int) -> Scalar:
        """What pointers are that the call at `slot` made invalid: numbers of which nothing is known, of its own."""
        found = self._lost.get(slot)
        if found is None:
            found = self._lost[slot] = Scalar(64, 0, ANY.mask, ANY.umin, ANY.umax, ANY.smin, ANY.smax, None)
        return found

    def loser(self, known: Known) -> int | None:
        """The slot of the call that `known` was `lost` by; None when it is something else."""
        return next((slot for slot, lost in self._lost.items() if lost is known), None)

    @cached_property
    def kernel(self) -> Btf | None:
        """The types of the kernel, None when they are not known."""
        return self._kernel() if callable(self._kernel) else self._kernel

    @cached_property
    def declaration_tags(self) -> Mapping[tuple[int, int], Sequence[str]]:
        """The declaration tags of the program's types, by type and component (-1: the whole)."""
        found: dict[tuple[int, int], list[str]] = {}
        for id in self.btf.of_kind(BtfKind.DECL_TAG) if self.btf is not None else ():
            tag = self.btf.type(id) if self.btf is not None else None
            if isinstance(tag, DeclTag):
                found.setdefault((tag.type_id, tag.component), []).append(tag.value)
        return found

    @cached_property
    def target(self) -> Target | None:
        """What the program is attached to, None when there is nothing such or it is not known."""
        if self.kernel is None:
            return None
        return find_target(self.program, self.maps, self.btf, self.kernel)

    @property
    def returns_nothing(self) -> bool:
        """Whether the program stands for a function without a result."""
        target = self.target if self.type in (ProgramType.STRUCT_OPS, ProgramType.LSM) else None
        return target is not None and not target.result

    def area(
        self, key: Hashable, kind: AreaKind, name: str = "", size: int = 0, writable: bool = True
    ) -> Area:
        """The area for `key`; the same one each time."""
        found = self._areas.get(key)
        if found is None:
            found = self._areas[key] = Area(kind, name, size, None, writable)
        return found

    def frame_of(self, function: Function) -> Area:
        """The stack frame of a function."""
        area = self.area(("frame", function.name), AreaKind.FRAME, function.name, FRAME_SIZE)
        area.is_single = True
        return area

    def function_area(self, names: Sequence[str]) -> Area:
        """One of these functions."""
        area = self.area(("function", *names), AreaKind.FUNCTION, " or ".join(names))
        self._functions[area] = tuple(names)
        return area

    def functions_in(self, area: Area) -> tuple[str, ...]:
        """The functions that a `function_area` was made of."""
        return self._functions[area]

    def note_stack(self, frame: Area, low: int) -> None:
        """Byte `low` of a function's frame, from its lowest, is used."""
        used = FRAME_SIZE - low
        if used > self.stack_used.get(frame.name, 0):
            self.stack_used[frame.name] = used

    def stack_symbol(self, frame: Area, place: int, size: int) -> Param:
        """What stands, in the state of a caller, for what a function stored in the caller's frame."""
        return self._symbols.setdefault((frame, place, size), Param(-1))

    def map_area(self, map_: Map) -> Area:
        """A map itself."""
        area = self.area(("map", map_.name, id(map_)), AreaKind.MAP, map_.name)
        area.map = map_
        return area

    def value_area(self, key: Hashable, map_: Map) -> Area:
        """A value of a map, found by whatever `key` is."""
        size = map_.value_size
        area = self.area(("value", key, id(map_)), AreaKind.MAP_VALUE, map_.name, size)
        area.map = map_
        area.writable = not (map_.flags & _READ_ONLY or map_.is_read_only)
        area.has_lock = any(field.kind in LOCKS for field in self.special_fields(map_))
        return area

    def global_area(self, map_: Map) -> Area:
        """The one value of a map of global data."""
        area = self.value_area("global", map_)
        area.is_single = True
        return area

    def may_load(self, map_: Map) -> bool:
        """Whether programs may read values of the map."""
        return not map_.flags & _WRITE_ONLY

    def special_fields(self, map_: Map) -> tuple[SpecialField, ...]:
        """The fields of the map's values that programs may not touch as bytes."""
        found = self._special.get(map_.name)
        if found is None:
            found = self._special[map_.name] = self._find_fields(map_.value_btf_id)
        return found

    def fields_of(self, area: Area) -> tuple[SpecialField, ...]:
        """The fields of a map's value or an allocated object that programs may not touch as bytes."""
        if area.map is not None:
            return self.special_fields(area.map)
        if area.kind is not AreaKind.OBJECT:
            return ()
        found = self._object_fields.get(area.type_id)
        if found is None:
            found = self._object_fields[area.type_id] = self._find_fields(area.type_id)
        return found

    def _find_fields(self, type_id: int) -> tuple[SpecialField, ...]:
        if self.btf is None:
            return ()
        found = _plain_fields(self.btf, type_id)
        if any(field.is_root for field in found):
            return find_special_fields(self.btf, type_id, self.declaration_tags)
        return found

    def writable_ranges(self, type_id: int) -> tuple[tuple[int, int], ...]:
        """The byte ranges of a kernel structure that the program may store into."""
        found = self._writable.get(type_id)
        if found is None:
            found = writable_ranges(self.type, self.kernel, type_id) if self.kernel is not None else ()
            self._writable[type_id] = found
        return found

    def is_frozen(self, map_: Map) -> bool:
        """Whether the map's content is known and never changes."""
        return map_.is_read_only and map_.initial is not None and map_.type is MapType.ARRAY


@lru_cache(maxsize=128)
def _plain_fields(btf: Btf, type_id: int) -> tuple[SpecialField, ...]:
    """The special fields of a type, which the programs of an object ask for again and again."""
    return find_special_fields(btf, type_id)
