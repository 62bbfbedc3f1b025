"""Whether an access is allowed, by the sort of memory it is to; and what a load finds there."""

from __future__ import annotations

from typing import Final

from ir.core import Value
from ir.isa import ROWS, Kind, Row
from ir.kinds import ProgramType
from ir.verify.contexts import ContextRules, Field, Fields
from ir.verify.indirect import load_function
from ir.verify.kernel_objects import check_object, load_object
from ir.verify.refusal import Refused
from ir.verify.scalar import Scalar, between, between_signed, const
from ir.verify.state import State, pointer_room
from ir.verify.subject import FRAME_SIZE, Subject
from ir.verify.unprivileged import check_context, check_kernel_memory
from ir.verify.values import ANY, Area, AreaKind, Known, Pointer, Trust, length_symbol, start_of

UNSIGNED: Final = {size: between(64, 0, (1 << 8 * size) - 1) for size in (1, 2, 4)} | {8: ANY}
SIGNED: Final = {
    size: between_signed(64, -1 << (8 * size - 1), (1 << (8 * size - 1)) - 1) for size in (1, 2, 4)
} | {8: ANY}

_T = ProgramType
_PACKET_READERS: Final = frozenset(
    (
        *(_T.LWT_IN, _T.LWT_OUT, _T.LWT_SEG6LOCAL, _T.SK_REUSEPORT, _T.FLOW_DISSECTOR, _T.CGROUP_SKB),
        *(_T.SCHED_CLS, _T.SCHED_ACT, _T.XDP, _T.LWT_XMIT, _T.SK_SKB, _T.SK_MSG, _T.CGROUP_SOCKOPT),
    )
)
_PACKET_WRITERS: Final = frozenset(
    (_T.SCHED_CLS, _T.SCHED_ACT, _T.XDP, _T.LWT_XMIT, _T.SK_SKB, _T.SK_MSG, _T.CGROUP_SOCKOPT)
)
_SOCKETS: Final = (AreaKind.SOCKET_COMMON, AreaKind.SOCKET, AreaKind.TCP_SOCKET, AreaKind.XDP_SOCKET)
# kernel/bpf/verifier.c, atomic_ptr_type_ok.
_NOT_ATOMIC: Final = (
    *(AreaKind.CONTEXT, AreaKind.PACKET, AreaKind.PACKET_META, AreaKind.FLOW_KEYS),
    *_SOCKETS,
)
# By names of their own, for a member of an Enum is slow to find.
_FRAME, _PACKET, _MAP_VALUE, _CONTEXT = AreaKind.FRAME, AreaKind.PACKET, AreaKind.MAP_VALUE, AreaKind.CONTEXT
_META, _OBJECT, _ARENA, _UNTRUSTED = AreaKind.PACKET_META, AreaKind.OBJECT, AreaKind.ARENA, Trust.UNTRUSTED
_KERNELS: Final = (AreaKind.BTF, AreaKind.MAP)
_ATOMIC: Final = Kind.ATOMIC
_ACCESSES: Final = {
    row.name: f"{row.size}-byte {'atomic access' if row.is_atomic else row.kind.name.lower()}"
    for row in ROWS
    if row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC)
}
_WIDTHS: Final = (1, 2, 4, 8)
_PLAIN: Final = (AreaKind.MEMORY, AreaKind.BUFFER, AreaKind.MAP_KEY, AreaKind.FLOW_KEYS)


def may_pass_packets(subject: Subject, writes: bool) -> bool:
    """Whether programs of this type may give packet bytes to helpers, to be read or written."""
    return subject.type in (_PACKET_WRITERS if writes else _PACKET_READERS)


def may_write_packets(subject: Subject) -> bool:
    """Whether programs of this type may store into packets."""
    return subject.type in _PACKET_WRITERS


def plain_range(row: Row) -> Scalar:
    """What a load of the row may give when nothing is known of the memory."""
    return (SIGNED if row.signed else UNSIGNED)[row.size]


def check_pointer(state: State, base: Value, what: str) -> Pointer:
    """The pointer that `base` is; refused when it is none or may be NULL."""
    known = state.of(base)
    if type(known) is not Pointer:
        raise Refused("not-a-pointer", f"{what} through {_describe(known)}, which is no pointer", base)
    if known.is_nullable:
        hint = "compare the pointer with NULL before this access"
        raise Refused(
            "null-dereference", f"{what} through a pointer to the {known.area} that may be NULL", base, hint
        )
    return known


