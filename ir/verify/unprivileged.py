"""The stricter rules for programs that are loaded without CAP_BPF and CAP_PERFMON.

Whoever loads such a program must not learn kernel addresses from it, nor what the stack held before, nor have the
processor look, while it speculates, where the program may not:

    structure     socket_filter and cgroup_skb only, 4096 instructions, no loop, no function but main
    addresses     are not stored but on the stack, returned, passed as a number, compared, nor taken apart
    stack         is read where it was written on every way, at constant offsets
    arithmetic    moves a pointer by an amount of one sign, and not out of what it points into
    joins         a value is never a pointer on one way and a number on another

Sources: kernel/bpf/verifier.c (allow_ptr_leaks, allow_uninit_stack, bypass_spec_v1, bpf_capable), kernel/bpf/helpers.c
(bpf_base_func_proto), net/core/filter.c (cg_skb_is_valid_access), kernel/bpf/syscall.c (bpf_prog_load).
"""

from __future__ import annotations

from typing import Final

from ir.core import Address, Alu, Branch, Call, Value
from ir.isa import Callee
from ir.kinds import ProgramType
from ir.object import ReferenceKind
from ir.verify.outline import Outline
from ir.verify.refine import Relation, test_of
from ir.verify.refusal import Refused
from ir.verify.state import State
from ir.verify.subject import FRAME_SIZE, Subject
from ir.verify.values import ZERO, Area, AreaKind, Known, Pointer, start_of

HELPERS: Final = frozenset(
    (
        *(1, 2, 3, 5, 7, 8, 12, 14, 25, 26, 42, 46, 47, 68, 79, 81, 83, 84, 85, 86, 87, 88, 89, 95, 96, 97),
        *(98, 99, 105, 106, 107, 108, 120, 122, 125, 128, 129, 130, 131, 132, 133, 134, 160, 182, 195, 208),
    )
)
GONE: Final = start_of(Area(AreaKind.UNKNOWN, "object that was released"))
"""What a pointer to a released object is: its address must not become a number."""

_TYPES: Final = (ProgramType.SOCKET_FILTER, ProgramType.CGROUP_SKB)
_MOST_INSNS: Final = 4096
_MOVABLE: Final = (AreaKind.FRAME, AreaKind.MAP_VALUE)
# Pointers that Linux does not know not to be NULL (kernel/bpf/verifier.c, reg_not_null).
_NEVER_COMPARED: Final = (AreaKind.CONTEXT, AreaKind.FRAME)
# __sk_buff.data, data_end and tstamp are for CAP_BPF (net/core/filter.c, cg_skb_is_valid_access).
_PACKET_FIELDS: Final = range(76, 84)
_TIME_STAMP: Final = range(152, 160)


def check_structure(subject: Subject, outline: Outline) -> None:
    """Refuse what is wrong with the program as a whole, whatever its values are."""
    if subject.type not in _TYPES:
        raise _needs(0, f"programs of type {subject.type.name}")
    if len(subject.program.insns) > _MOST_INSNS:
        raise _needs(0, f"programs of more than {_MOST_INSNS} instructions")
    for inst in subject.module.main.insts():
        if type(inst) is Call and inst.callee is not Callee.HELPER:
            raise _needs(inst.at, "calls of functions")
        if type(inst) is Address and inst.reference.kind is ReferenceKind.FUNCTION:
            raise _needs(inst.at, "addresses of functions")
    for loop in outline.loops.heads.values():
        raise _needs(loop.latches[-1].terminator.at, "loops")


def check_context(place: int, writes: bool) -> None:
    """Refuse fields of the context that take a capability."""
    if place in (_TIME_STAMP if writes else _PACKET_FIELDS):
        raise Refused("unprivileged", f"the context's field at offset {place} takes CAP_BPF")


def check_kernel_memory(what: str, base: Value) -> None:
    """Refuse access to the kernel's own structures."""
    raise Refused("unprivileged", f"{what} of a kernel structure takes CAP_PERFMON", base)


def check_not_pointer(state: State, value: Value, where: str) -> None:
    """Refuse to let an address get to `where`."""
    known = state.of(value)
    if type(known) is Pointer:
        raise Refused("pointer-leak", f"address of the {known.area} {where}", value)


def check_comparison(state: State, branch: Branch) -> None:
    """Addresses are compared with NULL only."""
    x, y = state.of(branch.x), state.of(branch.y)
    if type(y) is Pointer:
        raise Refused("pointer-leak", f"comparison with the address of the {y.area}", branch.y)
    if type(x) is not Pointer:
        return
    test = test_of(branch.row)
    with_null = test.relation is Relation.EQ and test.bits == 64 and y == ZERO
    is_immediate = branch.row.name.endswith("imm")
    if with_null and (is_immediate if x.is_nullable else x.area.kind not in _NEVER_COMPARED):
        return
    raise Refused("pointer-leak", f"comparison of the address of the {x.area}", branch.x)


