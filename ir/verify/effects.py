"""What each instruction does to a state."""

from __future__ import annotations

from typing import Final, assert_never, final

from ir.context import Pointer as PacketField
from ir.core import (
    Address,
    Alu,
    Atomic,
    Call,
    Const,
    Frame,
    Function,
    Inst,
    Load,
    Module,
    PacketLoad,
    Store,
    Value,
)
from ir.helpers import Argument, ArgumentKind, Helper, ResultKind, helper_by_id
from ir.isa import Callee
from ir.kinds import MapType
from ir.object import ReferenceKind
from ir.region import RegionKind
from ir.regions import Regions
from ir.verify.arithmetic import compute_alu
from ir.verify.scalar import between, between_signed, const
from ir.verify.state import State, pointer_room
from ir.verify.transfer import ScalarAlgebra
from ir.verify.values import ANY, Area, AreaKind, Known, Pointer, length_symbol, start_of

FRAME_SIZE: Final = 512
_FRAME_TOP: Final = const(64, FRAME_SIZE)
_READ_ONLY_FLAG: Final = 1 << 7  # BPF_F_RDONLY_PROG

_UNSIGNED: Final = {size: between(64, 0, (1 << 8 * size) - 1) for size in (1, 2, 4)} | {8: ANY}
_SIGNED: Final = {
    size: between_signed(64, -1 << (8 * size - 1), (1 << (8 * size - 1)) - 1) for size in (1, 2, 4)
} | {8: ANY}

_LOOKUPS: Final = frozenset(("map_lookup_elem", "map_lookup_percpu_elem", "get_local_storage"))
_PLAIN_VALUES: Final = frozenset(
    (
        MapType.HASH,
        MapType.ARRAY,
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.LRU_HASH,
        MapType.LRU_PERCPU_HASH,
        MapType.LPM_TRIE,
        MapType.CGROUP_STORAGE,
        MapType.PERCPU_CGROUP_STORAGE,
    )
)


@final
class World:
    """What the functions of a module share: its maps, its context and its areas, made once for each maker.

    `trusts_callees`: a subprogram writes into its caller's frame only through the pointers it was given. That
    holds if every store in it is proved; `has_wild_writes` says when one was not.
    """

    def __init__(self, module: Module, regions: Regions, trusts_callees: bool = True) -> None:
        self.module = module
        self.regions = regions
        self.trusts_callees = trusts_callees
        self.has_wild_writes = False
        self.moving = functions_that_move_packets(module)
        self._areas: dict[Value | str, Area] = {}

    def area(
        self,
        maker: Value | str,
        kind: AreaKind,
        name: str = "",
        size: int = 0,
        length: Value | None = None,
        writable: bool = True,
    ) -> Area:
        """The area that `maker` makes; the same one each time."""
        found = self._areas.get(maker)
        if found is None:
            found = self._areas[maker] = Area(kind, name, size, length, writable)
        return found

    def frame_of(self, function: Function) -> Area:
        """The stack frame of a function."""
        area = self.area("frame " + function.name, AreaKind.FRAME, function.name, FRAME_SIZE)
        area.is_single = True
        return area