def check_access(subject: Subject, state: State, base: Value, offset: int, row: Row, writes: bool) -> Pointer:
    """Refuse an access as `row` does, at base + offset, that may go wrong; the pointer it goes through."""
    size = row.size
    what = _ACCESSES[row.name]
    pointer = check_pointer(state, base, what)
    area = pointer.area
    kind = area.kind
    if writes and not area.writable:
        raise Refused("read-only", f"{what} to read-only {area}", base)
    if row.is_atomic and kind in _NOT_ATOMIC:
        raise Refused("bad-atomic", f"{what} to {area}", base)
    if kind is _FRAME:
        _check_frame(pointer, offset, size, what, base)
        subject.note_stack(area, pointer.span.smin + offset)
    elif kind is _MAP_VALUE:
        check_map_value(
            subject, pointer, offset, size, not writes or row.kind is _ATOMIC, what, base, row.is_atomic
        )
    elif kind is _PACKET or kind is _META:
        _check_packet(subject, state, pointer, offset, size, writes, what, base)
    elif kind is _CONTEXT:
        _check_context(subject, pointer, offset, size, writes, what, base)
    elif kind in _PLAIN:
        check_bounds(state, pointer, offset, size, what, base)
    elif kind is _OBJECT:
        check_allocated(subject, state, pointer, offset, size, what, base)
    elif kind in _SOCKETS:
        _check_socket(pointer, offset, size, writes, what, base)
    elif kind in _KERNELS:
        if subject.unprivileged:
            check_kernel_memory(what, base)
        check_object(subject, pointer, offset, size, writes, what, base)
    elif kind is not _ARENA:
        raise Refused("bad-access", f"{what} through a pointer to a {area}", base)
    if row.is_atomic and not _is_aligned(pointer, offset, row.size):
        said = f"{what} at offset {pointer.span.smin + offset} of the {area} is not aligned to {row.size}"
        raise Refused("misaligned-atomic", said, base)
    return pointer


def load(subject: Subject, state: State, pointer: Pointer, row: Row, offset: int, inst: Value) -> Known:
    """What a checked load finds, but for the stack."""
    area = pointer.area
    if area.kind is _CONTEXT:
        return _load_context(subject, state, pointer.span.value + offset, row, inst)
    if area.kind is _MAP_VALUE:
        return _load_map_value(subject, state, pointer, row, offset, inst)
    if area.kind in _KERNELS:
        return load_object(subject, state, pointer, row, offset, inst)
    if area.kind is _OBJECT:
        return _load_field(subject, state, pointer, row, offset, inst)
    return plain_range(row)


def check_bounds(state: State, pointer: Pointer, offset: int, size: int, what: str, base: Value) -> None:
    """Refuse unless the bytes surely lie in the pointer's area."""
    low, high = pointer.span.smin + offset, pointer.span.smax + offset + size
    if low >= 0 and high <= pointer.area.size:
        return
    if low >= 0 and pointer.area.length is not None:
        room = pointer_room(state, pointer)
        if room is not None and offset + size <= room:
            return
    if low < 0:
        said = f"{what} at offset {low} of the {pointer.area}, before its start"
        raise Refused("out-of-bounds", said, base, _sign_hint(pointer))
    said = f"{what} may reach byte {high} of the {pointer.area}, which has {pointer.area.size}"
    raise Refused("out-of-bounds", said, base, _range_hint(pointer))


def _check_frame(pointer: Pointer, offset: int, size: int, what: str, base: Value) -> None:
    low, high = pointer.span.smin + offset - FRAME_SIZE, pointer.span.smax + offset - FRAME_SIZE
    if low < -FRAME_SIZE or high + size > 0:
        where = f"stack offset {low}" if low == high else f"stack offsets {low}..{high}"
        said = f"{what} at {where}, outside [-{FRAME_SIZE}, 0)"
        raise Refused("stack-out-of-bounds", said, base, _range_hint(pointer))
    if not _is_aligned(pointer, offset, size):
        if low == high:
            said = f"{what} at stack offset {low} is not aligned to {size}"
        else:
            said = f"{what} at stack offsets {low}..{high}, not all of which are aligned to {size}"
        raise Refused("misaligned-stack", said, base)


def _is_aligned(pointer: Pointer, offset: int, size: int) -> bool:
    """Whether pointer + offset is surely a multiple of `size` bytes from the start of its area."""
    span = pointer.span
    return not span.mask & (size - 1) and not (span.value + offset) & (size - 1)


def _check_packet(
    subject: Subject,
    state: State,
    pointer: Pointer,
    offset: int,
    size: int,
    writes: bool,
    what: str,
    base: Value,
) -> None:
    if writes and not may_write_packets(subject):
        said = f"{what} into the packet is not allowed in {subject.type.name} programs"
        raise Refused("packet-access", said, base)
    check_packet_range(state, pointer, offset, size, what, base)


