"""Calls of kernel functions: arguments, sections, iterators, references, results."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ir.btf_types import Struct
from ir.core import Call, Value
from ir.kinds import AttachType, ProgramType
from ir.verify.access import UNSIGNED, may_write_packets
from ir.verify.arguments import Passed, check_memory, check_string, note_writes
from ir.verify.dynptrs import find_dynptr, start_dynptr
from ir.verify.held import Held, who_may_not
from ir.verify.kernel_locks import (
    SAVED,
    SAVED_BY_LOCK,
    find_lock,
    give_back_lock,
    restore_interrupts,
    save_interrupts,
)
from ir.verify.kernel_objects import find_struct, in_rcu, is_alive, is_struct, object_area
from ir.verify.kfuncs import ITERATOR_SIZES, Kfunc, Parameter, kfunc_named
from ir.verify.owned import (
    acquire_object,
    allocated_type,
    check_counted,
    check_node,
    check_object_argument,
    element,
    find_root,
    give_away,
    kept_object,
)
from ir.verify.references import acquire, release
from ir.verify.refusal import Refused
from ir.verify.scalar import Scalar
from ir.verify.stack_objects import end_object, find_object, start_object
from ir.verify.state import State
from ir.verify.steps import Steps
from ir.verify.subject import Subject
from ir.verify.values import ANY, ZERO, AreaKind, Known, Pointer, Trust, start_of

_OBJECT_KINDS: Final = {"object": AreaKind.OBJECT, "percpuobject": AreaKind.PERCPU_OBJECT}
_OWNED: Final = frozenset(
    ("reslock", "field", "type", "counted", "root", "linked", "unlinked", "func", *_OBJECT_KINDS)
)
_PROTECTED: Final = ("task iterator", "css iterator")
_LEFT: Final = ", whose section has ended"
_SESSIONS: Final = (AttachType.TRACE_KPROBE_SESSION, AttachType.TRACE_UPROBE_SESSION)
_NEW: Final = "___init"  # of a type that no program may take for another
_MEMORY: Final = frozenset(("mem", "out", "rw", "opt"))
_OBJECTS: Final = frozenset((*(AreaKind.BTF, AreaKind.SOCKET, AreaKind.SOCKET_COMMON, AreaKind.TCP_SOCKET),))


def find_kfunc(subject: Subject, held: Held, call: Call) -> Kfunc:
    """The kernel function that `call` names. Raises Refused when it is not known or not for this place."""
    found = kfunc_named(call.target)
    if found is None:
        raise Refused("unknown-kfunc", f"kernel function {call.target} is not known here")
    if subject.type not in found.types:
        said = f"{found.name} is not available to {subject.type.name} programs"
        raise Refused("helper-unavailable", said)
    if "iterator" in found.flags and subject.attach_type is not AttachType.TRACE_ITER:
        raise Refused("helper-unavailable", f"{found.name} is for iterators only")
    if "session" in found.flags and subject.attach_type not in _SESSIONS:
        raise Refused("helper-unavailable", f"{found.name} is for sessions of probes only")
    if not subject.is_gpl:
        raise Refused("gpl-only", f"{found.name} is for programs with a GPL-compatible license")
    if "sleeps" in found.flags and not held.is_sleepable(subject.program):
        raise Refused("may-sleep", f"{found.name} may sleep, and {who_may_not(held)} may not")
    return found


def call_kfunc(steps: Steps, state: State, call: Call, kfunc: Kfunc) -> Passed:
    """Check a call and bring the state to after it, but for a callback."""
    if state.held.locked is not None and "locked" not in kfunc.flags:
        raise Refused("lock-held", f"{kfunc.name} is called while a spin lock is held")
    if "sleeps" in kfunc.flags and state.held.may_not_sleep:
        raise Refused("may-sleep", f"{kfunc.name} may sleep, in a section that may not")
    if "protected" in kfunc.flags and not in_rcu(steps.subject, state):
        raise Refused("section-not-open", f"{kfunc.name} outside of an RCU section")
    passed = Passed()
    for number, parameter in enumerate(kfunc.parameters):
        if number >= len(call.args):
            break
        try:
            _check(steps, state, call, kfunc, number, parameter, passed)
        except Refused as refused:
            refused.message = f"{kfunc.name}: argument {number + 1}: {refused.message}"
            refused.culprit = refused.culprit or call.args[number]
            if refused.code == "bad-argument":
                refused.hint = refused.hint or "pass what the kernel function's type says"
            raise
    note_writes(steps, state, passed)
    if passed.released is not None:
        release(state, passed.released, steps.subject.lost(call.at))
    if "packet" in kfunc.flags:
        state.forget_packets(steps.subject.lost(call.at))
    if passed.locked is not None and "unlock" in kfunc.flags:
        give_back_lock(steps.subject, state, passed.locked, lock_kind(kfunc))
    if passed.given is not None:
        give_away(steps.subject, state, passed.given)
    _enter_or_leave(steps.subject, state, kfunc)
    state.known[call] = _result(steps.subject, state, call, kfunc, passed)
    return passed


def _check(
    steps: Steps, state: State, call: Call, kfunc: Kfunc, number: int, parameter: Parameter, passed: Passed
) -> None:
    value, kind = call.args[number], parameter.kind
    known = state.of(value)
    if kind == "raw" or (parameter.is_nullable and known == ZERO):
        return
    if kind == "any":
        if type(known) is Pointer:
            raise Refused("bad-argument", f"{known.area} pointer where a number is wanted", value)
        return
    if kind in ("size", "size0"):
        _check_size(steps, state, call, kfunc, number, passed)
    elif kind == "newiter":
        size = ITERATOR_SIZES[parameter.of]
        key = ("iterator", call)
        area = steps.subject.area(key, AreaKind.UNKNOWN, f"{parameter.of} iterator")
        start_object(steps, state, value, size, f"{parameter.of} iterator", area, is_owned=True)
    elif kind == "iter":
        kind = f"{parameter.of} iterator"
        if "stop" in kfunc.flags:
            end_object(steps, state, find_object(state, value, kind, kind + _LEFT))
        else:
            passed.iterator = find_object(state, value, kind).area
    elif kind == "newdynptr":
        _start_dynptr(steps, state, call, kfunc, value, passed)
    elif kind == "dynptr":
        passed.dynptr = find_dynptr(state, value)
    elif kind == "newirq":
        # What a lock saves is saved where it is held only, by the explorer.
        if "trylock" not in kfunc.flags:
            save_interrupts(steps, state, call, value, SAVED)
    elif kind == "irq":
        restore_interrupts(steps, state, value, SAVED_BY_LOCK if "unlock" in kfunc.flags else SAVED)
    elif kind in _OWNED:
        _check_owned(steps.subject, state, kfunc, value, parameter, passed)
    else:
        _check_pointer(steps, state, kfunc, value, known, parameter, passed)


def _check_owned(
    subject: Subject, state: State, kfunc: Kfunc, value: Value, parameter: Parameter, passed: Passed
) -> None:
    """Objects that the program allocates, and what owns them."""
    kind = parameter.kind
    if kind == "type":
        passed.type_id = allocated_type(subject, state, value, kfunc.result == "percpuobject")
    elif kind in _OBJECT_KINDS:
        known = check_object_argument(state, value, _OBJECT_KINDS[kind], parameter.releases)
        passed.released = known.area if parameter.releases else None
    elif kind == "counted":
        passed.socket = check_counted(subject, state, value)
    elif kind == "root":
        changes = "acquire" in kfunc.flags or any(each.kind == "unlinked" for each in kfunc.parameters)
        passed.root = find_root(subject, state, value, parameter.of, changes)
    elif kind == "reslock":
        passed.locked = find_lock(subject, state, value)
    elif kind == "field":
        passed.place = _find_field(subject, state, value, parameter.of)
    elif kind == "func":
        known_function = state.of(value)
        if type(known_function) is not Pointer or known_function.area.kind is not AreaKind.FUNCTION:
            raise Refused("bad-argument", "no function of the program", value)
        passed.function = known_function.area.name
    else:
        assert passed.root is not None, "roots come before nodes"
        node = check_node(subject, state, value, passed.root, kind == "unlinked")
        passed.given = node.area if kind == "unlinked" else None


def lock_kind(kfunc: Kfunc) -> str:
    """How the function takes or gives back a lock."""
    return "with interrupts off" if len(kfunc.parameters) > 1 else "resilient"


def _find_field(subject: Subject, state: State, value: Value, kind: str) -> Pointer:
    """The field of a map's value that `value` points at. Raises Refused when it is no such."""
    known = state.of(value)
    if (
        type(known) is Pointer
        and known.area.map is not None
        and not known.is_nullable
        and not known.span.mask
    ):
        for field in subject.special_fields(known.area.map):
            if field.kind == kind and field.offset == known.span.value:
                return known
    raise Refused("bad-argument", f"no {kind} of a map's value there", value)


