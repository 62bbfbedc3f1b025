"""Fitting programs to the structures that they find behind their context (ir/hook_objects.py), by CO-RE."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Final

from ir.btf import Btf, read_btf
from ir.btf_encode import encode_btf
from ir.btf_names import essential_name
from ir.btf_types import Int, Member, Pointer, Struct, Type
from ir.core_relocation import relocate
from ir.hook_objects import OBJECTS
from ir.object import Program

_INT: Final = 4


def fit_to_objects(program: Program, local: Btf | None) -> Program:
    """`program` with its accesses to members of these structures at the places that they have here.

    Other relocations are as they were. Raises RejectedError for malformed ones.
    """
    if local is None or not program.core:
        return program
    mine = {
        slot: relocation
        for slot, relocation in program.core.items()
        if essential_name(local.name(relocation.type_id)) in OBJECTS
    }
    fitted = relocate(replace(program, core=mine), local, _types())
    others = {slot: relocation for slot, relocation in program.core.items() if slot not in mine}
    return replace(fitted, core=others, poisoned={**program.poisoned, **fitted.poisoned})


@cache
def _types() -> Btf:
    """The structures as BTF: int, void *, then for each a struct and a pointer to it."""
    ids = {name: 3 + 2 * number for number, name in enumerate(OBJECTS)}
    types: list[Type] = [Int("int", _INT, 8 * _INT, is_signed=True), Pointer(0)]
    for name, object_ in OBJECTS.items():
        members = []
        for member, (offset, size) in object_.members.items():
            pointed = object_.pointers.get(offset)
            type_id = 1 if size == _INT else 2 if pointed is None else ids[pointed] + 1
            members.append(Member(member, type_id, 8 * offset))
        types += [Struct(name, False, object_.size, tuple(members)), Pointer(ids[name])]
    return read_btf(encode_btf(types))