@final
class Effects:
    """The transfer functions of one function."""

    def __init__(self, world: World, function: Function) -> None:
        self.world = world
        self.module = world.module
        self.algebra = ScalarAlgebra(world.module.program.big_endian)
        self.frame = world.frame_of(function)
        self.is_main = function is world.module.main

    def apply(self, state: State, inst: Inst) -> None:
        """Bring `state` from before `inst` to after it."""
        match inst:
            case Alu():
                if inst in state.alias:
                    del state.alias[inst]
                x, y = state.of(inst.x), state.of(inst.y)
                state.known[inst] = compute_alu(state, inst, x, y, self.algebra)
            case Const():
                pass
            case Load():
                self._load(state, inst)
            case Store():
                self._store(state, inst)
            case Call():
                self._call(state, inst)
            case Frame():
                state.known[inst] = Pointer(self.frame, None, FRAME_SIZE, _FRAME_TOP)
            case Address():
                state.known[inst] = self._address(inst)
            case Atomic(row, base, offset):
                self._write(state, base, offset, row.size)
                state.known[inst] = _UNSIGNED[row.size]
            case PacketLoad(row):
                state.known[inst] = _UNSIGNED[row.size]
            case _:
                assert_never(inst)

    def is_inside(self, state: State, base: Value, offset: int, size: int, writes: bool) -> bool:
        """Whether `size` bytes at base + offset surely lie in one area that may be so accessed."""
        pointer = state.of(base)
        if type(pointer) is not Pointer or pointer.is_nullable or (writes and not pointer.area.writable):
            return False
        if pointer.span.smin + offset < 0:
            return False
        if pointer.span.smax + offset + size <= pointer.area.size:
            return True
        room = pointer_room(state, pointer)
        return room is not None and offset + size <= room

    def _address(self, inst: Address) -> Known:
        reference = inst.reference
        map_ = self.module.maps.get(reference.name)
        if map_ is None:
            return ANY
        if reference.kind is ReferenceKind.MAP:
            return start_of(self.world.area("map " + map_.name, AreaKind.MAP, map_.name))
        if reference.kind is ReferenceKind.MAP_VALUE and map_.type is MapType.ARRAY:
            writable = not map_.is_read_only and not map_.flags & _READ_ONLY_FLAG
            area = self.world.area(
                "value " + map_.name, AreaKind.MAP_VALUE, map_.name, map_.value_size, writable=writable
            )
            area.is_single = True
            return Pointer(area, None, reference.offset, const(64, reference.offset))
        return ANY

    def _load(self, state: State, inst: Load) -> None:
        base = state.of(inst.base)
        row = inst.row
        state.known[inst] = (_SIGNED if row.signed else _UNSIGNED)[row.size]
        state.alias.pop(inst, None)
        if self.world.regions.of(inst.base).kind is RegionKind.CONTEXT:
            # Where a packet pointer stands, 64 bits are loaded.
            state.known[inst] = ANY
        if type(base) is not Pointer or base.is_nullable or base.span.mask:
            return
        place = base.span.smin + inst.offset
        if base.area.kind is AreaKind.CONTEXT:
            self._load_context(state, inst, place)
        elif base.area is self.frame:
            slot = state.stack.get(place)
            if slot is not None and slot[0] == row.size and not row.signed:
                state.known[inst] = state.of(slot[1])
                if type(slot[1]) is not Const and slot[1] is not inst:
                    state.alias[inst] = (slot[1], 0)

    def _load_context(self, state: State, inst: Load, place: int) -> None:
        row, pointers = inst.row, self.module.context.pointers
        if not any(place < start + 4 and start < place + row.size for start in pointers):
            state.known[inst] = (_SIGNED if row.signed else _UNSIGNED)[row.size]
        field = pointers.get(place)
        if row.signed or row.size != 4 or field not in (PacketField.DATA, PacketField.DATA_END):
            return
        if self.world.regions.of(inst).kind not in (RegionKind.PACKET, RegionKind.PACKET_END):
            return
        if state.packet is None:
            state.start_packet(self.world.area(inst, AreaKind.PACKET, length=length_symbol()))
        packet = state.packet
        assert packet is not None
        assert packet.length is not None
        if field is PacketField.DATA:
            state.known[inst] = start_of(packet)
        else:
            state.known[inst] = Pointer(packet, packet.length, 0, state.number(packet.length))

    def _store(self, state: State, inst: Store) -> None:
        size = inst.row.size
        place = self._write(state, inst.base, inst.offset, size)
        if place is not None and (size == 8 or state.number(inst.value).umax < 1 << 8 * size):
            state.stack[place] = (size, inst.value)

    def _write(self, state: State, base: Value, offset: int, size: int) -> int | None:
        """Forget what a write may change; the place in the own frame that it surely goes to, if it does."""
        pointer = state.of(base)
        if type(pointer) is Pointer and pointer.area is self.frame:
            low, high = pointer.span.smin + offset, pointer.span.smax + offset + size
            if pointer.is_nullable or low < 0 or high > FRAME_SIZE:
                state.stack.clear()
                return None
            state.kill_stack(low, high)
            return low if not pointer.span.mask else None
        if not self.is_inside(state, base, offset, size, writes=True):
            # Checked at run time only, against bounds that may be those of any memory: also of a frame.
            state.stack.clear()
            self.world.has_wild_writes |= not self.is_main
        return None

    def _call(self, state: State, inst: Call) -> None:
        state.known[inst] = ANY
        helper = None
        if inst.callee is Callee.HELPER and isinstance(inst.target, int):
            helper = helper_by_id(inst.target, self.module.program.type)
        if helper is not None:
            self._call_helper(state, inst, helper)
            return
        trusted = inst.callee is Callee.SUBPROGRAM and self.world.trusts_callees
        if trusted and isinstance(inst.target, str):
            trusted = not self.module.functions[
                inst.target
            ].info.is_global  # another may stand for it by then
        if not trusted or any(_may_reach_frame(state.of(arg)) for arg in inst.args):
            state.stack.clear()
        if inst.callee is not Callee.SUBPROGRAM or inst.target in self.world.moving:
            state.forget_packets()

    def _call_helper(self, state: State, inst: Call, helper: Helper) -> None:
        result = self._result(state, inst, helper)
        for argument, value, following in zip(
            helper.arguments, inst.args, (*inst.args[1:], None), strict=False
        ):
            if argument.kind is ArgumentKind.FUNCTION:
                state.stack.clear()
                state.forget_packets()
            elif argument.writes or argument.kind in _OPAQUE:
                self._write_argument(state, argument, value, following)
        if helper.is_variadic and any(
            _may_reach_frame(state.of(arg)) for arg in inst.args[len(helper.arguments) :]
        ):
            state.stack.clear()
        if helper.changes_packet:
            state.forget_packets()
        state.known[inst] = result

    def _write_argument(
        self, state: State, argument: Argument, value: Value, following: Value | None
    ) -> None:
        size = argument.size
        if not size and following is not None and argument.kind is ArgumentKind.MEMORY:
            number = state.number(following)
            size = number.umax if number.umax <= FRAME_SIZE else 0
        if size:
            self._write(state, value, 0, size)
        else:
            state.stack.clear()

    def _result(self, state: State, inst: Call, helper: Helper) -> Known:
        if helper.result.kind is not ResultKind.MAP_VALUE or helper.name not in _LOOKUPS:
            return ANY
        pointer = state.of(inst.args[0])
        if type(pointer) is not Pointer or pointer.area.kind is not AreaKind.MAP:
            return ANY
        map_ = self.module.maps[pointer.area.name]
        if map_.type not in _PLAIN_VALUES:
            return ANY
        area = self.world.area(inst, AreaKind.MAP_VALUE, map_.name, map_.value_size)
        return start_of(area, is_nullable=helper.result.is_nullable)