def _start_dynptr(steps: Steps, state: State, call: Call, kfunc: Kfunc, value: Value, passed: Passed) -> None:
    if kfunc.name == "bpf_dynptr_clone":
        assert passed.dynptr is not None
        old = passed.dynptr
        start_dynptr(steps, state, call, value, old.name, old.owner, old.writable)
    else:
        name = kfunc.name.removeprefix("bpf_dynptr_from_").replace("_meta", " metadata")
        start_dynptr(steps, state, call, value, name, None, may_write_packets(steps.subject))


def _check_pointer(
    steps: Steps,
    state: State,
    kfunc: Kfunc,
    value: Value,
    known: Known,
    parameter: Parameter,
    passed: Passed,
) -> None:
    kind = parameter.kind
    if kind == "opt" and known == ZERO:
        return
    if type(known) is not Pointer:
        raise Refused("bad-argument", "a number where a pointer is wanted", value)
    if known.is_nullable:
        hint = "compare the pointer with NULL before the call"
        raise Refused("null-argument", f"{known.area} pointer may be NULL", value, hint)
    if kind == "skb" and known.area.kind is AreaKind.BTF:
        _check_object(steps.subject, state, kfunc, known, value, replace(parameter, of="sk_buff"), passed)
    elif kind in ("ctx", "skb"):
        if known.area.kind is not AreaKind.CONTEXT or known.span.mask or known.span.value:
            raise Refused("bad-argument", f"{known.area} pointer where the context is wanted", value)
    elif kind == "map":
        if known.area.kind is AreaKind.BTF:
            _check_object(steps.subject, state, kfunc, known, value, replace(parameter, of="bpf_map"), passed)
        elif known.area.kind is not AreaKind.MAP:
            raise Refused("bad-argument", f"{known.area} pointer where a map is wanted", value)
        elif passed.place is not None and not passed.place.area.is_value_of(known.area):
            raise Refused("bad-argument", f"another map than that of the {passed.place.area}", value)
    elif kind == "rom":
        check_string(steps.subject, known, value)
    elif kind in _MEMORY:
        if parameter.size:
            writes = kind in ("out", "rw")
            check_memory(steps, state, None, known, value, parameter.size, parameter.size, writes, passed)
    elif kind in ("btf", "anysk"):
        _check_object(steps.subject, state, kfunc, known, value, parameter, passed)


