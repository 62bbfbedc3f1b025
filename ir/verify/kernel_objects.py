"""Pointers to kernel objects: what may be read through them, by the kernel's BTF, and what is found there."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from ir.btf import Btf
from ir.btf_types import Array, BtfKind, Enum, Function, Int, Member, Prototype, Struct, TypeTag
from ir.btf_types import Pointer as PointerType
from ir.core import Value
from ir.isa import Row
from ir.kinds import AttachType, ProgramType
from ir.verify.fields import SpecialField
from ir.verify.refusal import Refused
from ir.verify.scalar import between, between_signed
from ir.verify.state import State
from ir.verify.subject import Subject
from ir.verify.values import ANY, Area, AreaKind, Known, Pointer, Trust, start_of

_UNSIGNED: Final = {size: between(64, 0, (1 << 8 * size) - 1) for size in (1, 2, 4)} | {8: ANY}
_SIGNED: Final = {
    size: between_signed(64, -1 << (8 * size - 1), (1 << (8 * size - 1)) - 1) for size in (1, 2, 4)
} | {8: ANY}
_DEPTH: Final = 16
_WORD: Final = 8
_BUFFER_SIZE: Final = 1 << 29


def check_object(
    subject: Subject, pointer: Pointer, offset: int, size: int, writes: bool, what: str, base: Value
) -> None:
    """Refuse an access outside of the object's type, at an offset that varies, or a store."""
    area = pointer.area
    if area.kind is AreaKind.CONTEXT:
        _check_arguments(subject, pointer, offset, size, writes, what, base)
        return
    if writes:
        raise Refused("read-only", f"{what} into a kernel object", base)
    low = pointer.span.smin + offset
    btf, type_id = _type_of(subject, pointer)
    if btf is None:
        return
    room = _size(btf, type_id)
    high = pointer.span.smax + offset + size
    if low < 0 or (high > room and not (_ends_open(btf, type_id) and pointer.span.is_const)):
        said = (
            f"{what} at byte {low if low < 0 else high - 1} of struct {btf.name(type_id)}, which has {room}"
        )
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
        trust = Trust.RCU if field.kind == "kptr" and state.held.rcu else Trust.UNTRUSTED
        return start_of(object_area(subject, inst, field.type_id, trust), is_nullable=True)
    if pointer.area.kind is AreaKind.CONTEXT:
        return _argument(subject, offset, row.size, inst, plain)
    btf, type_id = _type_of(subject, pointer)
    if btf is None:
        return plain
    exact = row.size == _WORD and pointer.span.is_const
    found = _pointee(btf, type_id, pointer.span.smin + offset) if exact else None
    if found is None:
        return plain
    trust = Trust.UNTRUSTED if pointer.area.trust is Trust.UNTRUSTED else Trust.PLAIN
    return start_of(object_area(subject, inst, found, trust))


def object_area(subject: Subject, key: Hashable, type_id: int, trust: Trust) -> Area:
    """The area of a kernel object of a type."""
    name = subject.kernel.name(type_id) if subject.kernel is not None else ""
    area = subject.area(("object", key, type_id, trust), AreaKind.BTF, name, writable=False)
    area.type_id, area.trust = type_id, trust
    return area


def find_struct(subject: Subject, name: str) -> int:
    """The kernel's structure of that name, 0 when there is none."""
    if subject.kernel is None:
        return 0
    return next(iter(subject.kernel.find(name, BtfKind.STRUCT)), 0)


def _type_of(subject: Subject, pointer: Pointer) -> tuple[Btf | None, int]:
    type_id = pointer.area.type_id
    if pointer.area.kind is AreaKind.MAP:
        type_id = find_struct(subject, "bpf_map")
    return (subject.kernel, type_id) if type_id else (None, 0)


def _size(btf: Btf, type_id: int) -> int:
    type = btf.type(btf.strip(type_id))
    return type.size if isinstance(type, Struct | Int | Enum) else btf.size_of(type_id)


def _ends_open(btf: Btf, type_id: int) -> bool:
    """Whether the structure ends in an array of no fixed length."""
    type = btf.type(btf.strip(type_id))
    if not isinstance(type, Struct) or not type.members:
        return False
    last = btf.type(btf.strip(type.members[-1].type_id))
    return isinstance(last, Array) and last.count == 0


def _pointee(btf: Btf, type_id: int, offset: int) -> int | None:
    """The structure that a pointer member at `offset` points to, None when there is no such member."""
    for _ in range(_DEPTH):
        type = btf.type(btf.strip(type_id))
        if isinstance(type, Struct):
            inner = _member_at(btf, type, offset)
            if inner is None:
                return None
            type_id, offset = inner.type_id, offset - inner.bit_offset // 8
        elif isinstance(type, Array):
            size = btf.size_of(type.element_id)
            type_id, offset = type.element_id, offset % size if size else offset
        elif isinstance(type, PointerType):
            return _pointed_struct(btf, type) if offset == 0 else None
        else:
            return None
    return None


