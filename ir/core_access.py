"""What a CO-RE relocation points at: a path into a type, read with the local types, looked for in the target.

    access "0:1:3" of struct s    [0]  the array element 0 of "s s[]", as a pointer may be indexed
                                  .b   member 1; an anonymous one adds its offset and no name
                                  [3]  element 3 of an array, or member 3

A path is matched by names: every named member of the local path has to be in the target type (through its
anonymous members), with a compatible type. Follows libbpf's relo_core.c, which is what the kernel does too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from errno import EINVAL
from typing import final

from ir.btf import Btf
from ir.btf_ext import CoreKind, CoreRelocation
from ir.btf_names import essential_name
from ir.btf_types import Array, Enum, Float, Forward, Int, Member, Pointer, Struct, Type
from ir.diagnostics import Diagnostic, Location, RejectedError

MAX_STEPS = 64
"""Members and elements in one path, anonymous ones counted (BPF_CORE_SPEC_MAX_LEN)."""

FIELD_KINDS = frozenset(
    {
        CoreKind.FIELD_BYTE_OFFSET,
        CoreKind.FIELD_BYTE_SIZE,
        CoreKind.FIELD_EXISTS,
        CoreKind.FIELD_SIGNED,
        CoreKind.FIELD_LSHIFT_U64,
        CoreKind.FIELD_RSHIFT_U64,
    }
)
ENUMERATOR_KINDS = frozenset({CoreKind.ENUMVAL_EXISTS, CoreKind.ENUMVAL_VALUE})


@final
@dataclass(frozen=True, slots=True)
class Step:
    """A step of a path: member or enumerator `name` of type `type_id`, or an element of that type if ''."""

    type_id: int
    index: int
    name: str = ""


@final
@dataclass(frozen=True, slots=True)
class Path:
    """A way into type `root_id` of `btf` that ends at `bit_offset`; no steps when the whole type is meant."""

    btf: Btf
    root_id: int
    steps: tuple[Step, ...] = ()
    bit_offset: int = 0
    length: int = 0


def refuse(message: str, code: str = "core-relocation") -> RejectedError:
    """The error of a relocation that makes no sense; whoever knows the instruction puts it in."""
    return RejectedError([Diagnostic(code, message, Location(), errno=EINVAL)])


def parse_path(btf: Btf, relocation: CoreRelocation) -> Path:
    """The path that `relocation` means in its own types. Raises RejectedError when they do not have it."""
    numbers = _parse_access(relocation.access)
    if relocation.kind not in FIELD_KINDS | ENUMERATOR_KINDS:
        if numbers != [0]:
            raise refuse(f"access '{relocation.access}' of a whole type, wanted '0'")
        return Path(btf, relocation.type_id)
    root_id = btf.strip(relocation.type_id)
    if relocation.kind in ENUMERATOR_KINDS:
        enum = btf.type(root_id)
        if not isinstance(enum, Enum) or len(numbers) != 1 or numbers[0] >= len(enum.values):
            raise refuse(f"access '{relocation.access}' is no enumerator of type {root_id}")
        return Path(btf, relocation.type_id, (Step(root_id, numbers[0], enum.values[numbers[0]].name),), 0, 1)
    steps = [Step(root_id, numbers[0])]
    bit_offset = 8 * numbers[0] * btf.size_of(root_id)
    id = root_id
    for number in numbers[1:]:
        id = btf.strip(id)
        match btf.type(id):
            case Struct(members=members) if number < len(members):
                member = members[number]
                bit_offset += member.bit_offset
                if member.name:
                    steps.append(Step(id, number, member.name))
                id = member.type_id
            case Array() as array if number < array.count or _is_flexible(btf, steps[-1], array):
                id = btf.strip(array.element_id)
                steps.append(Step(id, number))
                bit_offset += 8 * number * btf.size_of(id)
            case _:
                raise refuse(
                    f"access '{relocation.access}' does not fit type {root_id} '{btf.name(root_id)}'"
                )
    return Path(btf, relocation.type_id, tuple(steps), bit_offset, len(numbers))


def match_field(local: Path, target: Btf, root_id: int) -> Path | None:
    """The same fields in type `root_id` of `target`, None when it does not have them."""
    id, bit_offset, length = root_id, 0, 0
    steps: list[Step] = []
    for number, step in enumerate(local.steps):
        id = target.strip(id)
        if step.name:
            found = _find_member(local.btf, step, target, id, length)
            if found is None:
                return None
            matched, member, offset, deep = found
            steps.append(matched)
            bit_offset += offset
            length += deep
            id = member.type_id
            continue
        if number:
            array = target.type(id)
            if not isinstance(array, Array):
                return None
            if step.index >= array.count and not _is_flexible(target, steps[-1], array):
                return None
            id = target.strip(array.element_id)
        length += 1
        if length > MAX_STEPS:
            raise refuse("types are nested too deeply")
        steps.append(Step(id, step.index))
        bit_offset += 8 * step.index * target.size_of(id)
    return Path(target, root_id, tuple(steps), bit_offset, length)


def match_enumerator(local: Path, target: Btf, root_id: int) -> Path | None:
    """The enumerator of the same name (without flavour) in type `root_id` of `target`."""
    id = target.strip(root_id)
    enum = target.type(id)
    if not isinstance(enum, Enum):
        return None
    wanted = essential_name(local.steps[0].name)
    for index, value in enumerate(enum.values):
        if essential_name(value.name) == wanted:
            return Path(target, root_id, (Step(id, index, value.name),), 0, 1)
    return None


def are_kinds_compatible(local: Type, target: Type) -> bool:
    """Whether two types are of one kind; struct and union are not, both kinds of enum are."""
    if isinstance(local, Struct) and isinstance(target, Struct):
        return local.is_union == target.is_union
    return type(local) is type(target)


def are_fields_compatible(local: Btf, local_id: int, target: Btf, target_id: int) -> bool:
    """Whether a field of one type can be accessed as one of the other (bpf_core_fields_are_compat)."""
    while True:
        local_type, target_type = local.type(local.strip(local_id)), target.type(target.strip(target_id))
        match local_type, target_type:
            case Struct(), Struct():
                return True
            case (Pointer(), Pointer()) | (Float(), Float()):
                return True
            case (Enum(name=one), Enum(name=other)) | (Forward(name=one), Forward(name=other)):
                one, other = essential_name(one), essential_name(other)
                return not one or not other or one == other
            case Int(bit_offset=one_offset), Int(bit_offset=other_offset):
                return not one_offset and not other_offset
            case Array(element_id=local_id), Array(element_id=target_id):
                continue
            case _:
                return False


def _find_member(
    local: Btf, step: Step, target: Btf, target_id: int, length: int
) -> tuple[Step, Member, int, int] | None:
    """The member `step.name` of a struct or of its anonymous members: step, member, bit offset and depth."""
    struct = local.type(step.type_id)
    assert isinstance(struct, Struct)
    wanted = struct.members[step.index]
    pending = [(target_id, 0, 1)]
    seen: set[int] = set()
    while pending:
        id, offset, depth = pending.pop()
        id = target.strip(id)
        candidate = target.type(id)
        if not isinstance(candidate, Struct) or id in seen:
            continue
        seen.add(id)
        if length + depth > MAX_STEPS:
            raise refuse("types are nested too deeply")
        inside: list[tuple[int, int, int]] = []
        for index, member in enumerate(candidate.members):
            place = offset + member.bit_offset
            if not member.name:
                inside.append((member.type_id, place, depth + 1))
            elif member.name == wanted.name:
                if are_fields_compatible(local, wanted.type_id, target, member.type_id):
                    return Step(id, index, member.name), member, place, depth
                break
        pending += reversed(inside)
    return None


def _parse_access(text: str) -> list[int]:
    if not re.fullmatch(r"\d{1,9}(:\d{1,9})*", text, re.ASCII):
        raise refuse(f"access '{text[:80]}' is not a list of numbers")
    numbers = [int(number) for number in text.split(":")]
    if len(numbers) > MAX_STEPS:
        raise refuse(f"access of {len(numbers)} steps, at most {MAX_STEPS}")
    return numbers


def _is_flexible(btf: Btf, before: Step, array: Array) -> bool:
    """Whether `array` is an array of unknown length at the end of the struct of the step before it."""
    if not before.name or array.count:
        return False
    struct = btf.type(before.type_id)
    return isinstance(struct, Struct) and before.index == len(struct.members) - 1