def _check_object(
    subject: Subject,
    state: State,
    kfunc: Kfunc,
    known: Pointer,
    value: Value,
    parameter: Parameter,
    passed: Passed,
) -> None:
    area = known.area
    if area.kind not in _OBJECTS:
        raise Refused("bad-argument", f"{area} pointer where struct {parameter.of} is wanted", value)
    if parameter.of and area.type_id and not is_struct(subject, known, parameter.of):
        place = "" if known.span.is_const and not known.span.value else f"byte {known.span} of "
        said = f"{place}struct {area.name} where struct {parameter.of} is wanted"
        raise Refused("bad-argument", said, value)
    is_new = area.name.endswith(_NEW)
    if parameter.of and area.type_id and is_new != parameter.of.endswith(_NEW):
        raise Refused("bad-argument", f"struct {area.name} where struct {parameter.of} is wanted", value)
    if parameter.releases:
        if area not in state.held.references:
            raise Refused("bad-release", f"{area} holds no reference to give up", value)
        passed.released = area
        return
    if area.kind is not AreaKind.BTF:
        return
    if not is_alive(subject, state, area):
        raise Refused("untrusted-pointer", f"{area} pointer is not trusted", value)
    if "trusted" in kfunc.flags and not area.is_held and area.trust is not Trust.TRUSTED:
        said = f"{area} pointer is trusted within an RCU section only, not for as long as is wanted"
        raise Refused("untrusted-pointer", said, value, "acquire a reference to it first")


