"""Lowering of memory instructions: loads, stores, atomics, context accesses and legacy packet loads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from backends import abi
from backends.calls import NativeHelper
from ir.context import HEADER
from ir.core import Atomic, Load, PacketLoad, Store, Value
from ir.helpers import HELPERS
from ir.region import RegionKind

if TYPE_CHECKING:
    from backends.function import FunctionLowering

_RMW: Final = ("add", "or", "and", "xor", "xchg")
_ANYWHERE: Final = (RegionKind.SCALAR, RegionKind.GIVEN, RegionKind.UNKNOWN)
_PROBE: Final = replace(HELPERS[4], id=0)  # bpf_probe_read, but never the user's own


def lower_load(lowering: FunctionLowering, inst: Load) -> str:
    size = inst.row.size
    region = lowering.regions.of(inst.base)
    if region.kind is RegionKind.CONTEXT and not lowering.module.context.is_raw:
        return _load_context(lowering, inst)
    if lowering.module.reads_objects and region.kind in _ANYWHERE and not lowering.facts.is_proved(inst):
        probe = lowering.unit.natives.find(_PROBE, None)
        if probe is not None:
            return _load_object(lowering, inst, probe)
    address, align = lowering.checker.access(inst, inst.base, inst.offset, size, writes=False)
    if lowering.regions.is_pointer(inst) and size == 8:
        return lowering.text.emit(f"load ptr, ptr {address}, align {align}")
    if inst.row.imm:
        lowering.checker.require_alignment(address, align, size, inst.at)
        loaded = lowering.text.emit(f"load atomic i{size * 8}, ptr {address} acquire, align {size}")
    else:
        loaded = lowering.text.emit(f"load i{size * 8}, ptr {address}, align {align}")
    return _loaded(lowering, inst, loaded)


def _load_object(lowering: FunctionLowering, inst: Load, probe: NativeHelper) -> str:
    """A load that gives 0 where nothing is (ir/probing)."""
    text, size = lowering.text, inst.row.size
    address = text.add(64, lowering.as_int(inst.base), str(inst.offset))
    arguments = f"ptr %run, ptr {lowering.probed}, i64 {size}, i64 {address}"
    text.emit(f"call i64 @{lowering.quoted(probe.symbol)}({arguments})")
    return _loaded(lowering, inst, text.emit(f"load i{size * 8}, ptr {lowering.probed}, align 8"))


def _loaded(lowering: FunctionLowering, inst: Load, operand: str) -> str:
    """The loaded bits as the type that the load's value has."""
    number = _widen(lowering, operand, inst.row.size, inst.row.signed)
    return (
        lowering.text.emit(f"inttoptr i64 {number} to ptr") if lowering.regions.is_pointer(inst) else number
    )


def _widen(lowering: FunctionLowering, operand: str, size: int, signed: bool) -> str:
    if size == 8:
        return operand
    extend = lowering.text.sext if signed else lowering.text.zext
    return extend(size * 8, operand, 64)


def _load_context(lowering: FunctionLowering, inst: Load) -> str:
    places = _context_places(lowering, inst.base, inst.offset, inst.row.size, inst.at)
    base, offset = lowering.as_ptr(inst.base), min(places)
    pointers = lowering.module.context.pointers
    pointer = pointers.get(offset) if len(places) == 1 else None
    if pointer is None and any(
        one < at + 4 and at < one + inst.row.size for at in pointers for one in places
    ):
        lowering.problem(
            "context-access",
            f"packet pointer at context offset {offset} must be loaded whole, as 4 bytes",
            inst.at,
        )
    if pointer is not None and inst.row.size == 4 and not inst.row.signed:
        place = lowering.text.step(base, inst.offset - offset + pointer.value)
        loaded = lowering.text.emit(f"load ptr, ptr {place}, align 8")
        is_seen = lowering.regions.is_pointer(inst)  # else where the base comes from is told by a check alone
        return loaded if is_seen else lowering.text.emit(f"ptrtoint ptr {loaded} to i64")
    place = lowering.text.step(base, HEADER + inst.offset)
    align = min((one & -one or 8) for one in places)
    loaded = lowering.text.emit(f"load i{inst.row.size * 8}, ptr {place}, align {min(align, inst.row.size)}")
    return _loaded(lowering, inst, loaded)


def _context_places(
    lowering: FunctionLowering, base: Value, offset: int, size: int, at: int
) -> frozenset[int]:
    """The offsets in the user's structure that an access can have; none in it is a problem.

    Where `base` comes from may not be known here, from a stack slot perhaps: that it is r1 and a constant is checked
    at run time then, and so is that it points into the structure when it does so on some ways only.
    """
    layout, regions = lowering.module.context, lowering.regions
    root, moved = regions.offset(base)
    starts = regions.context_offsets(base)
    start = lowering.checker.context()
    is_found = bool(starts) or lowering.checker.is_context(root)
    places = frozenset(offset + place for place in starts or {moved})
    inside = frozenset(place for place in places if 0 <= place <= layout.size - size)
    if not inside:
        said = f"access of {size} bytes at {min(places)} leaves {layout.name} ({layout.size} bytes)"
        lowering.problem("context-access", said, at)
    elif start is None and not (is_found and inside == places):
        said = f"{layout.name} must be accessed at a constant offset from r1"
        lowering.problem("context-access", said, at)
    elif start is not None and not (is_found and inside == places):
        text, address, first = lowering.text, lowering.as_int(base), lowering.as_int(start)
        ok = "false"
        for place in sorted(inside):
            ok = text.emit(f"or i1 {ok}, {text.eq(64, address, text.add(64, first, str(place - offset)))}")
        lowering.trap_unless(ok, abi.Trap.MEMORY, at)
    return inside or frozenset({0})


