"""One instruction: refuse it or bring the state from before it to after it.

Calls are ir/verify/helper_calls.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from ir.core import Address, Alu, Atomic, Call, Const, Frame, Function, Inst, Load, PacketLoad, Store
from ir.isa import ROW_BY_NAME, ROWS, Kind
from ir.kinds import MapType, ProgramType
from ir.object import ReferenceKind
from ir.verify.access import UNSIGNED, check_access, load, plain_range
from ir.verify.arithmetic import compute_alu
from ir.verify.kernel_objects import keeps_pointer
from ir.verify.kernel_symbols import kernel_symbol
from ir.verify.refusal import Refused
from ir.verify.scalar import Scalar, const
from ir.verify.stack import note_store, own_or_outer, read_slot, write_frame
from ir.verify.state import State
from ir.verify.subject import FRAME_SIZE, LOCKS, Subject
from ir.verify.unprivileged import (
    check_moved,
    check_no_address,
    check_not_pointer,
    check_operands,
    check_written,
)
from ir.verify.values import ANY, ZERO, Area, AreaKind, Known, Pointer, start_of

_CAST = ROW_BY_NAME["addr_space_cast"]
_DIVISIONS = frozenset(
    row.name
    for row in ROWS
    if row.kind is Kind.ALU
    and row.name.endswith("imm")
    and row.name.startswith(("div", "mod", "sdiv", "smod"))
)
_SPECIAL = _DIVISIONS | {_CAST.name}
# By names of their own, for a member of an Enum is slow to find.
_FUNCTION, _MAP = ReferenceKind.FUNCTION, ReferenceKind.MAP
_ARENA, _IN_FRAME = AreaKind.ARENA, AreaKind.FRAME
# No pointer is moved by as much as this (include/linux/bpf_verifier.h, BPF_MAX_VAR_OFF).
_FAR = 1 << 29
_FRAME_TOP = const(64, FRAME_SIZE)
_FIXED = frozenset(
    (
        *(AreaKind.MAP, AreaKind.SOCKET, AreaKind.SOCKET_COMMON, AreaKind.TCP_SOCKET, AreaKind.XDP_SOCKET),
        *(AreaKind.FUNCTION, AreaKind.DYNPTR),
    )
)
# Programs that may run where a lock is already held.
_LOCKLESS = frozenset(
    (
        *(ProgramType.SOCKET_FILTER, ProgramType.KPROBE, ProgramType.TRACEPOINT, ProgramType.PERF_EVENT),
        *(ProgramType.RAW_TRACEPOINT, ProgramType.RAW_TRACEPOINT_WRITABLE),
    )
)
_DEFERRED = ("bpf_timer", "bpf_wq")
_PACKET_LOADERS = frozenset((ProgramType.SOCKET_FILTER, ProgramType.SCHED_CLS, ProgramType.SCHED_ACT))


@final
class Steps:
    """The steps of one function; `frames` are the frames of its callers, innermost first."""

    def __init__(self, subject: Subject, function: Function, frames: tuple[Area, ...]) -> None:
        self.subject = subject
        self.function = function
        self.frame = subject.frame_of(function)
        self.frames = frames
        self.leave_packet_load: Callable[[State], None] | None = None  # what else one in a subprogram does

    def apply(self, state: State, inst: Inst) -> None:
        """Refuse `inst` or bring `state` to after it."""
        if type(inst) is Alu:  # the two most frequent first: a comparison of types is quick
            self._alu(state, inst)
            return
        if type(inst) is Load:
            if inst in state.alias:
                del state.alias[inst]
            state.known[inst] = self._load(state, inst)
            return
        match inst:
            case Const():
                pass
            case Store():
                self._store(state, inst)
            case Frame():
                state.known[inst] = Pointer(self.frame, None, FRAME_SIZE, _FRAME_TOP)
            case Address():
                state.known[inst] = self._address(inst)
            case Atomic():
                self._atomic(state, inst)
            case PacketLoad():
                self._packet_load(state, inst)
            case Call():
                raise AssertionError("calls are the explorer's")
            case _:
                raise AssertionError(f"{type(inst).__name__} has been dealt with")

    def _alu(self, state: State, inst: Alu) -> None:
        x, y, row = state.of(inst.x), state.of(inst.y), inst.row
        if row.name in _SPECIAL:
            if row is _CAST:
                state.known[inst] = start_of(self.subject.area("arena", AreaKind.ARENA))
                return
            if y == ZERO:
                raise Refused("division-by-zero", "division by the constant 0", inst.y)
        if type(x) is Pointer or type(y) is Pointer:
            if type(x) is Pointer and x.area.kind is _ARENA:
                state.known[inst] = x if row.bits == 64 else plain_number(inst)
                return
            _check_pointer_arithmetic(inst, x, y)
        if self.subject.unprivileged:
            check_operands(self.subject, inst, x, y)
        if inst in state.alias:
            del state.alias[inst]
        result = state.known[inst] = compute_alu(state, inst, x, y, self.subject.algebra)
        if self.subject.unprivileged:
            check_moved(result, inst)

    def _address(self, inst: Address) -> Known:
        reference, subject = inst.reference, self.subject
        if reference.kind is _FUNCTION:
            return start_of(subject.function_area((reference.name,)))
        map_ = subject.maps.get(reference.name)
        if map_ is None:
            return self._kernel_symbol(inst)
        if map_.type is MapType.ARENA and reference.kind is not ReferenceKind.MAP:
            return start_of(subject.area("arena", AreaKind.ARENA))
        for field in subject.special_fields(map_) if subject.type in _LOCKLESS else ():
            if (field.kind in LOCKS or field.is_root) or (
                field.kind in _DEFERRED and subject.type is not ProgramType.SOCKET_FILTER
            ):
                said = f"map '{map_.name}' with a {field.kind} in a {subject.type.name} program"
                raise Refused("map-type", said, None, "use such a map in programs of another type")
        if reference.kind is _MAP:
            return start_of(subject.map_area(map_))
        if not 0 <= reference.offset <= map_.value_size:
            said = f"offset {reference.offset} of map '{map_.name}' with values of {map_.value_size} bytes"
            raise Refused("map-value-out-of-bounds", said)
        return Pointer(subject.global_area(map_), None, reference.offset, const(64, reference.offset))

    def _kernel_symbol(self, inst: Address) -> Known:
        return kernel_symbol(self.subject, inst.reference)

    def _load(self, state: State, inst: Load) -> Known:
        row = inst.row
        pointer = check_access(self.subject, state, inst.base, inst.offset, row, writes=False)
        if pointer.area.kind is not _IN_FRAME:
            return load(self.subject, state, pointer, row, inst.offset, inst)
        if not pointer.span.mask:
            place = pointer.span.value + inst.offset
            if self.subject.unprivileged:
                check_written(state, place, row.size, f"{row.size}-byte load", inst.base)
            if state.held.objects and state.held.objects_in(pointer.area, place, place + row.size):
                raise Refused(
                    "stack-object", "load from an object that the kernel keeps on the stack", inst.base
                )
        return self._read_frame(state, pointer, inst)

    def _read_frame(self, state: State, pointer: Pointer, inst: Load | Atomic) -> Known:
        """What `inst` finds where `pointer` points into a frame, this function's or a caller's."""
        row = inst.row
        keeper = own_or_outer(state, self.frame, pointer.area, self.frames)
        if keeper is None or pointer.span.mask:
            return plain_range(row)
        place = pointer.span.value + inst.offset
        if row.size < 8 and keeper.is_pointer_at(place, row.size):
            raise Refused("partial-spill", f"{row.size}-byte load of a part of a pointer", inst.base)
        found = read_slot(keeper, place, row.size, row.signed, self.subject.program.big_endian)
        if found is None:
            return plain_range(row)
        known, value = found
        if value is not None and keeper is state and type(value) is not Const and value is not inst:
            state.alias[inst] = (value, 0)
        return known

    def _store(self, state: State, inst: Store) -> None:
        size = inst.row.size
        pointer = check_access(self.subject, state, inst.base, inst.offset, inst.row, writes=True)
        if pointer.area.kind is not _IN_FRAME:
            if self.subject.unprivileged:
                check_not_pointer(state, inst.value, f"stored into the {pointer.area}")
            self._check_stored(state, pointer, inst)
            return
        stored = state.of(inst.value)
        if type(stored) is Pointer:
            if size != 8:
                raise Refused("partial-spill", f"{size}-byte store of a {stored.area} pointer", inst.value)
            if pointer.area is not self.frame and stored.area is self.frame:
                raise Refused(
                    "stack-escape", "store of a stack pointer into a caller's stack frame", inst.value
                )
        low, high = pointer.span.smin + inst.offset, pointer.span.smax + inst.offset + size
        if self.subject.unprivileged:
            if size < 8:
                check_no_address(state, low, size, f"{size}-byte store", inst.base)
            state.written |= ((1 << size) - 1) << low
        keeper = write_frame(state, self.frame, self.frames, pointer.area, low, high)
        if keeper is not None and not pointer.span.mask:
            note_store(self.subject, keeper, state, pointer.area, low, size, inst.value)

    def _check_stored(self, state: State, pointer: Pointer, inst: Store) -> None:
        """A kernel pointer in a map, unless it is untrusted, is only stored through bpf_kptr_xchg, which gives what was there."""
        for field in self.subject.fields_of(pointer.area):
            if field.offset != pointer.span.smin + inst.offset:
                continue
            if field.kind != "kptr_untrusted":
                said = f"store into the {field.kind} of the {pointer.area}, which may hold a reference"
                raise Refused("special-field", said, inst.base, "exchange it with bpf_kptr_xchg")
            if not keeps_pointer(self.subject, state.of(inst.value), field):
                said = (
                    f"store of another than a pointer of its type into the {field.kind} of the {pointer.area}"
                )
                raise Refused("special-field", said, inst.value)

    def _atomic(self, state: State, inst: Atomic) -> None:
        size = inst.row.size
        state.alias.pop(inst, None)
        pointer = check_access(self.subject, state, inst.base, inst.offset, inst.row, writes=True)
        for value in (inst.value, inst.expected) if self.subject.unprivileged else ():
            if value is not None:
                check_not_pointer(state, value, "used by an atomic operation")
        if pointer.area.kind is AreaKind.FRAME:
            low, high = pointer.span.smin + inst.offset, pointer.span.smax + inst.offset + size
            if self.subject.unprivileged:
                check_no_address(state, low, size, "atomic operation", inst.base)
                check_written(state, low, size, "atomic operation", inst.base)
            found = self._read_frame(state, pointer, inst)
            write_frame(state, self.frame, self.frames, pointer.area, low, high)
            if type(found) is Scalar:
                state.known[inst] = found
                return
            state.alias.pop(inst, None)  # a pointer that is exchanged is a number from then on
        state.known[inst] = plain_range(inst.row)

    def _packet_load(self, state: State, inst: PacketLoad) -> None:
        if self.subject.type not in _PACKET_LOADERS:
            said = f"legacy packet load in a {self.subject.type.name} program"
            raise Refused("packet-access", said, inst.context)
        context = state.of(inst.context)
        if type(context) is not Pointer or context.area.kind is not AreaKind.CONTEXT or context.span.umax:
            raise Refused("packet-access", "legacy packet load without the context in r6", inst.context)
        held = state.held
        if held.references or held.may_not_sleep or held.objects_in_use:
            said = "legacy packet load, which may end the program, while something is held"
            raise Refused("reference-leak", said, inst.context)
        if inst.index is not None and type(state.of(inst.index)) is Pointer:
            raise Refused("packet-access", "legacy packet load with a pointer as index", inst.index)
        state.known[inst] = plain_range(inst.row) if inst.row.size < 8 else ANY
        if self.leave_packet_load is not None:
            self.leave_packet_load(state)


# What may be done with any pointer: to copy it, and what surely makes a number of it.
_SCRAMBLING: Final = ("mov", "neg", "be", "le", "bswap")


def plain_number(inst: Alu) -> Known:
    """What a 32-bit operation on an arena pointer gives."""
    return UNSIGNED[4] if inst.row.bits == 32 else ANY


def _check_pointer_arithmetic(inst: Alu, x: Known, y: Known) -> None:
    """Refuse what Linux does not let a program do with a pointer."""
    name = inst.row.name
    operation = name.split(" ")[0]
    pointer, value = (x, inst.x) if type(x) is Pointer else (y, inst.y)
    assert type(pointer) is Pointer
    if name.startswith(_SCRAMBLING):
        return
    if inst.row.bits == 32 and operation != "sub32":
        raise Refused("pointer-arithmetic", f"32-bit arithmetic on a {pointer.area} pointer", value)
    if operation not in ("add64", "sub64", "sub32"):
        raise Refused("pointer-arithmetic", f"'{operation}' on a {pointer.area} pointer", value)
    if type(x) is Pointer and type(y) is Pointer:
        if not operation.startswith("sub"):
            raise Refused("pointer-arithmetic", "sum of two pointers", value)
        return
    if pointer.is_nullable:
        hint = "compare the pointer with NULL before the arithmetic"
        raise Refused(
            "pointer-arithmetic", f"arithmetic on a {pointer.area} pointer that may be NULL", value, hint
        )
    if operation == "sub64" and type(y) is Pointer:
        raise Refused("pointer-arithmetic", "a pointer subtracted from a number", value)
    amount = y if type(x) is Pointer else x
    assert type(amount) is not Pointer
    if pointer.area.kind in _FIXED and (amount.mask or amount.value):
        raise Refused("pointer-arithmetic", f"arithmetic on a {pointer.area} pointer", value)
    if pointer.area.kind is AreaKind.FRAME and operation == "sub64":
        hint = "add a negative number"
        raise Refused("pointer-arithmetic", "subtraction from a stack pointer", value, hint)
    if pointer.area.kind is AreaKind.FLOW_KEYS and amount.mask:
        raise Refused("pointer-arithmetic", "variable offset from a flow keys pointer", value)
    if not amount.mask and not -_FAR < amount.smin < _FAR:
        said = f"offset {amount.smin} added to a {pointer.area} pointer, further than {_FAR - 1} bytes"
        raise Refused("pointer-arithmetic", said, inst.y if type(x) is Pointer else inst.x)
