"""Pointers to kernel objects: what may be read through them, by the kernel's BTF, and what is found there."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from ir.btf import Btf
from ir.btf_types import BtfKind, Struct
from ir.btf_types import Pointer as PointerType
from ir.core import Value
from ir.isa import Row
from ir.kinds import AttachType, ProgramType
from ir.verify.fields import SpecialField
from ir.verify.members import ends_open, find_pointer, fits, is_struct_at, pointed_struct, size_of
from ir.verify.owned import kept_object
from ir.verify.refusal import Refused
from ir.verify.scalar import between, between_signed
from ir.verify.state import State
from ir.verify.subject import Subject
from ir.verify.targets import results_of
from ir.verify.trusted_members import trust_of
from ir.verify.values import ANY, ZERO, Area, AreaKind, Known, Pointer, Trust, start_of

_UNSIGNED: Final = {size: between(64, 0, (1 << 8 * size) - 1) for size in (1, 2, 4)} | {8: ANY}
_SIGNED: Final = {
    size: between_signed(64, -1 << (8 * size - 1), (1 << (8 * size - 1)) - 1) for size in (1, 2, 4)
} | {8: ANY}
_WORD: Final = 8
# Kernel objects that are freed only after RCU sections (kernel/bpf/verifier.c, rcu_protected_types).
_RCU_FREED: Final = frozenset(("cgroup", "bpf_cpumask", "task_struct", "bpf_crypto_ctx"))
_BUFFER_SIZE: Final = 1 << 29


def check_object(
    subject: Subject, pointer: Pointer, offset: int, size: int, writes: bool, what: str, base: Value
) -> None:
    """Refuse an access outside of the object's type, at an offset that varies, or a store."""
    area = pointer.area
    if area.kind is AreaKind.CONTEXT:
        _check_arguments(subject, pointer, offset, size, writes, what, base)
        return
    low = pointer.span.smin + offset
    if writes and not _may_write(subject, pointer, low, size):
        raise Refused("read-only", f"{what} into the {area}", base)
    btf, type_id = _type_of(subject, pointer)
    if btf is None:
        return
    if not pointer.span.is_const:
        said = f"{what} of struct {btf.name(type_id)} at an offset that varies, {low}..{pointer.span.smax + offset}"
        raise Refused("kernel-object", said, base, "read the members at constant offsets")
    room = size_of(btf, type_id)
    high = pointer.span.smax + offset + size
    is_within = ends_open(btf, type_id) or area.trust is Trust.UNTRUSTED
    if low < 0 or (high > room and not is_within):
        said = (
            f"{what} at byte {low if low < 0 else high - 1} of struct {btf.name(type_id)}, which has {room}"
        )
        raise Refused("kernel-object", said, base)
    if high <= room and area.trust is not Trust.UNTRUSTED and not writes:
        _check_member(btf, type_id, low, size, what, base)


def _check_member(btf: Btf, type_id: int, low: int, size: int, what: str, base: Value) -> None:
    if isinstance(btf.type(btf.strip(type_id)), Struct) and not fits(btf, type_id, low, size):
        said = f"{what} at byte {low} of struct {btf.name(type_id)}, where no member has these bytes"
        raise Refused("kernel-object", said, base)


def load_object(
    subject: Subject,
    state: State,
    pointer: Pointer,
    row: Row,
    offset: int,
    inst: Value,
    field: SpecialField | None = None,
) -> Known:
    """What a checked load through a pointer to a kernel object gives."""
    plain = (_SIGNED if row.signed else _UNSIGNED)[row.size]
    if field is not None:
        return _load_field(subject, state, inst, field)
    if pointer.area.kind is AreaKind.CONTEXT:
        return _argument(subject, offset, row.size, inst, plain)
    btf, type_id = _type_of(subject, pointer)
    if btf is None:
        return plain
    exact = row.size == _WORD and pointer.span.is_const
    found = find_pointer(btf, type_id, pointer.span.smin + offset) if exact else None
    if found is None:
        return plain
    area = pointer.area
    if found.tag == "user":
        return start_of(subject.area(("user", inst), AreaKind.UNKNOWN, "memory of a process"))
    if found.tag == "percpu":
        variable = subject.area(("percpu", inst), AreaKind.PERCPU, btf.name(found.target), writable=False)
        variable.type_id = found.target
        return start_of(variable)
    trust, is_nullable = trust_of(found, area.trust, area.is_held, in_rcu(subject, state))
    return start_of(object_area(subject, inst, found.target, trust), is_nullable)


def _load_field(subject: Subject, state: State, inst: Value, field: SpecialField) -> Known:
    """The pointer that a field keeps, which somebody else may exchange at any time."""
    kind, type_id = field_target(subject, field)
    is_freed_later = kind is not AreaKind.BTF or _name_of(subject, type_id) in _RCU_FREED
    is_kept = field.kind in ("kptr", "percpu_kptr") and is_freed_later and in_rcu(subject, state)
    trust = Trust.RCU if is_kept else Trust.UNTRUSTED
    if kind is AreaKind.BTF:
        return start_of(object_area(subject, inst, type_id, trust), is_nullable=True)
    return start_of(kept_object(subject, inst, type_id, trust, kind), is_nullable=True)


def _name_of(subject: Subject, type_id: int) -> str:
    return subject.kernel.name(type_id) if subject.kernel is not None and type_id else ""


def in_rcu(subject: Subject, state: State) -> bool:
    """Whether objects that RCU protects stay alive here: in a section, under a lock, or where nothing may sleep."""
    held = state.held
    return not held.is_sleepable(subject.program) or held.rcu > 0 or held.locked is not None


