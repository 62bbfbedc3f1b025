"""Checking BTF as a whole: everything that `read_btf` leaves until somebody follows it.

Each type must name types of kinds that may stand there, fit into its size, and not contain itself. Linear
in the number of types and members; meant for what a user hands in, not for the kernel's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from errno import EINVAL

from ir.btf import Btf
from ir.btf_types import (
    Array,
    DataSection,
    DeclTag,
    Enum,
    Float,
    Forward,
    Function,
    Int,
    Pointer,
    Prototype,
    Qualifier,
    Struct,
    Type,
    Typedef,
    TypeTag,
    Variable,
    Void,
)
from ir.diagnostics import Diagnostic, DiagnosticError

_DATA = (Int, Float, Pointer, Array, Struct, Enum, Forward, Typedef, Qualifier, TypeTag)
_ANY = (*_DATA, Prototype, Void)


def check_btf(btf: Btf) -> list[Diagnostic]:
    """What is wrong with the types of `btf`, [] when nothing is."""
    problems: list[Diagnostic] = []
    for id in btf.ids():
        try:
            problems += (_problem(btf, id, said) for said in _check(btf, btf.type(id)))
        except DiagnosticError as error:
            problems += (replace(found, message=f"type {id}: {found.message}") for found in error.diagnostics)
    if not problems:
        problems += (_problem(btf, id, "contains itself") for id in _find_loops(btf))
    return problems


def _problem(btf: Btf, id: int, said: str) -> Diagnostic:
    return Diagnostic("bad-btf-type", f"type {id} '{btf.name(id)}' {said}", btf.at, errno=EINVAL)


def _check(btf: Btf, of: Type) -> Iterator[str]:
    def must_be(id: int, *kinds: type[Type]) -> Iterator[str]:
        if not isinstance(btf.type(id), kinds):
            yield f"refers to type {id}, a {btf.kind(id).name.lower()}, which cannot stand there"

    match of:
        case Int():
            if of.size not in (1, 2, 4, 8, 16) or of.bit_offset + of.bits > 8 * of.size:
                yield f"has {of.bits} bits from bit {of.bit_offset} in {of.size} bytes"
        case Float():
            if of.size not in (2, 4, 8, 12, 16):
                yield f"is a float of {of.size} bytes"
        case Enum():
            if of.size not in (1, 2, 4, 8):
                yield f"is an enum of {of.size} bytes"
        case Pointer() | Typedef() | Qualifier() | TypeTag():
            yield from must_be(of.type_id, *_ANY)
        case Array():
            yield from must_be(of.element_id, *_DATA)
        case Struct():
            for member in of.members:
                yield from must_be(member.type_id, *_DATA)
                if member.bit_offset > 8 * of.size:
                    yield f"has member '{member.name}' at bit {member.bit_offset} of {of.size} bytes"
        case Prototype():
            for id in (*(parameter.type_id for parameter in of.parameters), of.returns):
                yield from must_be(id, *_ANY)
        case Function():
            yield from must_be(of.type_id, Prototype)
        case Variable():
            yield from must_be(of.type_id, *_ANY)
        case DataSection():
            for entry in of.entries:
                yield from must_be(entry.type_id, Variable, Function)
        case DeclTag():
            yield from must_be(of.type_id, Struct, Typedef, Variable, Function, Forward)


def _parts(of: Type) -> list[int]:
    """The types that a value of this one contains, or that it is another name of."""
    match of:
        case Typedef(type_id=id) | Qualifier(type_id=id) | TypeTag(type_id=id) | Array(element_id=id):
            return [id]
        case Struct(members=members):
            return list(dict.fromkeys(member.type_id for member in members))
    return []


def _find_loops(btf: Btf) -> list[int]:
    """The first type found in each loop of types that contain each other; depth first, not recursive."""
    done = set(range(btf.first_id))
    loops: list[int] = []
    for root in btf.ids():
        if root in done:
            continue
        path = {root}
        stack = [(root, iter(_parts(btf.type(root))))]
        while stack:
            id, rest = stack[-1]
            part = next((part for part in rest if part not in done), None)
            if part is None:
                done.add(id)
                path.discard(id)
                stack.pop()
            elif part in path:
                loops.append(part)
            else:
                path.add(part)
                stack.append((part, iter(_parts(btf.type(part)))))
    return loops
