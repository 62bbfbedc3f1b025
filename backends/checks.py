"""Run-time bounds checks: compare an address with the bounds of the region it should be in, and trap when it is outside.

The compares take the forms LLVM folds and hoists: an offset from a region's start against a constant, or an end against
`data_end` exactly as the program itself compares it, so that a program's own check makes ours redundant.

    packet, constant offset      data + (offset + size) <= data_end        (offset >= 0: cannot wrap)
    stack, map value, variable   address - start <= region size - size     (unsigned: covers both ends)
    anything else                start <= address <= end - size
    unknown region               a walk over the run's segments, out of line

A pointer to a value of a map reaches that value only, wherever it is moved: backends/origins says which one it is.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final, final

from backends import abi
from ir.context import Pointer as Field
from ir.core import Address, Alu, Atomic, Call, Const, Frame, Function, Inst, Load, Param, Store, Value
from ir.hook_objects import object_named
from ir.kinds import MapFlag, MapType
from ir.map_layout import CPUS, layout_of, spare_elements, value_places
from ir.maps import is_per_cpu
from ir.object import ReferenceKind
from ir.region import INNER, Region, RegionKind, map_named
from ir.regions import constant_step
from ir.verify.values import ZERO, AreaKind, Pointer

if TYPE_CHECKING:
    from backends.function import FunctionLowering

FRAME_SIZE: Final = 512
EACCES: Final = 13
_BOUNDED: Final = 1 << 32
_PACKET_KINDS: Final = (RegionKind.PACKET, RegionKind.PACKET_END, RegionKind.PACKET_META)
CHECK_SYMBOL: Final = "bpfc.in_segment"


@final
class Checker:
    """Emits the checks of one function."""

    def __init__(self, lowering: FunctionLowering) -> None:
        self.lowering = lowering
        self.text, self.regions = lowering.text, lowering.regions
        self.frame_size = _frame_size(lowering)

    def access(self, inst: Inst, base: Value, offset: int, size: int, writes: bool) -> tuple[str, int]:
        """The checked address of an access and the alignment known for it."""
        text = self.text
        operand = self.lowering.as_ptr(base)
        address = text.step(operand, offset)
        align = self._check(inst, base, offset, size, writes, address)
        return address, align

    def require_alignment(self, address: str, known: int, size: int, at: int) -> None:
        """Trap unless `address` is a multiple of `size` (atomic accesses must be)."""
        if known >= size:
            return
        low = self.text.and_(64, self.text.to_int(address), str(size - 1))
        self.lowering.trap_unless(self.text.eq(64, low, "0"), abi.Trap.MEMORY, at)

    def require_readable(self, region: Region, at: int) -> bool:
        """Whether programs may read a region; a problem is noted for a map that they may only write."""
        if region.kind is not RegionKind.MAP_VALUE or not self._is_write_only(region):
            return True
        said = f"load from map '{region.name}', which programs may only write"
        self.lowering.problem("write-only-map", said, at)
        return False

    def argument(
        self, call: Call, value: Value, size: str, constant: int | None, writes: bool, nullable: bool
    ) -> None:
        """Check that a helper may touch `size` bytes (an i64 operand; `constant` when it is one) at `value`."""
        if self.lowering.facts.is_proved(call) or constant == 0:
            return
        region = self.regions.of(value)
        _, total = self.regions.offset(value)
        if constant is not None and self._static(region, value, total, constant, writes, call.at):
            return
        address = self.lowering.as_int(value)
        ok = self._general(region, value, address, size, constant, writes)
        if nullable:
            ok = self.text.emit(f"or i1 {ok}, {self.text.eq(64, address, '0')}")
        if constant is None:
            ok = self.text.emit(f"or i1 {ok}, {self.text.eq(64, size, '0')}")
        self.lowering.trap_unless(ok, abi.Trap.MEMORY, call.at)

    def _check(self, inst: Inst, base: Value, offset: int, size: int, writes: bool, address: str) -> int:
        region = self.regions.of(base)
        root, total = self.regions.offset(base)
        total += offset
        known = self._static(region, base, total, size, writes, inst.at)
        align = self._alignment(region, base, total)
        if known or self.lowering.facts.is_proved(inst):
            return align
        if region.kind in _PACKET_KINDS and self.context() is not None and self._is_forward(base, offset):
            past = self.text.emit(f"getelementptr inbounds nuw i8, ptr {address}, i64 {size}")
            end = self._context_pointer(Field.DATA_END)
            self.lowering.trap_unless(self.text.emit(f"icmp ule ptr {past}, {end}"), abi.Trap.MEMORY, inst.at)
            return align
        is_found = region.kind is RegionKind.MAP_VALUE and isinstance(root, Call) and root is region.origin
        if is_found and 0 <= total <= self._map_value_size(region) - size:
            alive = self.text.emit(f"icmp ne ptr {self.lowering.operands[root]}, null")
            self.lowering.trap_unless(alive, abi.Trap.MEMORY, inst.at)
            return align
        if total >= 0 and self._is_memory(region, root):
            fits = self.text.emit(f"icmp ule i64 {total + size}, %a1")
            self.lowering.trap_unless(fits, abi.Trap.MEMORY, inst.at)
            return align
        number = self.text.to_int(address)
        ok = self._general(region, base, number, str(size), size, writes)
        self.lowering.trap_unless(ok, abi.Trap.MEMORY, inst.at)
        return align

    def _is_memory(self, region: Region, root: Value) -> bool:
        """Whether `root` is the start of the raw memory, %a0; %a1 is its length."""
        lowering = self.lowering
        return region.kind is RegionKind.MEMORY and lowering.is_main and root is lowering.function.params[0]

    def _static(self, region: Region, base: Value, total: int, size: int, writes: bool, at: int) -> bool:
        """Whether an access at a constant place is right; a problem is noted when it is certainly wrong."""
        if region.kind is RegionKind.MAP_VALUE and writes and self._is_read_only(region):
            self.lowering.problem("read-only-map", f"store into read-only map '{region.name}'", at)
            return True
        if not writes and not self.require_readable(region, at):
            return True
        if self.regions.frame_offset(base) is not None:
            if not -FRAME_SIZE <= total <= -size:
                said = f"access of {size} bytes at stack offset {total} is outside [-{FRAME_SIZE}, 0)"
                self.lowering.problem("stack-out-of-bounds", said, at)
            return True
        if region.kind is RegionKind.OBJECT and self._is_found(region, base):
            found = object_named(region.name)
            if (writes and not found.is_writable) or not 0 <= total <= found.size - size:
                what = "store" if writes else "load"
                said = f"{what} of {size} bytes at offset {total} of {region.name}: nothing is there for it"
                self.lowering.problem("object-access", said, at)
            return True
        direct = self._direct_value(base)
        if direct is not None:
            total += direct
            limit = self._map_value_size(region)
            if not 0 <= total <= limit - size:
                said = f"access of {size} bytes at offset {total} of map '{region.name}' with values of {limit} bytes"
                self.lowering.problem("map-value-out-of-bounds", said, at)
            return True
        return False

    def _is_found(self, region: Region, base: Value) -> bool:
        """Whether `base` is a pointer as it was loaded, at a constant distance."""
        return self.regions.offset(base)[0] is region.origin

    def _direct_value(self, base: Value) -> int | None:
        root, _ = self.regions.offset(base)
        if isinstance(root, Address) and root.reference.kind is ReferenceKind.MAP_VALUE:
            return root.reference.offset
        return None

    def _is_read_only(self, region: Region) -> bool:
        map_ = map_named(self.lowering.module, region.name)
        return map_ is not None and (map_.is_read_only or bool(map_.flags & MapFlag.RDONLY_PROG))

    def _is_write_only(self, region: Region) -> bool:
        map_ = map_named(self.lowering.module, region.name)
        return map_ is not None and bool(map_.flags & MapFlag.WRONLY_PROG)

    def _alignment(self, region: Region, base: Value, total: int) -> int:
        """A power of two that divides the address, from what is known of the region's start."""
        frame = self.regions.frame_offset(base)
        if frame is not None:
            return min(_power_of_two(total), 16)
        direct = self._direct_value(base)
        root, _ = self.regions.offset(base)
        if direct is not None:
            return min(_power_of_two(direct + total), 8)
        if region.kind is RegionKind.MAP_VALUE and root is region.origin:
            return min(_power_of_two(total), 8)
        return 1

    def _is_forward(self, base: Value, offset: int) -> bool:
        """Whether base + offset is a packet start plus a small non-negative amount, so that it cannot wrap."""
        total = offset
        value = base
        while isinstance(value, Alu):
            step = constant_step(value)
            if step is not None:
                value, amount = step
                total += amount
                continue
            if not value.row.name.startswith("add64"):
                return False
            x, y = (value.x, value.y) if self.regions.is_pointer(value.x) else (value.y, value.x)
            if self.regions.is_pointer(y) or _upper_bound(y) > _BOUNDED:
                return False
            value = x
        return isinstance(value, Load) and 0 <= total < _BOUNDED

    def _general(
        self, region: Region, value: Value, address: str, size: str, constant: int | None, writes: bool
    ) -> str:
        """An i1: [address, address + size) lies in `region`. `address` is an integer operand, of the pointer `value`."""
        if region.kind is RegionKind.MAP_VALUE and not self._is_global_data(region):
            in_map = self._in_its_value(region, value, address, size, constant)
            if in_map:
                return in_map
        bounds = self._bounds(region)
        if bounds is not None:
            return self._within(*bounds, address, size, constant)
        self.lowering.unit.needs_segments = True
        flags = abi.SEGMENT_WRITABLE if writes else 0
        origin = self.text.to_int(self.lowering.origin(value))
        given = f"ptr %run, i64 {origin}, i64 {address}, i64 {size}, i64 {flags}"
        ok = self.text.emit(f'call i1 @"{CHECK_SYMBOL}"({given})')
        for kind, name in sorted(region.parts, key=lambda part: part[1]):
            part = Region(kind, name)
            if kind is RegionKind.MAP_VALUE and not (writes and self._is_read_only(part)):
                ok = self._or_in_value(ok, part, origin, address, size, constant)
        return ok

    def _or_in_value(
        self, ok: str, part: Region, origin: str, address: str, size: str, constant: int | None
    ) -> str:
        """An i1: `ok`, or the value of a map it is that has `origin`: an extension's maps are in no segment of its target's."""
        text = self.text
        if self._is_global_data(part):
            bounds = self._bounds(part)
            return (
                text.emit(f"or i1 {ok}, {self._within(*bounds, address, size, constant)}") if bounds else ok
            )
        start = self._value_around(part, text.select(64, text.eq(64, origin, "0"), address, origin))
        if not start:
            return ok
        inside = self._within(start[0], self._map_value_size(part), address, size, constant)
        return text.emit(f"or i1 {ok}, {text.and_(1, inside, start[1])}")

    def _within(self, start: str, length: int | str, address: str, size: str, constant: int | None) -> str:
        """An i1: [address, address + size) lies in the `length` bytes from `start` on."""
        text = self.text
        offset = text.sub(64, address, start)
        if isinstance(length, int) and constant is not None:
            if constant > length:
                return "false"
            return text.emit(f"icmp ule i64 {offset}, {length - constant}")
        fits = text.emit(f"icmp ule i64 {size}, {length}")
        ok = text.emit(f"icmp ule i64 {offset}, {text.sub(64, str(length), size)}")
        return text.and_(1, fits, ok)

    def _bounds(self, region: Region) -> tuple[str, int | str] | None:
        """(start, length) of a region as integers, or None when only the segments can tell."""
        text, lowering = self.text, self.lowering
        match region.kind:
            case RegionKind.FRAME if region.name == lowering.function.name and not lowering.uses_run_stack:
                return text.to_int("%stack"), self.frame_size
            case RegionKind.PACKET | RegionKind.PACKET_END | RegionKind.PACKET_META if (
                self.context() is not None
            ):
                start = text.emit(f"ptrtoint ptr {self._context_pointer(Field.PACKET_START)} to i64")
                end = text.emit(f"ptrtoint ptr {self._context_pointer(Field.DATA_END)} to i64")
                return start, text.sub(64, end, start)
            case RegionKind.MAP_VALUE if self._is_global_data(region):
                return text.to_int(lowering.unit.symbol(f"value.{region.name}")), self._map_value_size(region)
            case RegionKind.MEMORY if lowering.is_main:
                return text.to_int("%a0"), "%a1"
            case _:
                return None

    def _in_its_value(
        self, region: Region, value: Value, address: str, size: str, constant: int | None
    ) -> str:
        """An i1: [address, address + size) lies in the value of the map that `value` comes from; '' when only the segments
        can tell.
        """
        text, origins = self.text, self.lowering.unit.origins
        origin = text.to_int(self.lowering.origin(value))
        found = ""
        if origins.is_exact(value):
            inside = self._within(origin, self._map_value_size(region), address, size, constant)
            found = text.and_(1, inside, text.emit(f"icmp ne i64 {origin}, 0"))
            if not origins.is_refilled(value):
                return found
        if origins.is_refilled(value):
            origin = text.select(64, text.eq(64, origin, "0"), address, origin)
        start = self._value_around(region, origin)
        if not start:
            return found
        inside = self._within(start[0], self._map_value_size(region), address, size, constant)
        inside = text.and_(1, inside, start[1])
        return text.emit(f"or i1 {found}, {inside}") if found else inside

    def _value_around(self, region: Region, origin: str) -> tuple[str, str] | None:
        """(the start of the value of a map that has `origin`; an i1: there is one); None where values stand elsewhere."""
        text, map_ = self.text, map_named(self.lowering.module, region.name)
        places = value_places(map_) if map_ is not None and not region.name.endswith(INNER) else None
        if map_ is None or places is None:
            return None
        layout = layout_of(map_)
        base = self.lowering.unit.symbol(f"map.{region.name}")
        offset = text.sub(64, origin, text.to_int(text.step(base, layout.values_offset)))
        length, offset_in = str(places.end - layout.values_offset), offset
        if is_per_cpu(map_.type):
            length = text.mul(64, self._cpus(base), str(layout.cpu_stride))
            offset_in = text.urem(64, offset, str(layout.cpu_stride))
        elif spare_elements(map_, 1):
            more = text.add(64, self._cpus(base), "-1")
            length = text.add(64, length, text.mul(64, more, str(places.distance)))
        start = text.sub(64, origin, text.urem(64, offset_in, str(places.distance)))
        return start, text.ult(64, offset, length)

    def _cpus(self, map: str) -> str:
        """How many cpus have values and spare elements in a map, as an i64."""
        place = self.text.step(map, CPUS)
        return self.text.zext(32, self.text.emit(f"load i32, ptr {place}, align 4"), 64)

    def _is_global_data(self, region: Region) -> bool:
        map_ = map_named(self.lowering.module, region.name)
        return map_ is not None and map_.type is MapType.ARRAY and map_.max_entries == 1

    def _map_value_size(self, region: Region) -> int:
        map_ = map_named(self.lowering.module, region.name)
        assert map_ is not None, "lifting refuses maps that are not declared"
        return map_.value_size

    def context(self) -> Param | None:
        """The parameter that surely is the address of the context, if the function has one."""
        return next((param for param in self.lowering.function.params if self.is_context(param)), None)

    def is_context(self, value: Value) -> bool:
        """Whether `value` surely is the address of the context."""
        if self.regions.of(value).kind is not RegionKind.CONTEXT:
            return False
        if self.regions.context_offsets(value) == {0}:
            return True
        known = self.lowering.facts.value(value)
        if type(known) is Pointer and known.area.kind is AreaKind.CONTEXT:
            return not known.is_nullable and known.span == ZERO
        return value in self.lowering.function.params and self.gets_context(self.lowering.function, value)

    def gets_context(self, function: Function, param: Value) -> bool:
        """Whether who calls `function` makes sure that what it passes for `param` is the address of the context."""
        module, taken = self.lowering.module, self.lowering.unit.taken
        if (
            function is module.main
            or function.info.is_global
            or function.name in taken
            or module.context.is_raw
        ):
            return False
        return self.regions.of(param).kind is RegionKind.CONTEXT and not self.regions.context_offsets(param)

    def _context_pointer(self, pointer: Field) -> str:
        context = self.context()
        assert context is not None
        place = self.text.step(self.lowering.operands[context], pointer.value)
        return self.text.emit(f"load ptr, ptr {place}, align 8")