def lower_store(lowering: FunctionLowering, inst: Store) -> None:
    size = inst.row.size
    region = lowering.regions.of(inst.base)
    if region.kind is RegionKind.CONTEXT and not lowering.module.context.is_raw:
        layout, base = lowering.module.context, lowering.as_ptr(inst.base)
        for place in sorted(_context_places(lowering, inst.base, inst.offset, size, inst.at)):
            if not layout.is_writable(place, size):
                said = f"{size} bytes at {place} of {layout.name} are read only"
                lowering.problem("context-write", said, inst.at)
        address, align = lowering.text.step(base, HEADER + inst.offset), 1
    else:
        address, align = lowering.checker.access(inst, inst.base, inst.offset, size, writes=True)
    if size == 8 and lowering.regions.is_pointer(inst.value) and not lowering.is_narrow:
        lowering.text.do(f"store ptr {lowering.operands[inst.value]}, ptr {address}, align {align}")
        return
    value = lowering.as_int(inst.value)
    if size < 8:
        value = lowering.text.trunc(64, value, size * 8)
    if inst.row.imm == 0x110:
        lowering.checker.require_alignment(address, align, size, inst.at)
        lowering.text.do(f"store atomic i{size * 8} {value}, ptr {address} release, align {size}")
    else:
        lowering.text.do(f"store i{size * 8} {value}, ptr {address}, align {align}")


def lower_atomic(lowering: FunctionLowering, inst: Atomic) -> str:
    row, size, bits = inst.row, inst.row.size, inst.row.size * 8
    if lowering.regions.of(inst.base).kind is RegionKind.CONTEXT and not lowering.module.context.is_raw:
        lowering.problem("context-access", "atomic operation on the context is not allowed", inst.at)
    lowering.checker.require_readable(lowering.regions.of(inst.base), inst.at)
    address, align = lowering.checker.access(inst, inst.base, inst.offset, size, writes=True)
    lowering.checker.require_alignment(address, align, size, inst.at)
    value = lowering.as_int(inst.value)
    value = value if size == 8 else lowering.text.trunc(64, value, bits)
    if inst.expected is not None:
        expected = lowering.as_int(inst.expected)
        expected = expected if size == 8 else lowering.text.trunc(64, expected, bits)
        pair = lowering.text.emit(
            f"cmpxchg ptr {address}, i{bits} {expected}, i{bits} {value} seq_cst seq_cst, align {size}"
        )
        old = lowering.text.emit(f"extractvalue {{ i{bits}, i1 }} {pair}, 0")
    else:
        operation = row.name.removeprefix("lock_").removeprefix("fetch_").rstrip("0123456789")
        assert operation in _RMW, row.name
        ordering = "seq_cst" if row.fetches else "monotonic"
        old = lowering.text.emit(
            f"atomicrmw {operation} ptr {address}, i{bits} {value} {ordering}, align {size}"
        )
    old = old if size == 8 else lowering.text.zext(bits, old, 64)
    return lowering.text.emit(f"inttoptr i64 {old} to ptr") if lowering.regions.is_pointer(inst) else old


def lower_packet_load(lowering: FunctionLowering, inst: PacketLoad) -> str:
    """Leave with 0 when the bytes are not all inside the packet; else load them big-endian."""
    size, text = inst.row.size, lowering.text
    if (
        lowering.regions.of(inst.context).kind is not RegionKind.CONTEXT
        or not lowering.module.context.pointers
    ):
        lowering.problem("packet-load", "legacy packet loads need the __sk_buff context in r6", inst.at)
        return "0"
    root = lowering.operands[inst.context]
    index = "0" if inst.index is None else text.trunc(64, lowering.as_int(inst.index), 32)
    offset = text.sext(32, text.add(32, index, str(inst.imm)), 64)
    start = text.emit(f"load ptr, ptr {root}, align 8")
    end = text.emit(f"load ptr, ptr {text.step(root, 8)}, align 8")
    length = text.sub(64, text.emit(f"ptrtoint ptr {end} to i64"), text.emit(f"ptrtoint ptr {start} to i64"))
    room = text.sub(64, length, str(size))
    inside = text.emit(f"icmp sle i64 {offset}, {room}")
    positive = text.emit(f"icmp sge i64 {offset}, 0")
    inside = text.and_(1, inside, positive)
    outside, following = text.name("outside"), text.name(lowering.label.split(".")[0] + ".")
    text.do(f"br i1 {inside}, label %{following}, label %{outside}")
    lowering.start_block(outside)
    lowering.spill_fuel()
    lowering.leave_frame()
    text.do("ret i64 0")
    lowering.start_block(following)
    loaded = text.emit(
        f"load i{size * 8}, ptr {text.emit(f'getelementptr i8, ptr {start}, i64 {offset}')}, align 1"
    )
    if size > 1 and not text.big_endian:
        lowering.unit.declare(f"llvm.bswap.i{size * 8}", f"i{size * 8}", f"i{size * 8}")
        loaded = text.bswap(size * 8, loaded)
    return _widen(lowering, loaded, size, signed=False)
