"""Global functions: verified by themselves for every argument their types allow, and called as their types say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from ir.btf_types import Enum, Forward, Int, Prototype, Struct
from ir.btf_types import Function as FunctionType
from ir.btf_types import Pointer as PointerType
from ir.core import Call, Function, Value
from ir.diagnostics import UnreadableError
from ir.kinds import ProgramType
from ir.verify.arguments import Passed, check_memory, note_writes
from ir.verify.dynptrs import find_dynptr
from ir.verify.kernel_objects import find_struct, is_alive, is_struct, object_area
from ir.verify.refusal import Refused
from ir.verify.state import State
from ir.verify.steps import Steps
from ir.verify.subject import Subject
from ir.verify.values import ANY, ZERO, AreaKind, Known, Pointer, Trust, start_of

_T = ProgramType
_CONTEXTS: Final = {
    **dict.fromkeys((_T.SCHED_CLS, _T.SCHED_ACT, _T.SOCKET_FILTER, _T.CGROUP_SKB, _T.SK_SKB), "__sk_buff"),
    **dict.fromkeys((_T.LWT_IN, _T.LWT_OUT, _T.LWT_XMIT, _T.LWT_SEG6LOCAL, _T.FLOW_DISSECTOR), "__sk_buff"),
    _T.XDP: "xdp_md",
    _T.CGROUP_SOCK: "bpf_sock",
    _T.CGROUP_SOCK_ADDR: "bpf_sock_addr",
    _T.CGROUP_SOCKOPT: "bpf_sockopt",
    _T.CGROUP_SYSCTL: "bpf_sysctl",
    _T.CGROUP_DEVICE: "bpf_cgroup_dev_ctx",
    _T.SOCK_OPS: "bpf_sock_ops",
    _T.SK_MSG: "sk_msg_md",
    _T.SK_REUSEPORT: "sk_reuseport_md",
    _T.SK_LOOKUP: "bpf_sk_lookup",
    _T.PERF_EVENT: "bpf_perf_event_data",
    _T.RAW_TRACEPOINT: "bpf_raw_tracepoint_args",
    _T.KPROBE: "pt_regs",
    _T.NETFILTER: "bpf_nf_ctx",
}
_OBJECT_TAGS: Final = {"arg:trusted": Trust.TRUSTED, "arg:untrusted": Trust.UNTRUSTED}
_SHARED: Final = frozenset(
    (
        *(AreaKind.FRAME, AreaKind.PACKET, AreaKind.PACKET_META, AreaKind.MAP_VALUE, AreaKind.MAP_KEY),
        *(AreaKind.MEMORY, AreaKind.BUFFER),
    )
)


@final
@dataclass(frozen=True, slots=True)
class Argument:
    """An argument by its type: 'number', 'context', 'arena', 'dynptr', or what may be NULL: 'memory' of `size` bytes,
    a kernel 'object' of type `type_id`, 'trusted' or not.
    """

    kind: str
    size: int = 0
    is_nullable: bool = True
    type_id: int = 0
    trust: Trust = Trust.PLAIN


def arguments_of(subject: Subject, function: Function) -> tuple[Argument, ...] | None:
    """What the types say of a global function's arguments; None when it has no types, as a static one.

    Main takes what its program type says, and is none, unless it stands for another program's function.
    """
    info = function.info
    if not info.is_global or not info.btf_id or subject.btf is None:
        return None
    if function is subject.module.main and subject.module.context.entry is None:
        return None
    type = subject.btf.type(info.btf_id)
    prototype = subject.btf.type(type.type_id) if isinstance(type, FunctionType) else None
    if not isinstance(prototype, Prototype):
        return None
    if not isinstance(subject.btf.type(subject.btf.strip(prototype.returns)), Int | Enum):
        raise Refused("global-function", f"global function '{info.name}' does not return a number")
    tags = subject.declaration_tags
    return tuple(
        _argument(subject, parameter.type_id, tags.get((info.btf_id, position), ()), position + 1)
        for position, parameter in enumerate(prototype.parameters)
    )


def _argument(subject: Subject, type_id: int, tags: Sequence[str], number: int) -> Argument:
    btf = subject.btf
    assert btf is not None
    type = btf.type(btf.strip(type_id))
    if isinstance(type, Int | Enum):
        return Argument("number")
    if not isinstance(type, PointerType):
        raise Refused(
            "global-function", f"argument {number} of a global function is neither number nor pointer"
        )
    name = btf.name(btf.strip(type.type_id)) if type.type_id else ""
    if "arg:ctx" in tags or name == _CONTEXTS.get(subject.type) or _names_context(subject, type.type_id):
        return Argument("context", is_nullable=False)
    if "arg:arena" in tags:
        return Argument("arena", is_nullable=False)
    if name == "bpf_dynptr":
        return Argument("dynptr", is_nullable=False)
    trust = next((trust for tag, trust in _OBJECT_TAGS.items() if tag in tags), None)
    if trust is not None and isinstance(btf.type(btf.strip(type.type_id)), Struct | Forward):
        return _object(subject, name, trust, "arg:nullable" in tags, number)
    try:
        size = btf.size_of(type.type_id)
    except UnreadableError:
        said = f"argument {number} of a global function points to something of no known size"
        raise Refused("global-function", said) from None
    return Argument("memory", size, "arg:nonnull" not in tags)


def _object(subject: Subject, name: str, trust: Trust, is_nullable: bool, number: int) -> Argument:
    if subject.kernel is None:
        said = f"argument {number} of a global function points to a kernel object"
        raise Refused("no-kernel-btf", said, None, "give the BTF of the kernel")
    type_id = find_struct(subject, name.split("___")[0])
    if not type_id:
        said = (
            f"argument {number} of a global function points to struct {name}, which the kernel does not have"
        )
        raise Refused("global-function", said)
    return Argument("object", 0, is_nullable, type_id, trust)


def _names_context(subject: Subject, type_id: int) -> bool:
    """Whether a type is a typedef that stands for a context."""
    assert subject.btf is not None
    return subject.type is ProgramType.KPROBE and subject.btf.name(type_id) == "bpf_user_pt_regs_t"


def entry_of(subject: Subject, function: Function, arguments: Sequence[Argument]) -> State:
    """What holds when a global function starts."""
    state = State()
    for param in function.params:
        position = param.register - 1
        if position >= len(arguments):
            raise Refused(
                "global-function", f"'{function.name}' reads r{param.register}, which its type lacks"
            )
        state.known[param] = _given(subject, function, position, arguments[position])
    return state


def _given(subject: Subject, function: Function, position: int, argument: Argument) -> Known:
    if argument.kind == "context":
        return start_of(subject.area("context", AreaKind.CONTEXT))
    if argument.kind == "arena":
        return start_of(subject.area("arena", AreaKind.ARENA))
    key = ("argument", function.name, position)
    if argument.kind == "dynptr":
        # It may be one of any sort, and is the caller's to give up.
        area = subject.area(key, AreaKind.DYNPTR, "skb")
        area.is_packet_view = True
        return start_of(area)
    if argument.kind == "object":
        return start_of(object_area(subject, key, argument.type_id, argument.trust), argument.is_nullable)
    if argument.kind == "memory":
        area = subject.area(key, AreaKind.MEMORY, f"argument {position + 1}", argument.size)
        return start_of(area, argument.is_nullable)
    return ANY


def check_call(steps: Steps, state: State, call: Call, name: str, arguments: Sequence[Argument]) -> None:
    """Check the arguments of a call of a global function; what it may write is no longer known."""
    if state.held.locked is not None:
        raise Refused("lock-held", f"call of global function '{name}' while a spin lock is held")
    passed = Passed()
    for position, (argument, value) in enumerate(zip(arguments, call.args, strict=False)):
        try:
            _check_argument(steps, state, argument, value, passed)
        except Refused as refused:
            refused.message = f"{name}: argument {position + 1}: {refused.message}"
            refused.culprit = refused.culprit or value
            if refused.code == "bad-argument":
                refused.hint = refused.hint or "pass what the function's type says"
            raise
    note_writes(steps, state, passed)
    if passed.views_skb:
        state.forget_packets(steps.subject.lost(call.at))
    state.known[call] = ANY


def _check_argument(steps: Steps, state: State, argument: Argument, value: Value, passed: Passed) -> None:
    known = state.of(value)
    if argument.kind == "number":
        if type(known) is Pointer:
            raise Refused("bad-argument", f"{known.area} pointer where a number is wanted", value)
        return
    if argument.kind == "arena":
        return
    if argument.kind == "dynptr":
        passed.dynptr = find_dynptr(state, value)
        return
    if argument.is_nullable and known == ZERO:
        return
    if type(known) is not Pointer:
        raise Refused("bad-argument", "a number where a pointer is wanted", value)
    if known.is_nullable and not argument.is_nullable:
        raise Refused("null-argument", f"{known.area} pointer may be NULL", value)
    if argument.kind == "context":
        if known.area.kind is not AreaKind.CONTEXT or known.span.mask or known.span.value:
            raise Refused("bad-argument", f"{known.area} pointer where the context is wanted", value)
        return
    if argument.kind == "object":
        _check_object(steps.subject, state, argument, known, value)
        return
    if known.area.kind not in _SHARED:
        raise Refused("bad-argument", f"{known.area} pointer where memory is wanted", value)
    check_memory(steps, state, None, known, value, argument.size, argument.size, True, passed)


def _check_object(subject: Subject, state: State, argument: Argument, known: Pointer, value: Value) -> None:
    assert subject.kernel is not None, "arguments that are kernel objects need its types"
    area, name = known.area, subject.kernel.name(argument.type_id)
    if area.kind is not AreaKind.BTF or not is_struct(subject, known, name):
        raise Refused("bad-argument", f"{area} pointer where struct {name} is wanted", value)
    if argument.trust is Trust.TRUSTED and not is_alive(subject, state, area):
        raise Refused("untrusted-pointer", f"{area} pointer is not trusted", value)