def _pointed_struct(btf: Btf, type: PointerType) -> int | None:
    tag = btf.type(type.type_id)
    if isinstance(tag, TypeTag) and tag.value in ("user", "percpu"):
        return None
    inner = btf.strip(type.type_id)
    return inner if isinstance(btf.type(inner), Struct) else None


def _member_at(btf: Btf, type: Struct, offset: int) -> Member | None:
    """The member that covers `offset`; of a union's, one that leads to a pointer when there is one."""
    covering = []
    for member in type.members:
        start = member.bit_offset // 8
        if member.bit_size or start > offset:
            continue
        inner = btf.type(btf.strip(member.type_id))
        size = inner.size if isinstance(inner, Struct) else btf.size_of(member.type_id)
        if offset < start + size:
            covering.append(member)
    if len(covering) > 1:
        for member in covering:
            if _pointee(btf, member.type_id, offset - member.bit_offset // 8) is not None:
                return member
    return covering[0] if covering else None


def _check_arguments(
    subject: Subject, pointer: Pointer, offset: int, size: int, writes: bool, what: str, base: Value
) -> None:
    """A context that is the arguments of a kernel function: eight bytes each."""
    if writes:
        raise Refused("context-access", f"{what} into the context of {subject.type.name} programs", base)
    arguments = _arguments(subject)
    if arguments is None:
        said = f"the context of {subject.type.name} programs is known only with the kernel's BTF"
        raise Refused("no-kernel-btf", said, base, "give the BTF of the kernel, or of the target program")
    number = offset // _WORD
    if offset % _WORD or number >= len(arguments):
        said = f"{what} at offset {offset} of a context of {len(arguments)} arguments"
        raise Refused("context-access", said, base)


def _argument(subject: Subject, offset: int, size: int, inst: Value, plain: Known) -> Known:
    arguments = _arguments(subject)
    if arguments is None or size != _WORD or offset % _WORD:
        return plain
    type_id = arguments[offset // _WORD]
    btf = subject.kernel
    assert btf is not None
    type = btf.type(btf.strip(type_id)) if type_id else None
    if not isinstance(type, PointerType):
        return plain
    if subject.attach_type is AttachType.TRACE_ITER and not btf.strip(type.type_id):
        # A key, read only, or a value of the map gone through.
        area = subject.area(
            ("buffer", offset), AreaKind.BUFFER, "", _BUFFER_SIZE, writable=offset >= 3 * _WORD
        )
        return start_of(area, is_nullable=True)
    found = _pointed_struct(btf, type)
    if found is None:
        return plain
    is_trusted = subject.attach_type in (AttachType.TRACE_RAW_TP, AttachType.TRACE_ITER) or (
        subject.type in (ProgramType.LSM, ProgramType.STRUCT_OPS, ProgramType.NETFILTER)
    )
    trust = Trust.TRUSTED if is_trusted else Trust.PLAIN
    is_nullable = subject.attach_type is AttachType.TRACE_ITER and offset > 0
    return start_of(object_area(subject, f"argument {offset}", found, trust), is_nullable)


def _arguments(subject: Subject) -> list[int] | None:
    """The types of the arguments that the context holds, None when they are not known."""
    btf = subject.kernel
    if btf is None:
        return None
    if subject.type is ProgramType.NETFILTER:
        return [_pointer_to(btf, name) for name in ("nf_hook_state", "sk_buff")]
    prototype = _target(subject, btf)
    if prototype is None:
        return None
    types = [parameter.type_id for parameter in prototype.parameters]
    if subject.attach_type in (AttachType.TRACE_FEXIT, AttachType.MODIFY_RETURN):
        types.append(prototype.returns)
    return types[1:] if subject.attach_type is AttachType.TRACE_RAW_TP else types


def _pointer_to(btf: Btf, name: str) -> int:
    struct = next(iter(btf.find(name, BtfKind.STRUCT)), 0)
    for id in btf.of_kind(BtfKind.PTR):
        type = btf.type(id)
        if isinstance(type, PointerType) and type.type_id == struct:
            return id
    return 0


def _target(subject: Subject, btf: Btf) -> Prototype | None:
    """The prototype of what the program is attached to."""
    name = subject.program.attach_target
    attach = subject.attach_type
    if attach is AttachType.TRACE_RAW_TP:
        for id in btf.find("btf_trace_" + name, BtfKind.TYPEDEF):
            pointer = btf.type(btf.strip(id))
            if isinstance(pointer, PointerType):
                found = btf.type(btf.strip(pointer.type_id))
                return found if isinstance(found, Prototype) else None
        return None
    prefix = {
        AttachType.LSM_MAC: "bpf_lsm_",
        AttachType.LSM_CGROUP: "bpf_lsm_",
        AttachType.TRACE_ITER: "bpf_iter_",
    }
    for id in btf.find(prefix.get(attach, "") + name if attach is not None else name, BtfKind.FUNC):
        function = btf.type(id)
        if isinstance(function, Function):
            found = btf.type(function.type_id)
            return found if isinstance(found, Prototype) else None
    return None
