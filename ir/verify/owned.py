"""Objects that a program allocates, and the lists and trees in maps and objects that own them.

    bpf_obj_new            an owning reference: has to be dropped, exchanged into a map, or added to a list or tree
    bpf_list_push, _add    takes it: what is left of it is a borrowed pointer
    bpf_list_pop, _remove  gives an owning reference back
    bpf_rbtree_first       a borrowed pointer to what the tree owns

Lists and trees are touched only while the lock beside them is held, and borrowed pointers last until it is given back:
what is taken out meanwhile cannot be dropped before. A node is a member of an object; pointers to nodes point into their
objects.

Source: kernel/bpf/verifier.c (check_kfunc_args, ref_convert_owning_non_owning, invalidate_non_owning_refs).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from ir.btf_types import BtfKind, Struct
from ir.core import Call, Value
from ir.verify.fields import SpecialField, find_special_fields
from ir.verify.references import acquire
from ir.verify.refusal import Refused
from ir.verify.scalar import const
from ir.verify.state import State
from ir.verify.subject import LOCKS, Subject
from ir.verify.values import Area, AreaKind, Known, Pointer, Trust

ROOTS: Final = {"list": "bpf_list_head", "tree": "bpf_rb_root"}
_MOST_PERCPU: Final = 512


def allocated_type(subject: Subject, state: State, value: Value, is_percpu: bool) -> int:
    """The program's structure that the number `value` names. Raises Refused when it is none that may be allocated."""
    number, btf = state.number(value), subject.btf
    if btf is None or number.mask or not 0 < number.value < len(btf):
        raise Refused("bad-argument", "no type of the program, as a constant", value)
    type = btf.type(number.value)
    if not isinstance(type, Struct) or type.is_union:
        raise Refused("bad-argument", f"type {number.value} is no structure", value)
    if is_percpu and (type.size > _MOST_PERCPU or find_special_fields(btf, number.value)):
        raise Refused("bad-argument", f"struct {type.name} cannot be allocated for each cpu", value)
    return number.value


def acquire_object(
    subject: Subject, state: State, call: Call, type_id: int, kind: AreaKind = AreaKind.OBJECT
) -> Area:
    """A new owning reference to an object of the program's type."""
    return _as_object(subject, acquire(subject, state, call, kind, sort=type_id), type_id)


def borrowed_object(subject: Subject, key: Hashable, type_id: int, section: Area) -> Area:
    """An object that something else owns, for as long as `section` lasts."""
    area = subject.area(("borrowed", key, type_id, section), AreaKind.OBJECT)
    area.owner = section
    return _as_object(subject, area, type_id)


def kept_object(subject: Subject, key: Hashable, type_id: int, trust: Trust, kind: AreaKind) -> Area:
    """An object that a map's value keeps, as a load of the pointer there finds it."""
    area = subject.area(("kept", key, type_id, trust, kind), kind)
    area.trust = trust
    return _as_object(subject, area, type_id)


def _as_object(subject: Subject, area: Area, type_id: int) -> Area:
    btf = subject.btf
    assert btf is not None
    area.type_id, area.name, area.size = type_id, f"struct {btf.name(type_id)}", btf.size_of(type_id)
    area.writable = area.trust is not Trust.UNTRUSTED
    area.has_lock = any(field.kind in LOCKS for field in subject.fields_of(area))
    return area


def section_of(subject: Subject, lock: Area) -> Area:
    """What pointers to objects that others own live by while `lock` is held."""
    return subject.area(("section", lock), AreaKind.UNKNOWN, "what the lock protects")


def check_object_argument(state: State, value: Value, kind: AreaKind, releases: bool) -> Pointer:
    """An object that the program allocated; to be given up, or to be used."""
    known = state.of(value)
    if type(known) is not Pointer or known.area.kind is not kind:
        raise Refused("bad-argument", f"{_named(known)} where an {kind.value} is wanted", value)
    if known.is_nullable:
        raise Refused("null-argument", f"{known.area} pointer may be NULL", value)
    if releases and known.area not in state.held.references:
        raise Refused("bad-release", f"{known.area} is not the program's to give up", value)
    if known.span.mask or known.span.value:
        raise Refused("bad-argument", f"pointer to {known.area} was moved by {known.span}", value)
    return known


