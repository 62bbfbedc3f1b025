"""What a call of a helper does: which maps it takes, what it gives up, moves, acquires and returns."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from ir.btf_types import Struct
from ir.core import Call
from ir.helper_maps import map_problem
from ir.helpers import Helper, ResultKind, helper_by_id
from ir.isa import Kind, row_of
from ir.kinds import AttachType, MapType, ProgramType
from ir.object import Map
from ir.verify.arguments import SOCKET_MAPS, Passed, check_arguments, note_writes
from ir.verify.dynptrs import release_dynptr, start_dynptr
from ir.verify.fields import SpecialField
from ir.verify.held import Held, who_may_not
from ir.verify.kernel_objects import field_target, find_struct, object_area
from ir.verify.owned import acquire_object, end_section, kept_object
from ir.verify.references import acquire, release
from ir.verify.refusal import Refused
from ir.verify.scalar import between, between_signed
from ir.verify.state import State
from ir.verify.steps import Steps
from ir.verify.subject import Subject
from ir.verify.unprivileged import GONE, HELPERS
from ir.verify.values import ANY, ZERO, Area, AreaKind, Known, Pointer, Trust, start_of

_WRITERS: Final = frozenset(("map_update_elem", "map_delete_elem", "map_push_elem", "map_pop_elem"))
_SIZED_RESULTS: Final = frozenset(
    ("get_stack", "get_task_stack", "probe_read_str", "probe_read_kernel_str", "probe_read_user_str")
)
_ACQUIRING: Final = frozenset(("sk_lookup_tcp", "sk_lookup_udp", "skc_lookup_tcp"))
_CASTS: Final = frozenset(
    (
        *("sk_fullsock", "tcp_sock", "get_listener_sock", "skc_to_tcp6_sock", "skc_to_tcp_sock"),
        *("skc_to_tcp_timewait_sock", "skc_to_tcp_request_sock", "skc_to_udp6_sock", "skc_to_unix_sock"),
        "skc_to_mptcp_sock",
    )
)
_SOCKET_MAP_WRITERS: Final = frozenset(
    (
        *(ProgramType.SOCKET_FILTER, ProgramType.SCHED_CLS, ProgramType.SCHED_ACT, ProgramType.XDP),
        *(ProgramType.SK_REUSEPORT, ProgramType.FLOW_DISSECTOR, ProgramType.SK_LOOKUP),
    )
)
_ARRAYS: Final = frozenset((MapType.ARRAY, MapType.PERCPU_ARRAY))
_MAX_ERRNO: Final = 4095
_MAX_CPUS: Final = 8192
_EXCHANGE: Final = "bpf_kptr_xchg"


def find_helper(subject: Subject, held: Held, call: Call) -> Helper:
    """The helper that `call` names. Raises Refused when programs like this one may not call it there."""
    assert isinstance(call.target, int)
    helper = helper_by_id(call.target, subject.type)
    if helper is None:
        raise Refused("unknown-helper", f"there is no helper {call.target}")
    if call.target not in subject.helpers:
        attach = f"/{subject.attach_type.name}" if subject.attach_type is not None else ""
        said = f"{helper.full_name} is not available to {subject.type.name}{attach} programs"
        raise Refused("helper-unavailable", said)
    if subject.unprivileged and helper.id not in HELPERS:
        raise Refused("unprivileged", f"{helper.full_name} takes CAP_BPF or CAP_PERFMON")
    if helper.gpl_only and not subject.is_gpl:
        said = f"{helper.full_name} is for programs with a GPL-compatible license"
        raise Refused("gpl-only", said, None, 'set the license to "GPL" if that is what it is')
    if helper.may_sleep and not held.is_sleepable(subject.program):
        raise Refused("may-sleep", f"{helper.full_name} may sleep, and {who_may_not(held)} may not")
    return helper


def check_poison(subject: Subject, call: Call) -> None:
    """Refuse what must not be reached, but for the exit without a result of a program whose type has none."""
    program = subject.program
    if subject.returns_nothing:
        insn = program.insns[program.starts.index(call.at)]
        if row_of(insn).kind is Kind.EXIT:
            return
    reason = program.poisoned[call.at]
    raise Refused(reason.code, reason.message)


def call_helper(steps: Steps, state: State, call: Call, helper: Helper) -> Passed:
    """Check a call and bring the state to after it, but for a callback."""
    subject = steps.subject
    _check_sections(state, helper, steps.leave_packet_load is None)
    passed = check_arguments(steps, state, call, helper)
    if passed.map is not None:
        _check_map(subject, passed, helper)
    if helper.name == "get_local_storage" and state.of(call.args[1]) != ZERO:
        raise Refused("bad-argument", f"{helper.full_name}: argument 2: flags are not 0", call.args[1])
    field = _check_exchange(subject, state, call, passed) if helper.name == "kptr_xchg" else None
    note_writes(steps, state, passed)
    if passed.released is not None:
        release(state, passed.released, GONE if subject.unprivileged else subject.lost(call.at))
    if passed.released_dynptr is not None:
        release_dynptr(state, passed.released_dynptr)
    if passed.new_dynptr is not None:
        _start_dynptr(steps, state, call, helper, passed)
    if helper.changes_packet or (helper.name == "dynptr_write" and passed.views_skb):
        state.forget_packets(subject.lost(call.at))
    _lock(subject, state, helper, passed)
    if field is not None:
        state.known[call] = _exchanged(subject, state, call, field)
    else:
        state.known[call] = _result(subject, state, call, helper, passed)
    return passed


def _start_dynptr(steps: Steps, state: State, call: Call, helper: Helper, passed: Passed) -> None:
    assert passed.new_dynptr is not None
    if helper.name == "ringbuf_reserve_dynptr":
        owner = acquire(steps.subject, state, call, AreaKind.UNKNOWN, name="ring buffer dynptr")
        start_dynptr(steps, state, call, passed.new_dynptr, "ring buffer", owner)
        return
    memory = state.of(call.args[0])
    if type(memory) is not Pointer or memory.area.kind is not AreaKind.MAP_VALUE:
        raise Refused(
            "bad-argument", f"{helper.full_name}: dynptrs are made of map values only", call.args[0]
        )
    start_dynptr(steps, state, call, passed.new_dynptr, "local", None)


def _check_sections(state: State, helper: Helper, is_main: bool) -> None:
    """Refuse what may not be called while something is held; a tail call in a function comes back to its caller."""
    held = state.held
    if held.locked is not None and helper.name not in ("spin_unlock", "kptr_xchg"):
        said = f"{helper.full_name} is called while a spin lock is held"
        raise Refused("lock-held", said, None, "call bpf_spin_unlock first")
    if helper.may_sleep and held.may_not_sleep:
        raise Refused("may-sleep", f"{helper.full_name} may sleep, in a section that may not")
    is_leaking = is_main and (held.references or held.objects_in_use)
    if helper.name == "tail_call" and (is_leaking or held.may_not_sleep):
        raise Refused("reference-leak", "bpf_tail_call would leave while something is held")


def _check_socket_map(subject: Subject, helper: Helper, map_: Map) -> None:
    """Only some programs may change maps of sockets (kernel/bpf/verifier.c, may_update_sockmap)."""
    is_iterator = subject.attach_type is AttachType.TRACE_ITER
    deletes = subject.type is ProgramType.SOCK_OPS and helper.name == "map_delete_elem"
    if not (subject.type in _SOCKET_MAP_WRITERS or is_iterator or deletes):
        said = (
            f"{helper.full_name} on '{map_.name}', a {map_.type.name} map, in a {subject.type.name} program"
        )
        raise Refused("map-type", said)


def _check_map(subject: Subject, passed: Passed, helper: Helper) -> None:
    map_ = passed.map
    assert map_ is not None
    problem = map_problem(helper, map_)
    if problem:
        raise Refused("map-type", problem)
    if map_.type in SOCKET_MAPS and helper.name in ("map_update_elem", "map_delete_elem"):
        _check_socket_map(subject, helper, map_)
    if helper.name in _WRITERS and map_.flags & 1 << 7:
        raise Refused("read-only", f"{helper.full_name} on map '{map_.name}', which programs may only read")


def _lock(subject: Subject, state: State, helper: Helper, passed: Passed) -> None:
    if helper.name not in ("spin_lock", "spin_unlock"):
        return
    assert passed.place is not None
    area, held = passed.place.area, state.held
    if held.comparing:
        raise Refused("lock-held", f"{helper.full_name} in a comparison, which runs under a lock")
    if helper.name == "spin_lock":
        state.held = held.with_lock(area)
        return
    if held.locked is None:
        raise Refused("lock-not-held", "bpf_spin_unlock without a lock")
    if held.locked is not area:
        raise Refused("lock-not-held", "bpf_spin_unlock of another lock than the one that is held")
    state.held = held.with_lock(None)
    end_section(subject, state, area)


def _result(subject: Subject, state: State, call: Call, helper: Helper, passed: Passed) -> Known:
    kind, nullable = helper.result.kind, helper.result.is_nullable
    if kind is ResultKind.INTEGER:
        return _number(helper, passed)
    if kind is ResultKind.VOID:
        return ANY
    if kind is ResultKind.MAP_VALUE:
        return _map_value(subject, state, call, helper, passed)
    if kind is ResultKind.RECORD:
        area = acquire(subject, state, call, AreaKind.MEMORY, passed.alloc_size, "ring buffer record")
        area.size = passed.alloc_size
        return start_of(area, is_nullable=True)
    if kind is ResultKind.MEMORY:
        key = ("memory", call, passed.alloc_size, passed.dynptr)
        area = subject.area(key, AreaKind.MEMORY, "", passed.alloc_size)
        area.owner = passed.dynptr
        return start_of(area, is_nullable=nullable)
    sort = _SOCKET_RESULTS.get(kind)
    if sort is not None:
        return _socket(subject, state, call, helper, passed, sort)
    if kind is ResultKind.BTF_POINTER:
        return _object(subject, call, helper, passed)
    assert kind is ResultKind.PERCPU_POINTER, kind
    return _this_cpu(subject, state, call, nullable)


def _this_cpu(subject: Subject, state: State, call: Call, nullable: bool) -> Known:
    """A per-CPU variable, or what a per-CPU pointer points to, as it is on one CPU."""
    pointer = state.of(call.args[0])
    if type(pointer) is not Pointer:
        return ANY
    area, kernel = pointer.area, subject.kernel
    if area.kind is AreaKind.PERCPU_OBJECT:
        found = kept_object(subject, (call, area), area.type_id, Trust.RCU, AreaKind.OBJECT)
        return start_of(found, nullable)
    if area.kind is not AreaKind.PERCPU or kernel is None:
        return Pointer(area, None, 0, pointer.span, nullable)
    if isinstance(kernel.type(area.type_id), Struct):
        return start_of(object_area(subject, (call, area), area.type_id, Trust.PLAIN), nullable)
    size = kernel.size_of(area.type_id)
    return start_of(subject.area((call, area), AreaKind.MEMORY, area.name, size, writable=False), nullable)


_SOCKET_RESULTS: Final = {
    ResultKind.SOCKET: AreaKind.SOCKET,
    ResultKind.TCP_SOCKET: AreaKind.TCP_SOCKET,
    ResultKind.SOCKET_COMMON: AreaKind.SOCKET_COMMON,
}


def _number(helper: Helper, passed: Passed) -> Known:
    if helper.name in _SIZED_RESULTS:
        return between_signed(64, -_MAX_ERRNO, passed.most_bytes)
    if helper.name == "get_smp_processor_id":
        return between(64, 0, _MAX_CPUS - 1)
    return ANY


def _map_value(subject: Subject, state: State, call: Call, helper: Helper, passed: Passed) -> Known:
    map_ = passed.map
    assert map_ is not None
    nullable = helper.result.is_nullable
    if helper.name == "map_lookup_elem":
        if map_.inner is not None:
            area = subject.area(("inner", call), AreaKind.MAP, map_.inner.name)
            area.map = map_.inner
            return start_of(area, nullable)
        if map_.type in (MapType.SOCKMAP, MapType.SOCKHASH):
            return start_of(acquire(subject, state, call, AreaKind.SOCKET), is_nullable=True)
        if map_.type is MapType.XSKMAP:
            return start_of(subject.area(("xsk", call), AreaKind.XDP_SOCKET, writable=False), True)
        if map_.type in _ARRAYS and passed.key_number is not None:
            # The kernel sees, too, that such a lookup finds something.
            nullable = nullable and passed.key_number >= map_.max_entries
    found = passed.map_pointer.area if passed.map_pointer is not None else None
    if found is None or found is subject.map_area(map_) or not subject.special_fields(map_):
        return start_of(fresh_value(subject, state, call, map_), nullable)
    area = fresh_value(subject, state, (call, found), map_)
    area.owner = found
    return start_of(area, nullable)


def fresh_value(subject: Subject, state: State, key: Hashable, map_: Map) -> Area:
    """A value of a map, found by `key`, that no pointer from before points into, if it matters which one it is.

    The same instruction finds another one each time; the one whose lock is taken has to be the one that is unlocked.
    """
    area = subject.value_area(key, map_)
    number = 0
    while area.has_lock and (area in state.held.locks or state.points_into(area)):
        number += 1
        area = subject.value_area((key, number), map_)
    return area


def _socket(
    subject: Subject, state: State, call: Call, helper: Helper, passed: Passed, kind: AreaKind
) -> Known:
    if helper.name in _ACQUIRING:
        return start_of(acquire(subject, state, call, kind), is_nullable=True)
    area = subject.area(("socket", call, _owner(passed)), kind, writable=False)
    area.owner = _owner(passed)
    return start_of(area, helper.result.is_nullable)


def _owner(passed: Passed) -> Area | None:
    """The reference that the result of a cast lives by."""
    if passed.socket is None:
        return None
    area = passed.socket.area
    return area.owner or (area if area.is_held else None)


def _object(subject: Subject, call: Call, helper: Helper, passed: Passed) -> Known:
    trust = Trust.TRUSTED if helper.name in ("get_current_task_btf", "task_pt_regs") else Trust.PLAIN
    type_id = find_struct(subject, helper.result.btf)
    owner = _owner(passed) if helper.name in _CASTS else None
    area = object_area(subject, (call, owner), type_id, trust)
    area.owner = owner
    return start_of(area, helper.result.is_nullable)


def _check_exchange(subject: Subject, state: State, call: Call, passed: Passed) -> SpecialField:
    """The field that bpf_kptr_xchg exchanges; what goes into it has to be of its type."""
    place = passed.place
    assert place is not None
    field = next(found for found in subject.fields_of(place.area) if found.offset == place.span.value)
    given = state.of(call.args[1])
    if type(given) is not Pointer:
        return field
    kind, type_id = field_target(subject, field)
    if given.area.kind is not kind or given.area.type_id != type_id or given.area.trust is Trust.UNTRUSTED:
        said = f"{given.area} where {_named(subject, kind, type_id)} is wanted"
        raise Refused("bad-argument", f"{_EXCHANGE}: argument 2: {said}", call.args[1])
    return field


def _named(subject: Subject, kind: AreaKind, type_id: int) -> str:
    types = subject.kernel if kind is AreaKind.BTF else subject.btf
    return f"{kind.value} {types.name(type_id)}" if types is not None and type_id else kind.value


def _exchanged(subject: Subject, state: State, call: Call, field: SpecialField) -> Known:
    """bpf_kptr_xchg: the pointer that was there, which now has to be released."""
    kind, type_id = field_target(subject, field)
    if kind is not AreaKind.BTF:
        return start_of(acquire_object(subject, state, call, type_id, kind), is_nullable=True)
    area = acquire(subject, state, call, AreaKind.BTF, sort=type_id)
    area.type_id, area.trust = type_id, Trust.TRUSTED
    if subject.kernel is not None:
        area.name = subject.kernel.name(type_id)
    return start_of(area, is_nullable=True)
