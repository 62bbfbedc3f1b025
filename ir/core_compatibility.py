"""When two types count as the same to CO-RE: loosely ("exists", "size", "id") and strictly ("matches").

Loosely: same kind after qualifiers and typedefs, so any struct of the name will do; pointers and arrays by
what they hold, functions by their parameters. Strictly: every local member and enumerator is in the target
too, with a matching type; behind a pointer only the names of structs count. See bpf_core_types_are_compat
and bpf_core_types_match in libbpf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from ir.btf import MAX_DEPTH, Btf
from ir.btf_names import essential_name
from ir.btf_types import Array, Enum, Forward, Int, Pointer, Prototype, Struct, Type, Void
from ir.core_access import are_kinds_compatible, refuse


@final
class Comparison:
    """Compares types of `local` with types of `target`, and remembers the answers."""

    def __init__(self, local: Btf, target: Btf) -> None:
        self.local = local
        self.target = target
        self._answers: dict[tuple[bool, int, int, bool], bool] = {}

    def are_compatible(self, local_id: int, target_id: int) -> bool:
        """Whether the types are loosely the same; the caller compared their names."""
        if not are_kinds_compatible(self.local.type(local_id), self.target.type(target_id)):
            return False
        return self._are_compatible(local_id, target_id, MAX_DEPTH)

    def match(self, local_id: int, target_id: int) -> bool:
        """Whether the local type is strictly in the target type; the caller compared their names."""
        return self._match(local_id, target_id, False, MAX_DEPTH)

    def _are_compatible(self, local_id: int, target_id: int, depth: int) -> bool:
        pair = self._next(local_id, target_id, depth)
        return self._remembered((False, *pair, False), depth, self._compare_loosely)

    def _match(self, local_id: int, target_id: int, behind_pointer: bool, depth: int) -> bool:
        pair = self._next(local_id, target_id, depth)
        return self._remembered((True, *pair, behind_pointer), depth, self._compare_strictly)

    def _next(self, local_id: int, target_id: int, depth: int) -> tuple[int, int]:
        if depth <= 0:
            raise refuse(f"types {local_id} and {target_id} are nested too deeply to compare")
        return self.local.strip(local_id), self.target.strip(target_id)

    def _remembered(
        self,
        key: tuple[bool, int, int, bool],
        depth: int,
        compare: Callable[[int, int, bool, int], bool],
    ) -> bool:
        known = self._answers.get(key)
        if known is None:
            known = self._answers[key] = compare(*key[1:], depth)
        return known

    def _compare_loosely(self, local_id: int, target_id: int, _: bool, depth: int) -> bool:
        local, target = self.local.type(local_id), self.target.type(target_id)
        if not are_kinds_compatible(local, target):
            return False
        match local, target:
            case ((Void() | Struct() | Enum() | Forward()), _):
                return True
            case Int(bit_offset=one), Int(bit_offset=other):
                return not one and not other
            case Pointer(type_id=one), Pointer(type_id=other):
                return self._are_compatible(one, other, depth - 1)
            case Array(element_id=one), Array(element_id=other):
                return self._are_compatible(one, other, depth - 1)
            case Prototype() as one_prototype, Prototype() as other_prototype:
                pairs = _signature_pairs(one_prototype, other_prototype)
                return pairs is not None and all(self._are_compatible(*pair, depth - 1) for pair in pairs)
        return False

    def _compare_strictly(self, local_id: int, target_id: int, behind_pointer: bool, depth: int) -> bool:
        local, target = self.local.type(local_id), self.target.type(target_id)
        if not _are_names_equal(self.local.name(local_id), self.target.name(target_id)):
            return False
        match local, target:
            case Void(), Void():
                return True
            case ((Struct() | Forward()), (Struct() | Forward())) if behind_pointer:
                return _is_union(local) == _is_union(target)
            case Forward(is_union=one), Forward(is_union=other):
                return one == other
            case Struct(), Struct():
                return local.is_union == target.is_union and self._match_members(local, target, depth)
            case Enum(), Enum():
                names = {essential_name(value.name) for value in target.values}
                return (
                    local.size == target.size
                    and len(local.values) <= len(target.values)
                    and all(essential_name(value.name) in names for value in local.values)
                )
            case Int(), Int():
                return (local.size, local.is_signed) == (target.size, target.is_signed)
            case Pointer(type_id=one_id), Pointer(type_id=other_id):
                return self._match(one_id, other_id, True, depth - 1)
            case Array(element_id=one_id, count=one_count), Array(element_id=other_id, count=other_count):
                return one_count == other_count and self._match(one_id, other_id, behind_pointer, depth - 1)
            case Prototype(), Prototype():
                pairs = _signature_pairs(local, target)
                return pairs is not None and all(
                    self._match(*pair, behind_pointer, depth - 1) for pair in pairs
                )
        return False

    def _match_members(self, local: Struct, target: Struct, depth: int) -> bool:
        """Whether each local member has a matching one of its name in the target."""
        by_name: dict[str, list[int]] = {}
        for member in target.members:
            by_name.setdefault(essential_name(member.name), []).append(member.type_id)
        if len(local.members) > len(target.members):
            return False
        return all(
            any(
                self._match(member.type_id, id, False, depth - 1)
                for id in by_name.get(essential_name(member.name), ())
            )
            for member in local.members
        )


def _signature_pairs(local: Prototype, target: Prototype) -> list[tuple[int, int]] | None:
    """The types to compare of two functions, None when they do not take equally many parameters."""
    one = [parameter.type_id for parameter in local.parameters] + [0] * local.is_variadic
    other = [parameter.type_id for parameter in target.parameters] + [0] * target.is_variadic
    if len(one) != len(other):
        return None
    return [*zip(one, other, strict=True), (local.returns, target.returns)]


def _are_names_equal(local: str, target: str) -> bool:
    return essential_name(local) == essential_name(target)


def _is_union(type: Type) -> bool:
    return isinstance(type, Struct | Forward) and type.is_union