def check_counted(subject: Subject, state: State, value: Value) -> Pointer:
    """An object with a reference count, whoever owns it."""
    known = state.of(value)
    if type(known) is not Pointer or known.area.kind is not AreaKind.OBJECT or known.is_nullable:
        raise Refused("bad-argument", f"{_named(known)} where a counted object is wanted", value)
    if not _is_alive(state, known):
        raise Refused("untrusted-pointer", f"{known.area} may be gone", value)
    if not any(field.kind == "bpf_refcount" for field in subject.fields_of(known.area)):
        raise Refused("bad-argument", f"{known.area} has no bpf_refcount", value)
    if known.span.mask or known.span.value:
        raise Refused("bad-argument", f"pointer to {known.area} was moved by {known.span}", value)
    return known


def find_root(subject: Subject, state: State, value: Value, kind: str, changes: bool) -> SpecialField:
    """The list or tree that `value` points at, whose lock has to be held; it is not changed in a comparison."""
    known, wanted = state.of(value), ROOTS[kind]
    is_object = type(known) is Pointer and known.area.kind in (AreaKind.MAP_VALUE, AreaKind.OBJECT)
    if type(known) is not Pointer or not is_object or known.is_nullable or known.span.mask:
        raise Refused("bad-argument", f"{_named(known)} where a {wanted} is wanted", value)
    if changes and state.held.comparing:
        raise Refused("lock-held", "lists and trees are not changed in a comparison")
    field = next((f for f in subject.fields_of(known.area) if f.offset == known.span.value), None)
    if field is None or field.kind != wanted:
        raise Refused("bad-argument", f"no {wanted} there in {known.area}", value)
    if state.held.locked is not known.area:
        said = f"the {wanted} of {known.area} is touched while its lock is not held"
        raise Refused("lock-not-held", said, value, "take the lock that is in the same value or object")
    return field


def content_of(subject: Subject, root: SpecialField) -> tuple[int, int]:
    """The structure that a list or tree is of, and where its node is in it."""
    btf = subject.btf
    struct_name, _, member_name = root.contains.partition(":")
    for id in btf.find(struct_name, BtfKind.STRUCT) if btf is not None else ():
        struct = btf.type(id) if btf is not None else None
        for member in struct.members if isinstance(struct, Struct) else ():
            if member.name == member_name:
                return id, member.bit_offset // 8
    raise Refused("bad-argument", f"the {root.kind} does not say what it contains")


def check_node(subject: Subject, state: State, value: Value, root: SpecialField, owned: bool) -> Pointer:
    """A node of an object that may be in `root`: one that is the program's (`owned`), or one that is borrowed."""
    known = state.of(value)
    type_id, place = content_of(subject, root)
    if type(known) is not Pointer or known.area.kind is not AreaKind.OBJECT or known.is_nullable:
        raise Refused("bad-argument", f"{_named(known)} where a node is wanted", value)
    if known.area.type_id != type_id or known.span.mask or known.span.value != place:
        said = f"{known.area} at {known.span} where the node at {place} of struct {_name(subject, type_id)} is wanted"
        raise Refused("bad-argument", said, value)
    if owned and known.area not in state.held.references:
        raise Refused("bad-release", f"{known.area} is not the program's to give away", value)
    if not owned and (known.area.owner is None or known.area in state.held.references):
        raise Refused("bad-argument", f"{known.area} is in no list or tree", value)
    return known


def give_away(subject: Subject, state: State, area: Area) -> None:
    """What a list or tree takes is no longer the program's; pointers to it are borrowed."""
    assert state.held.locked is not None
    section = section_of(subject, state.held.locked)
    state.held = state.held.without_reference(area)
    state.replace_area(area, borrowed_object(subject, area, area.type_id, section))


def end_section(subject: Subject, state: State, lock: Area) -> None:
    """Borrowed pointers are pointers no more."""
    state.forget_area(section_of(subject, lock))


def element(
    subject: Subject, state: State, call: Call, root: SpecialField, owned: bool, nullable: bool = True
) -> Known:
    """A pointer to the node of something that is, or was, in `root`."""
    type_id, place = content_of(subject, root)
    if owned:
        area = acquire_object(subject, state, call, type_id)
    else:
        assert state.held.locked is not None
        area = borrowed_object(subject, call, type_id, section_of(subject, state.held.locked))
    return Pointer(area, None, place, const(64, place), nullable)


def _is_alive(state: State, known: Pointer) -> bool:
    area = known.area
    return area in state.held.references or area.owner is not None or area.trust is Trust.RCU


def _name(subject: Subject, type_id: int) -> str:
    return subject.btf.name(type_id) if subject.btf is not None else ""


def _named(known: Known) -> str:
    return f"{known.area} pointer" if type(known) is Pointer else "a number"