def _frame_size(lowering: FunctionLowering) -> int:
    """Bytes of stack the function needs: up to its lowest constant access, or all of it once an offset varies."""
    regions, function = lowering.regions, lowering.function
    lowest = 0
    if not function.of_types(Frame):
        return 0
    for value in chain(function.params, *((*block.params, *block.insts) for block in function.blocks)):
        if isinstance(value, Load | Store | Atomic):
            place = regions.frame_offset(value.base)
            if place is not None:
                lowest = min(lowest, place[1] + value.offset)
        if type(value) is not Const and regions.of(value).kind is RegionKind.FRAME:
            place = regions.frame_offset(value)
            if place is None:
                return FRAME_SIZE
            lowest = min(lowest, place[1])
    return min(FRAME_SIZE, -(lowest // 16) * 16) or 16


def _power_of_two(offset: int) -> int:
    return offset & -offset if offset else 16


def _upper_bound(value: Value) -> int:
    """An upper bound of a scalar that its own instruction shows; 2**64 when none."""
    if isinstance(value, Const):
        return value.value
    if isinstance(value, Load) and not value.row.signed and value.row.size < 8:
        return 1 << 8 * value.row.size
    if isinstance(value, Alu):
        if value.row.bits == 32:
            return 1 << 32
        if value.row.name.startswith("and64") and isinstance(value.y, Const):
            return value.y.value
        if value.row.name.startswith("rsh64") and isinstance(value.y, Const):
            return 1 << (64 - (value.y.value & 63))
        if value.row.name.startswith("lsh64") and isinstance(value.y, Const):
            return _upper_bound(value.x) << (value.y.value & 63)
    return 1 << 64
