"""Addresses of kernel variables and functions that a program names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ir.btf import Btf
from ir.btf_types import BtfKind, DataSection, Function, SectionEntry, Struct, Variable
from ir.object import Reference
from ir.verify.kernel_objects import object_area
from ir.verify.refusal import Refused
from ir.verify.scalar import between
from ir.verify.subject import Subject
from ir.verify.values import ANY, ZERO, AreaKind, Known, Trust, start_of

_ADDRESS: Final = between(64, 1, (1 << 64) - 1)
_PERCPU_SECTION: Final = ".data..percpu"


def kernel_symbol(subject: Subject, reference: Reference) -> Known:
    """What the wide load of a kernel symbol gives. Raises Refused when the kernel has no such symbol.

    A symbol without a type is a number; a variable is its memory, or what helpers for per-CPU variables take.
    """
    declared = subject.btf.type(reference.btf_id) if subject.btf is not None and reference.btf_id else None
    kernel = subject.kernel
    is_untyped = isinstance(declared, Variable) and not _is_typed(subject, declared)
    if kernel is None or declared is None or is_untyped:
        return ANY if reference.is_weak else _ADDRESS
    kind = BtfKind.FUNC if isinstance(declared, Function) else BtfKind.VAR
    name = reference.name.split("___")[0]
    found = next(iter(kernel.find(name, kind)), 0)
    if not found:
        if reference.is_weak:
            return ZERO
        raise Refused("unknown-symbol", f"the kernel has no symbol '{name}'", None, "declare it __weak")
    variable = kernel.type(found)
    if not isinstance(variable, Variable):
        return _ADDRESS
    is_percpu = any(
        entry.type_id == found
        for id in kernel.find(_PERCPU_SECTION, BtfKind.DATASEC)
        for entry in _entries(kernel, id)
    )
    if is_percpu:
        area = subject.area(("ksym", name), AreaKind.PERCPU, name, writable=False)
        area.type_id = kernel.strip(variable.type_id)
        return start_of(area)
    if isinstance(kernel.type(kernel.strip(variable.type_id)), Struct):
        return start_of(object_area(subject, ("ksym", name), kernel.strip(variable.type_id), Trust.PLAIN))
    size = kernel.size_of(variable.type_id)
    return start_of(subject.area(("ksym", name), AreaKind.MEMORY, name, size, writable=False))


def _is_typed(subject: Subject, variable: Variable) -> bool:
    return subject.btf is not None and subject.btf.strip(variable.type_id) != 0


def _entries(kernel: Btf, id: int) -> Sequence[SectionEntry]:
    section = kernel.type(id)
    return section.entries if isinstance(section, DataSection) else ()
