"""Whether the arguments of a helper are what its prototype asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, final

from ir.core import Call, Value
from ir.helpers import Argument, ArgumentKind, Helper
from ir.kinds import MapType
from ir.object import Map
from ir.verify.access import (
    check_allocated,
    check_bounds,
    check_map_value,
    check_packet_range,
    may_pass_packets,
)
from ir.verify.dynptrs import find_dynptr
from ir.verify.fields import SpecialField
from ir.verify.kernel_objects import check_object, is_struct
from ir.verify.refusal import Refused
from ir.verify.scalar import Scalar
from ir.verify.stack import own_or_outer, write_frame
from ir.verify.state import State
from ir.verify.steps import Steps
from ir.verify.subject import FRAME_SIZE, Subject
from ir.verify.unprivileged import check_no_address, check_not_pointer, check_written
from ir.verify.values import ZERO, Area, AreaKind, Known, Pointer, Trust

_K = ArgumentKind
# By names of their own, for a member of an Enum is slow to find.
_ANYTHING, _SIZE, _ALLOC_SIZE, _MAP = _K.ANYTHING, _K.SIZE, _K.ALLOC_SIZE, _K.MAP
_MAP_KEY, _MAP_VALUE, _MEMORY_ARGUMENT, _DYNPTR = _K.MAP_KEY, _K.MAP_VALUE, _K.MEMORY, _K.DYNPTR
# A size that may be this large counts as unbounded.
_MAX_SIZE: Final = 1 << 29
SOCKET_MAPS: Final = (MapType.SOCKMAP, MapType.SOCKHASH)
_MEMORY: Final = frozenset(
    (
        *(AreaKind.FRAME, AreaKind.PACKET, AreaKind.PACKET_META, AreaKind.MAP_KEY, AreaKind.MAP_VALUE),
        *(AreaKind.MEMORY, AreaKind.BUFFER),
    )
)
_SOCKETS: Final = frozenset(
    (AreaKind.SOCKET_COMMON, AreaKind.SOCKET, AreaKind.TCP_SOCKET, AreaKind.XDP_SOCKET)
)
_OWNED: Final = (AreaKind.OBJECT, AreaKind.PERCPU_OBJECT)
_KINDS: Final = {
    _K.CONTEXT: frozenset((AreaKind.CONTEXT,)),
    _K.MAP: frozenset((AreaKind.MAP,)),
    _K.MAP_KEY: _MEMORY,
    _K.MAP_VALUE: _MEMORY,
    _K.MEMORY: _MEMORY | {AreaKind.BTF, AreaKind.CONTEXT},
    _K.CONST_STRING: frozenset((AreaKind.MAP_VALUE,)),
    _K.FUNCTION: frozenset((AreaKind.FUNCTION,)),
    _K.SPIN_LOCK: frozenset((AreaKind.MAP_VALUE, AreaKind.OBJECT)),
    _K.TIMER: frozenset((AreaKind.MAP_VALUE,)),
    _K.KPTR: frozenset((AreaKind.MAP_VALUE, AreaKind.OBJECT)),
    _K.RECORD: frozenset((AreaKind.MEMORY,)),
    _K.SOCKET: frozenset((AreaKind.SOCKET,)),
    _K.SOCKET_COMMON: _SOCKETS,
    _K.ANY_SOCKET: _SOCKETS | {AreaKind.BTF},
    _K.BTF_POINTER: frozenset((AreaKind.BTF, AreaKind.OBJECT, AreaKind.PERCPU_OBJECT)) | _SOCKETS,
    _K.PERCPU_POINTER: frozenset((AreaKind.PERCPU, AreaKind.PERCPU_OBJECT, AreaKind.BTF)),
    _K.STACK: frozenset((AreaKind.FRAME,)),
}


@final
@dataclass(slots=True)
class Passed:
    """What the arguments of a call turned out to be."""

    map: Map | None = None
    map_pointer: Pointer | None = None
    released: Area | None = None
    released_value: Value | None = None
    alloc_size: int = 0
    most_bytes: int = 0
    function: str = ""
    socket: Pointer | None = None
    place: Pointer | None = None
    root: SpecialField | None = None
    given: Area | None = None
    locked: Area | None = None
    type_id: int = 0
    dynptr: Area | None = None
    iterator: Area | None = None
    new_dynptr: Value | None = None
    released_dynptr: Value | None = None
    key_number: int | None = None
    written: list[tuple[Pointer, int]] = field(default_factory=list)

    @property
    def views_skb(self) -> bool:
        """Whether a dynptr of a socket buffer was passed, which writing through it may move."""
        return self.dynptr is not None and self.dynptr.name.startswith("skb")


def check_arguments(steps: Steps, state: State, call: Call, helper: Helper) -> Passed:
    """Check each argument against the prototype. Raises Refused."""
    passed = Passed()
    for number, argument in enumerate(helper.arguments):
        value = call.args[number]
        try:
            _check(steps, state, call, helper, number, argument, value, passed)
        except Refused as refused:
            refused.message = f"{helper.full_name}: argument {number + 1}: {refused.message}"
            refused.culprit = refused.culprit or value
            raise
    return passed


def _check(
    steps: Steps,
    state: State,
    call: Call,
    helper: Helper,
    number: int,
    argument: Argument,
    value: Value,
    passed: Passed,
) -> None:
    known = state.of(value)
    kind = argument.kind
    if kind is _ANYTHING:
        if steps.subject.unprivileged:
            check_not_pointer(state, value, "given to a helper as a number")
        return
    if kind is _SIZE:
        _check_size(steps, state, call, helper, number, argument, passed)
        return
    if kind is _ALLOC_SIZE:
        if type(known) is not Scalar or known.mask:
            raise Refused("bad-argument", "size is not a known constant", value)
        passed.alloc_size = known.value
        return
    if argument.is_nullable and known == ZERO:
        return
    if kind is _MAP_VALUE and _takes_socket(helper, known, passed):
        return
    if kind is _DYNPTR:
        check_dynptr(state, argument, value, passed)
        return
    if type(known) is not Pointer:
        wanted = f"a {_describe(argument)} pointer"
        said = f"{_number(known)} where {wanted} is wanted"
        raise Refused("bad-argument", said, value)
    if known.area.kind not in _KINDS[kind]:
        raise Refused("bad-argument", f"{known.area} pointer where {_describe(argument)} is wanted", value)
    if known.is_nullable and not argument.is_nullable:
        said = f"{known.area} pointer may be NULL"
        raise Refused("null-argument", said, value, "compare the pointer with NULL before the call")
    _check_pointer(steps, state, helper, argument, value, known, passed)


def _takes_socket(helper: Helper, known: Known, passed: Passed) -> bool:
    """Whether a value to be stored is a socket, in a map of such."""
    if helper.name != "map_update_elem" or passed.map is None or passed.map.type not in SOCKET_MAPS:
        return False
    if type(known) is not Pointer or known.is_nullable or not known.span.is_const or known.span.value:
        return False
    return known.area.kind in _KINDS[_K.ANY_SOCKET]


def check_dynptr(state: State, argument: Argument, value: Value, passed: Passed) -> None:
    """A dynptr to be made, to be given up, or to be used."""
    if argument.writes:
        passed.new_dynptr = value
    elif argument.releases:
        passed.released_dynptr = value
    else:
        passed.dynptr = find_dynptr(state, value)


def _check_pointer(
    steps: Steps,
    state: State,
    helper: Helper,
    argument: Argument,
    value: Value,
    known: Pointer,
    passed: Passed,
) -> None:
    kind, area = argument.kind, known.area
    if argument.releases:
        _check_release(state, known, value, passed)
    if kind is _MAP:
        if passed.place is not None and not passed.place.area.is_value_of(area):
            raise Refused("bad-argument", f"another map than that of the {passed.place.area}", value)
        passed.map, passed.map_pointer = area.map, known
    elif kind is _MAP_KEY:
        assert passed.map is not None
        size = passed.map.key_size
        check_memory(steps, state, helper, known, value, size, size, argument.writes, passed)
        passed.key_number = _constant_key(steps, state, known, size)
    elif kind is _MAP_VALUE:
        assert passed.map is not None
        size = passed.map.value_size
        check_memory(steps, state, helper, known, value, size, size, argument.writes, passed, argument.reads)
    elif kind is _MEMORY_ARGUMENT and argument.size:
        size = argument.size
        check_memory(steps, state, helper, known, value, size, size, argument.writes, passed, argument.reads)
    elif kind is _K.PERCPU_POINTER:
        if area.kind is AreaKind.PERCPU_OBJECT and area.trust is not Trust.RCU:
            raise Refused("bad-argument", f"{area} is not surely kept by a map", value)
    elif kind is _K.FUNCTION:
        passed.function = area.name
    elif kind is _K.CONST_STRING:
        check_string(steps.subject, known, value)
    elif kind in (_K.SPIN_LOCK, _K.TIMER, _K.KPTR):
        _check_field(steps.subject, state, kind, known, value)
        passed.map = passed.map or area.map
        passed.place = known
    elif kind in (_K.CONTEXT, _K.RECORD, _K.SOCKET, _K.SOCKET_COMMON, _K.ANY_SOCKET, _K.BTF_POINTER):
        if (known.span.mask or known.span.value) and kind is not _K.BTF_POINTER:
            raise Refused("bad-argument", f"{area} pointer was moved by {known.span}", value)
        if kind is _K.RECORD and not area.is_held:
            raise Refused("bad-argument", f"{area} was not reserved in a ring buffer", value)
        if area.kind in _OWNED and argument.btf != "*":
            raise Refused("bad-argument", f"{area} where struct {argument.btf} is wanted", value)
        if area.kind is AreaKind.BTF:
            _check_object(steps.subject, argument, known, value)
        passed.socket = known


def _check_release(state: State, known: Pointer, value: Value, passed: Passed) -> None:
    owner = known.area.owner or known.area
    if owner not in state.held.references:
        raise Refused("bad-release", f"{known.area} holds no reference to give up", value)
    if known.span.mask or known.span.value:
        raise Refused("bad-release", f"pointer to {known.area} was moved since it was acquired", value)
    passed.released, passed.released_value = owner, value


def _check_object(subject: Subject, argument: Argument, known: Pointer, value: Value) -> None:
    if known.area.trust is Trust.UNTRUSTED:
        raise Refused("untrusted-pointer", f"{known.area} pointer is not trusted", value)
    wanted = argument.btf
    if argument.kind is not _K.BTF_POINTER or wanted in ("", "*") or not known.area.type_id:
        return
    if subject.kernel is not None and not is_struct(subject, known, wanted):
        raise Refused("bad-argument", f"struct {known.area.name} where struct {wanted} is wanted", value)


def _check_size(
    steps: Steps, state: State, call: Call, helper: Helper, number: int, argument: Argument, passed: Passed
) -> None:
    """A number of bytes, and the memory before it that has to have them."""
    value = call.args[number]
    known = state.of(value)
    if type(known) is not Scalar:
        raise Refused("bad-argument", "pointer where a size is wanted", value)
    if known.smin < 0:
        said = f"size may be negative ({known.smin})"
        raise Refused("bad-size", said, value, "use an unsigned type, or compare the size with 0")
    if known.umax >= _MAX_SIZE:
        said = f"size is not bounded (up to {known.umax:#x})"
        raise Refused("bad-size", said, value, "bound the size with a comparison or a mask before the call")
    if known.umin == 0 and not argument.may_be_zero:
        raise Refused("bad-size", "size may be 0", value, "compare the size with 0 before the call")
    passed.most_bytes = known.umax
    memory, place = helper.arguments[number - 1], call.args[number - 1]
    pointer = state.of(place)
    if type(pointer) is not Pointer:
        if known.umax:
            raise Refused("bad-argument", f"NULL with a size of up to {known.umax}", place)
        return
    try:
        least, most = known.umin, known.umax
        check_memory(steps, state, helper, pointer, place, least, most, memory.writes, passed, memory.reads)
    except Refused as refused:
        refused.culprit = value if known.mask else place
        raise


def check_memory(
    steps: Steps,
    state: State,
    helper: Helper | None,
    pointer: Pointer,
    value: Value,
    least: int,
    most: int,
    writes: bool,
    passed: Passed,
    reads: bool = True,
) -> None:
    """Refuse unless a helper may touch `most` bytes at `pointer`. It `reads` them unless they are only written."""
    area = pointer.area
    what = f"{'write' if writes else 'read'} of {most} bytes"
    if writes and not area.writable:
        raise Refused("read-only", f"{what} to read-only {area}", value)
    if most == 0:
        return
    if area.kind is AreaKind.FRAME:
        low, high = pointer.span.smin, pointer.span.smax + most
        if low < 0 or high > FRAME_SIZE:
            said = f"{what} at stack offset {low - FRAME_SIZE}, outside [-{FRAME_SIZE}, 0)"
            raise Refused("stack-out-of-bounds", said, value)
        steps.subject.note_stack(area, low)
        if steps.subject.unprivileged:
            check_no_address(state, low, most, what, value)
            if helper is None or reads or least != most:
                check_written(state, low, most, what, value)
        if state.held.objects_in(area, low, high):
            raise Refused("stack-object", f"{what} of an object that the kernel keeps on the stack", value)
    elif area.kind in (AreaKind.PACKET, AreaKind.PACKET_META):
        if helper is not None and not helper.takes_packet:
            raise Refused("bad-argument", "the helper does not take packet pointers", value)
        if not may_pass_packets(steps.subject, writes):
            said = f"{what} of the packet is not allowed in {steps.subject.type.name} programs"
            raise Refused("packet-access", said, value)
        check_packet_range(state, pointer, 0, most, what, value)
    elif area.kind is AreaKind.MAP_VALUE:
        check_map_value(steps.subject, pointer, 0, most, not writes, what, value)
    elif area.kind is AreaKind.CONTEXT:
        if steps.subject.type.name != "SYSCALL":
            raise Refused("bad-argument", "context where memory is wanted", value)
    elif area.kind is AreaKind.OBJECT:
        check_allocated(steps.subject, state, pointer, 0, most, what, value)
    elif area.kind is AreaKind.BTF:
        check_object(steps.subject, pointer, 0, most, writes, what, value)
    else:
        check_bounds(state, pointer, 0, most, what, value)
    if writes and helper is not None and least == most and most in (4, 8) and area.kind is AreaKind.FRAME:
        _check_aligned(helper, pointer, most, value)
    if writes:
        passed.written.append((pointer, most))


def _check_aligned(helper: Helper, pointer: Pointer, size: int, value: Value) -> None:
    """What a helper writes as one number of a fixed size has to be aligned to it."""
    is_fixed = any(argument.writes and argument.size == size for argument in helper.arguments)
    if is_fixed and (pointer.span.mask | pointer.span.value) & (size - 1):
        raise Refused(
            "misaligned-stack", f"write of {size} bytes to a place that is not aligned to them", value
        )


def note_writes(steps: Steps, state: State, passed: Passed) -> None:
    """After the checks: what the helper may write is no longer known."""
    for pointer, size in passed.written:
        if pointer.area.kind is AreaKind.FRAME:
            low, high = pointer.span.smin, pointer.span.smax + size
            write_frame(state, steps.frame, steps.frames, pointer.area, low, high)
            if steps.subject.unprivileged:
                state.written |= ((1 << size) - 1) << low


def _constant_key(steps: Steps, state: State, known: Pointer, size: int) -> int | None:
    """The number that a key on the stack is, if it is known."""
    from ir.verify.stack import read_slot

    if known.area.kind is not AreaKind.FRAME or known.span.mask or size not in (1, 2, 4, 8):
        return None
    keeper = own_or_outer(state, steps.frame, known.area, steps.frames)
    if keeper is None:
        return None
    found = read_slot(keeper, known.span.value, size, False, steps.subject.program.big_endian)
    if found is None or type(found[0]) is not Scalar or found[0].mask:
        return None
    return found[0].value


def check_string(subject: Subject, known: Pointer, value: Value) -> None:
    """Refuse what is no NUL-ended string in a read-only map."""
    map_ = known.area.map
    if map_ is None or not subject.is_frozen(map_) or known.span.mask:
        raise Refused("bad-argument", "string is not in a read-only map at a constant offset", value)
    if b"\0" not in (map_.initial or b"")[known.span.value :]:
        raise Refused("bad-argument", "string does not end in NUL", value)


_FIELDS: Final = {
    _K.SPIN_LOCK: ("bpf_spin_lock",),
    _K.TIMER: ("bpf_timer",),
    _K.KPTR: ("kptr", "percpu_kptr"),
}


def _check_field(subject: Subject, state: State, kind: ArgumentKind, known: Pointer, value: Value) -> None:
    area, wanted = known.area, _FIELDS[kind]
    if area.kind is AreaKind.OBJECT and area not in state.held.references:
        raise Refused("bad-argument", f"{area} is not the program's own", value)
    if not known.span.mask:
        for found in subject.fields_of(area):
            if found.offset == known.span.value and found.kind in wanted:
                return
    raise Refused("bad-argument", f"no {wanted[0]} there in the {area}", value)


def _describe(argument: Argument) -> str:
    return f"struct {argument.btf}" if argument.btf else argument.kind.name.lower().replace("_", " ")


def _number(known: Known) -> str:
    return f"the number {known}" if type(known) is Scalar and not known.mask else "a number"