def is_alive(subject: Subject, state: State, area: Area) -> bool:
    """Whether a kernel object surely is there for as long as it is used here."""
    return area.is_held or area.trust is Trust.TRUSTED or (area.trust is Trust.RCU and in_rcu(subject, state))


def _may_write(subject: Subject, pointer: Pointer, low: int, size: int) -> bool:
    """Whether a store goes to a member that programs of this type may write."""
    area = pointer.area
    if area.trust is Trust.UNTRUSTED or not pointer.span.is_const:
        return False
    return any(start <= low and low + size <= end for start, end in subject.writable_ranges(area.type_id))


def object_area(subject: Subject, key: Hashable, type_id: int, trust: Trust) -> Area:
    """The area of a kernel object of a type."""
    name = subject.kernel.name(type_id) if subject.kernel is not None else ""
    area = subject.area(("object", key, type_id, trust), AreaKind.BTF, name)
    area.writable = bool(subject.writable_ranges(type_id))
    area.type_id, area.trust = type_id, trust
    return area


def field_target(subject: Subject, field: SpecialField) -> tuple[AreaKind, int]:
    """What the pointer in a field points to: the kernel's structure of that name, else the program's own."""
    name = subject.btf.name(field.type_id) if subject.btf is not None else ""
    kernels = find_struct(subject, name.split("___")[0]) if name else 0
    if kernels or not name:
        return AreaKind.BTF, kernels
    is_percpu = field.kind == "percpu_kptr"
    return AreaKind.PERCPU_OBJECT if is_percpu else AreaKind.OBJECT, field.type_id


def keeps_pointer(subject: Subject, known: Known, field: SpecialField) -> bool:
    """Whether a field for untrusted pointers takes `known`: NULL, or a pointer to an object of the field's type."""
    if type(known) is not Pointer:
        return known == ZERO
    kind, type_id = field_target(subject, field)
    if known.area.kind is not kind or known.span.mask:
        return False
    if kind is not AreaKind.BTF or subject.kernel is None:
        return known.area.type_id == type_id and not known.span.value
    return is_struct(subject, known, subject.kernel.name(type_id))


def find_struct(subject: Subject, name: str) -> int:
    """The kernel's structure of that name, 0 when there is none."""
    if subject.kernel is None:
        return 0
    return next(iter(subject.kernel.find(name, BtfKind.STRUCT)), 0)


def is_struct(subject: Subject, pointer: Pointer, wanted: str) -> bool:
    """Whether a pointer points to a `wanted`, or to a structure that starts with one."""
    btf, area = subject.kernel, pointer.area
    if btf is None or not area.type_id or not pointer.span.is_const:
        return False
    return is_struct_at(btf, area.type_id, pointer.span.value, wanted)


def _type_of(subject: Subject, pointer: Pointer) -> tuple[Btf | None, int]:
    type_id = pointer.area.type_id
    if pointer.area.kind is AreaKind.MAP:
        type_id = find_struct(subject, "bpf_map")
    return (subject.kernel, type_id) if type_id else (None, 0)


def _check_arguments(
    subject: Subject, pointer: Pointer, offset: int, size: int, writes: bool, what: str, base: Value
) -> None:
    """A context that is the arguments of a kernel function: eight bytes each."""
    if writes:
        raise Refused("context-access", f"{what} into the context of {subject.type.name} programs", base)
    if subject.target is None:
        said = f"the context of {subject.type.name} programs is known only with the kernel's BTF"
        raise Refused("no-kernel-btf", said, base, "give the BTF of the kernel, or of the target program")
    count = len(subject.target.arguments)
    if offset % _WORD or offset // _WORD >= count:
        said = f"{what} at offset {offset} of a context of {count} arguments"
        raise Refused("context-access", said, base)
    btf, type_id = subject.kernel, subject.target.arguments[offset // _WORD]
    if (
        size != _WORD
        and btf is not None
        and type_id
        and isinstance(btf.type(btf.strip(type_id)), PointerType)
    ):
        raise Refused("context-access", f"{what} of an argument that is a pointer, at offset {offset}", base)


def _argument(subject: Subject, offset: int, size: int, inst: Value, plain: Known) -> Known:
    target, btf = subject.target, subject.kernel
    if target is None or btf is None or size != _WORD or offset % _WORD:
        return plain
    type_id = target.arguments[offset // _WORD]
    if subject.attach_type is AttachType.LSM_MAC and offset // _WORD == len(target.arguments) - 1:
        results = results_of(subject.program, target)
        if results is not None:
            return between_signed(64, *results)  # what the hooks before this one said
    type = btf.type(btf.strip(type_id)) if type_id else None
    if not isinstance(type, PointerType):
        return plain
    if subject.attach_type is AttachType.TRACE_ITER and not btf.strip(type.type_id):
        # A key, read only, or a value of the map gone through.
        area = subject.area(
            ("buffer", offset), AreaKind.BUFFER, "", _BUFFER_SIZE, writable=offset >= 3 * _WORD
        )
        return start_of(area, is_nullable=True)
    found = pointed_struct(btf, type)
    if found is None:
        return plain
    is_trusted = subject.attach_type in (AttachType.TRACE_RAW_TP, AttachType.TRACE_ITER) or (
        subject.type in (ProgramType.LSM, ProgramType.STRUCT_OPS, ProgramType.NETFILTER)
    )
    trust = Trust.TRUSTED if is_trusted else Trust.PLAIN
    is_nullable = offset // _WORD in target.nullable
    return start_of(object_area(subject, f"argument {offset}", found, trust), is_nullable)