def _check_size(steps: Steps, state: State, call: Call, kfunc: Kfunc, number: int, passed: Passed) -> None:
    value = call.args[number]
    known = state.of(value)
    if type(known) is not Scalar or known.smin < 0 or known.umax >= 1 << 29:
        raise Refused("bad-size", "size is not bounded", value, "bound the size before the call")
    if kfunc.result.startswith("slice") and not known.is_const:
        raise Refused("bad-size", "size of a slice is not a known constant", value)
    passed.most_bytes = known.umax
    memory, place = kfunc.parameters[number - 1], call.args[number - 1]
    pointer = state.of(place)
    if type(pointer) is not Pointer:
        return
    writes = memory.kind in ("out", "rw", "opt")
    check_memory(steps, state, None, pointer, place, known.umin, known.umax, writes, passed)


def _enter_or_leave(subject: Subject, state: State, kfunc: Kfunc) -> None:
    """Sections that the function opens or closes."""
    held, flags = state.held, kfunc.flags
    if "rcu+" in flags:
        if held.rcu:
            said = f"{kfunc.name} within an RCU section, which does not nest"
            raise Refused("section-open", said, None, "close the section first")
        held = replace(held, rcu=held.rcu + 1)
    elif "preempt+" in flags:
        held = replace(held, preempt=held.preempt + 1)
    elif "rcu-" in flags or "preempt-" in flags:
        which = "rcu" if "rcu-" in flags else "preempt"
        depth = getattr(held, which)
        if not depth:
            raise Refused("section-not-open", f"{kfunc.name} without the call that opens the section")
        held = replace(held, **{which: depth - 1})
        if which == "rcu" and depth == 1:
            _leave_rcu(subject, state)
            held = _leave_iterators(held)
    state.held = held


def _leave_rcu(subject: Subject, state: State) -> None:
    """What RCU kept alive may be gone: pointers to it are untrusted."""
    for value, known in state.known.items():
        if type(known) is Pointer and known.area.trust is Trust.RCU:
            key, old = ("after rcu", known.area), known.area
            if old.kind is AreaKind.BTF:
                area = object_area(subject, key, old.type_id, Trust.UNTRUSTED)
            else:
                area = kept_object(subject, key, old.type_id, Trust.UNTRUSTED, old.kind)
            state.known[value] = Pointer(area, None, 0, known.span, known.is_nullable)
    if state.outer is not None:
        state.outer = state.outer.copy()
        _leave_rcu(subject, state.outer)


def _leave_iterators(held: Held) -> Held:
    """Iterators over what RCU protects give nothing more after their section."""
    left = {
        replace(found, kind=found.kind + _LEFT) if found.kind in _PROTECTED else found
        for found in held.objects
    }
    return held.with_objects(frozenset(left))


