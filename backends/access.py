"""Lowering of memory instructions: loads, stores, atomics, context accesses and legacy packet loads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from backends import abi
from ir.context import HEADER, Argument
from ir.core import Atomic, Load, PacketLoad, Store, Value
from ir.regions import RegionKind
from ir.verify.values import ZERO, AreaKind, Pointer

if TYPE_CHECKING:
    from backends.function import FunctionLowering

_RMW: Final = ("add", "or", "and", "xor", "xchg")


def lower_load(lowering: FunctionLowering, inst: Load) -> str:
    size = inst.row.size
    region = lowering.regions.of(inst.base)
    if region.kind is RegionKind.CONTEXT and not lowering.module.context.is_raw:
        return _load_context(lowering, inst)
    address, align = lowering.checker.access(inst, inst.base, inst.offset, size, writes=False)
    if lowering.regions.is_pointer(inst):
        return lowering.text.emit(f"load ptr, ptr {address}, align {align}")
    if inst.row.imm:
        lowering.checker.require_alignment(address, align, size, inst.at)
        loaded = lowering.text.emit(f"load atomic i{size * 8}, ptr {address} acquire, align {size}")
    else:
        loaded = lowering.text.emit(f"load i{size * 8}, ptr {address}, align {align}")
    return _widen(lowering, loaded, size, inst.row.signed)


def _widen(lowering: FunctionLowering, operand: str, size: int, signed: bool) -> str:
    if size == 8:
        return operand
    extend = lowering.text.sext if signed else lowering.text.zext
    return extend(size * 8, operand, 64)


def _load_context(lowering: FunctionLowering, inst: Load) -> str:
    root, offset = _context_place(lowering, inst.base, inst.offset, inst.row.size, inst.at)
    pointer = lowering.module.context.pointers.get(offset)
    if pointer is None and any(
        offset < at + 4 and at < offset + inst.row.size for at in lowering.module.context.pointers
    ):
        lowering.problem(
            "context-access",
            f"packet pointer at context offset {offset} must be loaded whole, as 4 bytes",
            inst.at,
        )
    if pointer is not None and inst.row.size == 4 and not inst.row.signed:
        place = lowering.text.step(root, pointer.value)
        return lowering.text.emit(f"load ptr, ptr {place}, align 8")
    place = lowering.text.step(root, HEADER + offset)
    align = (offset & -offset or 8) if offset else 8
    if lowering.regions.is_pointer(inst):
        return lowering.text.emit(f"load ptr, ptr {place}, align {min(align, 8)}")
    loaded = lowering.text.emit(f"load i{inst.row.size * 8}, ptr {place}, align {min(align, inst.row.size)}")
    return _widen(lowering, loaded, inst.row.size, inst.row.signed)


def _context_place(
    lowering: FunctionLowering, base: Value, offset: int, size: int, at: int
) -> tuple[str, int]:
    """The context pointer's operand and the constant offset of an access in the user's structure."""
    root, moved = lowering.regions.offset(base)
    layout = lowering.module.context
    total = moved + offset
    start = _start_of_context(lowering, root)
    if start is None:
        start = next((p for p in lowering.function.params if _start_of_context(lowering, p)), None)
        if start is None:
            said = f"{layout.name} must be accessed at a constant offset from r1"
            lowering.problem("context-access", said, at)
            return "null", total
        # Where it comes from is not known here, from a stack slot perhaps: it must be r1 itself.
        same = lowering.text.eq(64, lowering.as_int(root), lowering.as_int(start))
        lowering.trap_unless(same, abi.Trap.MEMORY, at)
    if not 0 <= total <= layout.size - size:
        lowering.problem(
            "context-access",
            f"access of {size} bytes at {total} leaves {layout.name} ({layout.size} bytes)",
            at,
        )
    return lowering.operands[start], total


def _start_of_context(lowering: FunctionLowering, value: Value) -> Value | None:
    """`value` when it surely is the address of the context."""
    starts = zip(lowering.module.main.params, lowering.module.context.arguments, strict=False)
    if any(value is param and argument is Argument.CONTEXT for param, argument in starts):
        return value
    known = lowering.facts.value(value)
    if type(known) is not Pointer or known.area.kind is not AreaKind.CONTEXT or known.is_nullable:
        return None
    return value if known.span == ZERO else None


def lower_store(lowering: FunctionLowering, inst: Store) -> None:
    size = inst.row.size
    region = lowering.regions.of(inst.base)
    if region.kind is RegionKind.CONTEXT and not lowering.module.context.is_raw:
        root, offset = _context_place(lowering, inst.base, inst.offset, size, inst.at)
        if not lowering.module.context.is_writable(offset, size):
            said = f"{size} bytes at {offset} of {lowering.module.context.name} are read only"
            lowering.problem("context-write", said, inst.at)
        address, align = lowering.text.step(root, HEADER + offset), 1
    else:
        address, align = lowering.checker.access(inst, inst.base, inst.offset, size, writes=True)
    if size == 8 and lowering.regions.is_pointer(inst.value):
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