def check_packet_range(
    state: State, pointer: Pointer, offset: int, size: int, what: str, base: Value
) -> None:
    """Refuse unless the bytes are surely before the packet's end."""
    if pointer.span.smin + offset < 0:
        said = f"{what} at offset {pointer.span.smin + offset} of the {pointer.area}, before its start"
        raise Refused("packet-out-of-bounds", said, base, _sign_hint(pointer))
    room = pointer_room(state, pointer)
    if room is None or offset + size > room:
        end = "data" if pointer.area.kind is _META else "data_end"
        sure = max(room or 0, 0)
        said = f"{what} at {offset} from a {pointer.area} pointer that is known to have {sure} bytes before {end}"
        hint = f"compare the pointer plus {offset + size} with {end} before this access"
        raise Refused("packet-out-of-bounds", said, base, hint)


def check_map_value(
    subject: Subject,
    pointer: Pointer,
    offset: int,
    size: int,
    reads: bool,
    what: str,
    base: Value,
    is_bytes: bool = True,
) -> None:
    """Refuse what may leave a map value, touches one of its special fields, or `reads` where only writing is allowed.

    `is_bytes`: it is no plain load or store, by which a pointer that is kept there may be touched.
    """
    area = pointer.area
    low, high = pointer.span.smin + offset, pointer.span.smax + offset + size
    assert area.map is not None
    if low < 0 or high > area.size:
        where = f"bytes {low}..{high - 1}" if low != high - size or size > 1 else f"byte {low}"
        said = f"{what} at {where} of a value of map '{area.name}', which has {area.size}"
        raise Refused("map-value-out-of-bounds", said, base, _range_hint(pointer))
    if reads and not subject.may_load(area.map):
        raise Refused("write-only", f"{what} from write-only map '{area.name}'", base)
    _check_fields(subject, pointer, low, high, what, base, is_bytes)


def _check_fields(
    subject: Subject, pointer: Pointer, low: int, high: int, what: str, base: Value, is_bytes: bool = True
) -> None:
    """Refuse what touches, within bytes low..high, a field that is not for programs; pointers are touched whole."""
    for field in subject.fields_of(pointer.area):
        if field.offset < high and low < field.offset + field.size:
            is_whole = (low, high) == (field.offset, field.offset + field.size) and pointer.span.is_const
            if is_bytes or not (field.is_pointer and is_whole):
                said = f"{what} touches the {field.kind} at byte {field.offset} of the {pointer.area}"
                raise Refused("special-field", said, base)


def check_allocated(
    subject: Subject, state: State, pointer: Pointer, offset: int, size: int, what: str, base: Value
) -> None:
    """Refuse what leaves an object that the program allocated, or one that may be gone."""
    if pointer.area.trust is _UNTRUSTED:
        said = f"{what} through a pointer to a {pointer.area} that may be gone"
        raise Refused("untrusted-pointer", said, base)
    check_bounds(state, pointer, offset, size, what, base)
    low, high = pointer.span.smin + offset, pointer.span.smax + offset + size
    _check_fields(subject, pointer, low, high, what, base)


def _load_map_value(
    subject: Subject, state: State, pointer: Pointer, row: Row, offset: int, inst: Value
) -> Known:
    map_ = pointer.area.map
    assert map_ is not None
    is_known = subject.is_frozen(map_) and pointer.area.is_single
    if is_known and map_.tables and row.size == 8:
        function = load_function(subject, state, pointer, inst)
        if function is not None:
            return function
    if pointer.span.mask:
        return plain_range(row)
    place = pointer.span.value + offset
    if is_known and not any(at < place + row.size and place < at + size for at, size in map_.relocated):
        content = (map_.initial or b"").ljust(map_.value_size, b"\0")[place : place + row.size]
        number = int.from_bytes(content, "big" if subject.program.big_endian else "little", signed=row.signed)
        return const(64, number)
    return _load_field(subject, state, pointer, row, offset, inst)


def _load_field(
    subject: Subject, state: State, pointer: Pointer, row: Row, offset: int, inst: Value
) -> Known:
    """What a load of a kernel pointer that a value or an object keeps gives, or of other bytes."""
    for field in subject.fields_of(pointer.area) if not pointer.span.mask else ():
        if field.offset == pointer.span.value + offset and field.is_pointer:
            return load_object(subject, state, pointer, row, offset, inst, field)
    return plain_range(row)


def _check_context(
    subject: Subject, pointer: Pointer, offset: int, size: int, writes: bool, what: str, base: Value
) -> None:
    if pointer.span.mask or pointer.span.value:
        said = f"{what} through a context pointer that was moved"
        raise Refused("context-access", said, base, "access the context at constant offsets from r1")
    if subject.module.context.is_raw or subject.context is None:
        check_object(subject, pointer, offset, size, writes, what, base)
        return
    if subject.unprivileged:
        check_context(offset, writes)
    fields = subject.context.writable if writes else subject.context.readable
    if fields.find(offset, size) is not None:
        return
    said = f"{what} at offset {offset} of the context is not allowed in {_program_name(subject)} programs"
    addition, hint = _why_no_store(subject.context, offset) if writes else ("", "")
    raise Refused("context-access", said + addition, base, hint)