_KERNEL_CONTEXTS: Final = {
    ProgramType.XDP: "xdp_buff",
    ProgramType.CGROUP_SOCK: "sock",
    ProgramType.CGROUP_SOCK_ADDR: "bpf_sock_addr_kern",
    ProgramType.CGROUP_SOCKOPT: "bpf_sockopt_kern",
    ProgramType.CGROUP_SYSCTL: "bpf_sysctl_kern",
    ProgramType.SOCK_OPS: "bpf_sock_ops_kern",
    ProgramType.SK_MSG: "sk_msg",
    ProgramType.SK_REUSEPORT: "sk_reuseport_kern",
    ProgramType.SK_LOOKUP: "bpf_sk_lookup_kern",
    ProgramType.PERF_EVENT: "bpf_perf_event_data_kern",
    ProgramType.KPROBE: "pt_regs",
}


def _cast(subject: Subject, state: State, call: Call) -> Known:
    """What bpf_rdonly_cast makes of anything: an object of a kernel's type, not to be relied on."""
    number, kernel = state.number(call.args[1]), subject.kernel
    known = kernel is not None and number.is_const and 0 < number.value < len(kernel)
    if kernel is None or not known or not isinstance(kernel.type(number.value), Struct):
        raise Refused("bad-argument", "bpf_rdonly_cast: argument 2: no structure of the kernel", call.args[1])
    return start_of(object_area(subject, call, number.value, Trust.UNTRUSTED))


def _result(subject: Subject, state: State, call: Call, kfunc: Kfunc, passed: Passed) -> Known:
    if kfunc.result in ("word", "word8"):
        size = 8 if kfunc.result == "word8" else 4
        area = subject.area(("word", call, passed.iterator), AreaKind.MEMORY, "", size, writable=size == 8)
        area.owner = passed.iterator
        return start_of(area, kfunc.is_nullable)
    if kfunc.result in ("slice", "slicerw"):
        size, owner = passed.most_bytes, passed.dynptr
        writable = kfunc.result == "slicerw"
        if writable and owner is not None and not owner.writable:
            raise Refused("read-only", f"{kfunc.name}: the dynptr gives no access for writing", call.args[0])
        area = subject.area(("slice", call, size, owner), AreaKind.MEMORY, "dynptr slice", size, writable)
        area.owner = owner
        return start_of(area, kfunc.is_nullable)
    if kfunc.result == "context":
        kernel_context = find_struct(subject, _KERNEL_CONTEXTS.get(subject.type, "sk_buff"))
        return start_of(object_area(subject, call, kernel_context, Trust.TRUSTED))
    if kfunc.result == "cast":
        return _cast(subject, state, call)
    if kfunc.result in _OBJECT_KINDS:
        kind = _OBJECT_KINDS[kfunc.result]
        return start_of(acquire_object(subject, state, call, passed.type_id, kind), kfunc.is_nullable)
    if kfunc.result == "element":
        assert passed.root is not None
        return element(subject, state, call, passed.root, "acquire" in kfunc.flags)
    if kfunc.result == "again":
        assert passed.socket is not None
        counted = passed.socket.area
        is_sure = counted in state.held.references
        return start_of(acquire_object(subject, state, call, counted.type_id), not is_sure)
    if kfunc.result != "btf":
        return UNSIGNED[8] if kfunc.result == "int" else ANY
    type_id = find_struct(subject, kfunc.result_of)
    if "acquire" in kfunc.flags:
        area = acquire(subject, state, call, AreaKind.BTF, 0, kfunc.result_of)
        area.type_id, area.trust = type_id, Trust.TRUSTED
        area.writable = bool(subject.writable_ranges(type_id))
        return start_of(area, kfunc.is_nullable)
    trust = Trust.RCU if "rcu" in kfunc.flags else Trust.TRUSTED
    # What RCU protects outlives the iterator that gave it.
    owner = passed.iterator if trust is Trust.TRUSTED else None
    area = object_area(subject, (call, owner), type_id, trust)
    area.owner = owner
    return start_of(area, kfunc.is_nullable)