_OPAQUE: Final = frozenset((ArgumentKind.DYNPTR, ArgumentKind.STACK, ArgumentKind.KPTR, ArgumentKind.TIMER))


def _may_reach_frame(known: Known) -> bool:
    return (type(known) is Pointer and known.area.kind is AreaKind.FRAME) or known is ANY


def functions_that_move_packets(module: Module) -> frozenset[str]:
    """Functions during whose call the packet may move."""
    moving: set[str] = set()
    callers: dict[str, set[str]] = {}
    for name, function in module.functions.items():
        for inst in function.of_types(Call):
            assert isinstance(inst, Call)
            if inst.callee is Callee.SUBPROGRAM and isinstance(inst.target, str):
                callers.setdefault(inst.target, set()).add(name)
            elif inst.callee is Callee.HELPER and isinstance(inst.target, int):
                helper = helper_by_id(inst.target, module.program.type)
                takes_function = helper is not None and any(
                    argument.kind is ArgumentKind.FUNCTION for argument in helper.arguments
                )
                if helper is None or helper.changes_packet or takes_function:
                    moving.add(name)
            else:
                moving.add(name)
    work = list(moving)
    while work:
        for caller in callers.get(work.pop(), ()):
            if caller not in moving:
                moving.add(caller)
                work.append(caller)
    return frozenset(moving)