def _why_no_store(context: ContextRules, offset: int) -> tuple[str, str]:
    """What to add of a store that a field does not take, and what would help."""
    if not _has_field(context.readable, offset):
        return "", "no field that may be written is there"
    if _has_field(context.writable, offset):
        return ", which write other widths there", "write the whole field, with the width that it has"
    return ", which may only read what is there", "leave the field as it is"


def _has_field(fields: Fields, offset: int) -> bool:
    return any(fields.find(offset, width) is not None for width in _WIDTHS)


def _program_name(subject: Subject) -> str:
    attach = f"/{subject.attach_type.name}" if subject.attach_type is not None else ""
    return f"{subject.type.name}{attach}"


def _load_context(subject: Subject, state: State, place: int, row: Row, inst: Value) -> Known:
    if subject.context is None:
        return load_object(subject, state, start_of(Area(AreaKind.CONTEXT)), row, place, inst)
    field = subject.context.readable.find(place, row.size)
    assert field is not None, "the access was checked"
    if not field.holds:
        return plain_range(row)
    if row.signed:
        raise Refused("context-access", f"sign-extending load of a pointer at offset {place} of the context")
    if field.holds in ("data", "end", "meta"):
        return _packet_pointer(subject, state, field, inst)
    if field.area_kind is AreaKind.SOCKET or field.area_kind is AreaKind.SOCKET_COMMON:
        area = subject.area(("context", place), field.area_kind, writable=False)
        return start_of(area, field.is_nullable)
    if field.area_kind is AreaKind.FLOW_KEYS:
        return start_of(subject.area("flow keys", AreaKind.FLOW_KEYS, size=56))
    if field.area_kind is AreaKind.BUFFER:
        return start_of(subject.area("buffer", AreaKind.BUFFER, size=1 << 16))
    return load_object(subject, state, start_of(Area(AreaKind.CONTEXT)), row, place, inst)


def _packet_pointer(subject: Subject, state: State, field: Field, inst: Value) -> Pointer:
    packet = state.packet
    if packet is None:
        packet = subject.area(("packet", inst), AreaKind.PACKET)
        if packet.length is None:
            packet.length = length_symbol()
            packet.meta = Area(AreaKind.PACKET_META, length=length_symbol())
            packet.is_single = True
        state.start_packet(packet)
    assert packet.length is not None
    assert packet.meta is not None
    if field.holds == "data":
        return start_of(packet)
    if field.holds == "end":
        return Pointer(packet, packet.length, 0, state.number(packet.length))
    return start_of(packet.meta)


_SOCK_PARTS: Final = ((4, 16), (24, 48), (52, 80))
_SOCK_READS: Final = frozenset(
    [(offset, 4) for offset in range(0, 80, 4)]
    + [(at, size) for size in (1, 2) for low, high in _SOCK_PARTS for at in range(low, high, size)]
    + [(48, 2), (48, 1), (49, 1)]
)
_TCP_READS: Final = frozenset(
    [(offset, 4) for offset in (*range(0, 80, 4), 96, 100, 104, 108)] + [(80, 8), (88, 8)]
)


def _check_socket(pointer: Pointer, offset: int, size: int, writes: bool, what: str, base: Value) -> None:
    area = pointer.area
    if writes:
        raise Refused("read-only", f"{what} into {area.kind.value}", base)
    if pointer.span.mask or pointer.span.value:
        raise Refused("socket-access", f"{what} through a moved pointer to {area.kind.value}", base)
    if area.kind is AreaKind.XDP_SOCKET:
        allowed = (offset, size) == (0, 4)
    elif area.kind is AreaKind.TCP_SOCKET:
        allowed = (offset, size) in _TCP_READS
    else:
        allowed = (offset, size) in _SOCK_READS
        if area.kind is AreaKind.SOCKET_COMMON and 8 <= offset < 24:
            allowed = False
    if not allowed:
        raise Refused("socket-access", f"{what} at offset {offset} of {area.kind.value} is not allowed", base)


def _describe(known: Known) -> str:
    if type(known) is Scalar and not known.mask:
        return f"the number {known.smin}"
    return "a number" if known is not ANY else "an unknown number"


def _range_hint(pointer: Pointer) -> str:
    return "" if pointer.span.is_const else "bound the offset before it is added, with a comparison or a mask"


def _sign_hint(pointer: Pointer) -> str:
    return (
        "" if pointer.span.is_const else "make sure that the offset is not negative, or use an unsigned type"
    )
