"""What a program is attached to, by the kernel's types: the arguments in its context, and what it may return.

fentry/tcp_connect      FUNC tcp_connect
tp_btf/sched_switch     TYPEDEF btf_trace_sched_switch, less its first parameter
lsm/file_open           FUNC bpf_lsm_file_open
iter/task               FUNC bpf_iter_task
struct_ops              the member that the program stands for of the kernel's struct of that name
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, final

from ir.btf import Btf
from ir.btf_types import BtfKind, Function, Pointer, Prototype, Struct
from ir.kinds import AttachType, MapType, ProgramType
from ir.object import Map, Program
from ir.verify.nullable_arguments import NULLABLE_ARGUMENTS

_PREFIXES: Final[Mapping[AttachType, str]] = {
    AttachType.LSM_MAC: "bpf_lsm_",
    AttachType.LSM_CGROUP: "bpf_lsm_",
    AttachType.TRACE_ITER: "bpf_iter_",
}
_SEES_RESULT: Final = (AttachType.TRACE_FEXIT, AttachType.MODIFY_RETURN)
_LSM: Final = (AttachType.LSM_MAC, AttachType.LSM_CGROUP)
_MAX_ERRNO: Final = 4095
# Operations that take no program (their stubs in the kernel are empty), and those that may sleep where others may not.
_UNSUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {"tcp_congestion_ops": ("get_info",)}
_SLEEPABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "tcp_congestion_ops": (),
    "bpf_dummy_ops": ("test_sleepable",),
}
_CONGESTION: Final = "tcp_congestion_ops"
# Hooks whose result is a truth value (kernel/bpf/bpf_lsm.c, bool_lsm_hooks).
_BOOLEAN_HOOKS: Final = frozenset(("audit_rule_known", "inode_xattr_skipcap", "xfrm_state_pol_flow_match"))


@final
@dataclass(frozen=True, slots=True)
class Target:
    """The types of the arguments (0: one without a type), which may be NULL, and the type of the result (0: void)."""

    arguments: tuple[int, ...]
    nullable: frozenset[int]
    result: int


def find_target(program: Program, maps: Mapping[str, Map], types: Btf | None, kernel: Btf) -> Target | None:
    """What `program` is attached to; None when its section names none, or `kernel` lacks it."""
    if program.type is ProgramType.NETFILTER:
        pointers = tuple(_pointer_to(kernel, name) for name in ("nf_hook_state", "sk_buff"))
        return Target(pointers, frozenset(), 0)
    if program.type is ProgramType.STRUCT_OPS:
        return _operation(program, maps, types, kernel)
    attach = program.attach_type
    name = program.attach_target
    if attach is AttachType.TRACE_RAW_TP:
        return _tracepoint(kernel, name)
    found = _function(kernel, _PREFIXES.get(attach, "") + name if attach is not None else name)
    if found is None:
        return None
    arguments = tuple(parameter.type_id for parameter in found.parameters)
    nullable = frozenset[int]()
    if attach is AttachType.TRACE_ITER:
        # The map gone through is always there; a map, a program or a link that is gone through may be the end.
        given = {"meta"} if name == "bpf_map" else {"meta", "map"}
        nullable = frozenset(n for n, each in enumerate(found.parameters) if each.name not in given)
    if attach in _SEES_RESULT or (attach in _LSM and found.returns):
        arguments = (*arguments, found.returns)
    return Target(arguments, nullable, found.returns)


def results_of(program: Program, target: Target | None) -> tuple[int, int] | None:
    """The range that a security hook has to return by its type; None when anything may be."""
    if program.type is not ProgramType.LSM or target is None or not target.result:
        return None
    if program.attach_type is AttachType.LSM_CGROUP or program.attach_target in _BOOLEAN_HOOKS:
        return 0, 1
    return -_MAX_ERRNO, 0


def _tracepoint(kernel: Btf, name: str) -> Target | None:
    for id in kernel.find("btf_trace_" + name, BtfKind.TYPEDEF):
        pointer = kernel.type(kernel.strip(id))
        found = kernel.type(kernel.strip(pointer.type_id)) if isinstance(pointer, Pointer) else None
        if isinstance(found, Prototype):
            arguments = tuple(parameter.type_id for parameter in found.parameters[1:])
            return Target(arguments, NULLABLE_ARGUMENTS.get(name, frozenset()), found.returns)
    return None


def _function(kernel: Btf, name: str) -> Prototype | None:
    for id in kernel.find(name, BtfKind.FUNC):
        function = kernel.type(id)
        found = kernel.type(function.type_id) if isinstance(function, Function) else None
        if isinstance(found, Prototype):
            return found
    return None


def unsupported_operation(program: Program, maps: Mapping[str, Map], types: Btf | None) -> str:
    """Why no program stands for the member of a struct of operations that `program` is for, '' when one may."""
    named = _named_operation(program, maps, types)
    if named is None:
        return ""
    struct, member = named
    if member in _UNSUPPORTED.get(struct, ()):
        return f"no program stands for {member} of struct {struct}"
    if program.is_sleepable and struct in _SLEEPABLE and member not in _SLEEPABLE[struct]:
        return f"no program that sleeps stands for {member} of struct {struct}"
    return ""


def _operation(program: Program, maps: Mapping[str, Map], types: Btf | None, kernel: Btf) -> Target | None:
    """The function that `program` stands for in a struct of operations."""
    named = _named_operation(program, maps, types)
    if named is None:
        return None
    struct_name, member_name = named
    for id in kernel.find(struct_name, BtfKind.STRUCT):
        struct = kernel.type(id)
        for member in struct.members if isinstance(struct, Struct) else ():
            pointer = kernel.type(kernel.strip(member.type_id))
            if member.name != member_name or not isinstance(pointer, Pointer):
                continue
            found = kernel.type(kernel.strip(pointer.type_id))
            if isinstance(found, Prototype):
                arguments = tuple(parameter.type_id for parameter in found.parameters)
                if struct_name == _CONGESTION:
                    arguments = _as_tcp_sockets(kernel, arguments)
                return Target(arguments, _nullable(kernel, struct_name, member_name), found.returns)
    return None


def _as_tcp_sockets(kernel: Btf, arguments: tuple[int, ...]) -> tuple[int, ...]:
    """Sockets in congestion control are TCP's (net/ipv4/bpf_tcp_ca.c, bpf_tcp_ca_is_valid_access)."""
    plain, tcp = _pointer_to(kernel, "sock"), _pointer_to(kernel, "tcp_sock")
    return tuple(tcp if id == plain and tcp else id for id in arguments)


def _named_operation(program: Program, maps: Mapping[str, Map], types: Btf | None) -> tuple[str, str] | None:
    """The names of the struct and the member whose slot `program` fills."""
    for map in maps.values():
        struct = (
            types.type(map.value_btf_id) if types is not None and map.type is MapType.STRUCT_OPS else None
        )
        for offset, name in map.slots if isinstance(struct, Struct) else ():
            if name != program.name or not isinstance(struct, Struct):
                continue
            for member in struct.members:
                if member.bit_offset == 8 * offset:
                    return struct.name.split("___")[0], member.name
    return None


def _nullable(kernel: Btf, struct: str, member: str) -> frozenset[int]:
    """Arguments that may be NULL, as the names in the kernel's stub of the operation say."""
    stub = _function(kernel, f"{struct}__{member}")
    names = [parameter.name for parameter in stub.parameters] if stub is not None else []
    return frozenset(number for number, name in enumerate(names) if name.endswith(("__nullable", "__ref")))


@lru_cache(maxsize=64)
def _pointer_to(kernel: Btf, name: str) -> int:
    return kernel.pointer_to(next(iter(kernel.find(name, BtfKind.STRUCT)), 0))