def check_operands(subject: Subject, inst: Alu, x: Known, y: Known) -> None:
    """Refuse arithmetic on addresses that gives numbers, or that may go astray in speculation.

    An instruction that adds a register is guarded for pointers and one sign of the amount, or for numbers.
    """
    name = inst.row.name
    is_sum = name.startswith(("add", "sub"))
    if type(x) is not Pointer and type(y) is not Pointer:
        if is_sum and name.endswith("reg"):
            _note_guard(subject, inst, ("number",))
        return
    pointer, amount, value = (x, y, inst.y) if type(x) is Pointer else (y, x, inst.x)
    assert type(pointer) is Pointer
    if not is_sum or inst.row.bits == 32 or type(amount) is Pointer:
        raise Refused("pointer-leak", f"'{name.split(' ')[0]}' on the address of the {pointer.area}", inst.x)
    if not name.endswith("reg"):
        return
    if pointer.area.kind not in _MOVABLE:
        said = f"a register added to a {pointer.area} pointer"
        raise Refused("speculation", said, value, "add a constant of the instruction")
    if amount.mask and amount.smin < 0 <= amount.smax:
        said = f"amount added to a {pointer.area} pointer may be negative and positive: {amount}"
        raise Refused("speculation", said, value, "use an unsigned type, or compare the amount with 0")
    _note_guard(subject, inst, ("pointer", amount.smin < 0, not amount.mask))


def _note_guard(subject: Subject, inst: Alu, guard: tuple[object, ...]) -> None:
    if subject.guards.setdefault(inst, guard) != guard:
        said = "the same instruction moves a pointer up, down, or adds numbers on different ways"
        raise Refused("speculation", said, inst.x, "write it once for each of them")


def check_moved(moved: Known, inst: Alu) -> None:
    """A pointer stays in what it points into."""
    if type(moved) is not Pointer or moved.area.kind not in _MOVABLE:
        return
    if moved.area.kind is AreaKind.FRAME:
        if moved.span.mask:
            raise Refused("speculation", "variable offset from the stack pointer", inst.y)
        if not 0 <= moved.span.smin < FRAME_SIZE:
            where = moved.span.smin - FRAME_SIZE
            raise Refused(
                "speculation", f"pointer to stack offset {where}, outside [-{FRAME_SIZE}, 0)", inst.x
            )
    elif moved.span.smin < 0 or moved.span.smax >= moved.area.size:
        said = f"pointer to bytes {moved.span} of a value of map '{moved.area.name}', which has {moved.area.size}"
        raise Refused("speculation", said, inst.y)


def check_written(state: State, low: int, size: int, what: str, value: Value) -> None:
    """Refuse to read stack bytes from `low` on that were not written on every way here."""
    wanted = ((1 << size) - 1) << low
    if wanted & ~state.written:
        at = next(place for place in range(low, low + size) if not state.written >> place & 1) - FRAME_SIZE
        raise Refused("uninitialized-stack", f"{what}: stack offset {at} is not written on every way", value)


def check_no_address(state: State, low: int, size: int, what: str, value: Value) -> None:
    """Refuse to touch a pointer that was spilled to the stack, but whole, as one."""
    if state.is_pointer_at(low, size):
        raise Refused("pointer-leak", f"{what} of stack bytes that hold an address", value)


def mixes_pointers(a: State, b: State) -> bool:
    """Whether some value or stack slot is a pointer in one state and a number, or another sort of pointer, in the other."""
    for known, other in ((a.known, b.known), (b.known, a.known)):
        for value, fact in known.items():
            if type(fact) is Pointer and not _is_alike(fact, other.get(value)):
                return True
    for state, there in ((a, b), (b, a)):
        for offset, (_, value) in state.stack.items():
            fact = state.of(value)
            if type(fact) is Pointer:
                slot = there.stack.get(offset)
                if slot is None:
                    if there.written >> offset & 0xFF:
                        return True
                elif not _is_alike(fact, there.of(slot[1])):
                    return True
    return False


def _is_alike(a: Pointer, b: Known | None) -> bool:
    return type(b) is Pointer and (a.area is b.area or a.area.is_like(b.area))


def _needs(at: int, what: str) -> Refused:
    refused = Refused("unprivileged", f"{what} take CAP_BPF")
    refused.at = at
    return refused
