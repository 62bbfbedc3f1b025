"""Where pointers point: which memory region each value is an address in, found by following pointers from their sources.

    r1 (context) --load data--> PACKET --add--> PACKET --spill, fill--> PACKET

Stack slots and the parameters of functions are followed as values are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import final

from ir.callees import token_names
from ir.context import Argument, Pointer
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
    Param,
    Return,
    Store,
    Terminator,
    Value,
    edges_of,
    operands,
)
from ir.helpers import HELPER_IDS, ResultKind, helper_by_id
from ir.hook_objects import SESSION_COOKIE, object_named
from ir.isa import Callee
from ir.kfuncs import KFUNCS
from ir.object import ReferenceKind
from ir.region import INNER, SCALAR, UNKNOWN, Region, RegionKind, holds_maps, join

MOST_OFFSETS = 8
FOR_EACH_MAP_ELEM = HELPER_IDS["bpf_for_each_map_elem"]
SESSION_COOKIE_KFUNC = "bpf_session_cookie"
TIMER_SET_CALLBACK = HELPER_IDS["bpf_timer_set_callback"]
_VALUE = 3  # the register in which a map's callbacks get the value
_OUTSIDE = frozenset(ResultKind) - {
    ResultKind.INTEGER,
    ResultKind.VOID,
    ResultKind.MAP_VALUE,
    ResultKind.MEMORY,
}
_ENTRY_REGIONS = {
    Argument.CONTEXT: Region(RegionKind.CONTEXT),
    Argument.MEMORY: Region(RegionKind.MEMORY),
    Argument.ADDRESS: UNKNOWN,
}
_PACKET_POINTERS = {
    Pointer.DATA: Region(RegionKind.PACKET),
    Pointer.DATA_END: Region(RegionKind.PACKET_END),
    Pointer.DATA_META: Region(RegionKind.PACKET_META),
}


@final
class Regions:
    """The region of every value of a module; `of(value)` is SCALAR for what is no address."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self._found: dict[Value, Region] = {}
        self._users: dict[Value, list[tuple[Function, Inst | Terminator]]] = defaultdict(list)
        self._offsets: dict[Value, tuple[Value, int]] = {}
        self._slots: dict[tuple[str, int], Region] = {}
        self._slot_loads: dict[tuple[str, int], list[Load]] = defaultdict(list)
        self._incoming: dict[Value, list[Value]] = defaultdict(list)
        self._callers: dict[str, list[Call]] = defaultdict(list)
        self._in_tables = tuple(dict.fromkeys(token_names(module).values()))
        self._work: list[Value] = []
        self._taken: set[str] = set()
        self._context: Value | None = None
        self._entry_position: dict[Value, tuple[str, int]] = {}
        self._index()
        self._run()
        if module.context.pointers or module.context.objects:
            self._find_loaded()
            self._run()

    def of(self, value: Value) -> Region:
        """The region `value` points into."""
        return self._found.get(value, SCALAR)

    def is_pointer(self, value: Value) -> bool:
        """Whether `value` is an address."""
        return value in self._found

    def offset(self, value: Value) -> tuple[Value, int]:
        """`value` as (root, constant): constant additions peeled off."""
        total = 0
        while isinstance(value, Alu):
            step = constant_step(value)
            if step is None:
                break
            value, amount = step
            total += amount
        return value, total

    def frame_offset(self, value: Value) -> tuple[Frame, int] | None:
        """The frame and constant offset that `value` is the address of, if it is one."""
        root, total = self.offset(value)
        return (root, total) if isinstance(root, Frame) else None

    def context_offsets(self, value: Value) -> frozenset[int]:
        """The offsets from the context's start that `value`, a pointer to it, can have; empty when not known."""
        found: set[int] = set()
        seen: dict[Value, set[int]] = defaultdict(set)
        work = [(value, 0)]
        while work:
            value, beyond = work.pop()
            root, total = self.offset(value)
            total += beyond
            if total in seen[root]:
                continue
            seen[root].add(total)
            if root is self._context:
                found.add(total)
                continue
            sources = self.sources(root) if self.of(root).kind is RegionKind.CONTEXT else ()
            if not sources or len(seen[root]) > MOST_OFFSETS:
                return frozenset()
            work += [(source, total) for source in sources]
        return frozenset(found)

    def sources(self, value: Value) -> Sequence[Value]:
        """Where a parameter gets its values from; nothing when not from the module alone."""
        if not isinstance(value, Param):
            return ()
        entry = self._entry_position.get(value)
        if entry is None:
            return self._incoming[value]
        name, position = entry
        if name in self._taken or name == self.module.main.name:
            return ()
        calls = self._callers[name]
        passed = [call.args[position] for call in calls if position < len(call.args)]
        return passed if len(passed) == len(calls) else ()

    def _set(self, value: Value, region: Region) -> None:
        old = self._found.get(value)
        new = region if old is None else join(old, region)
        if new != old:
            self._found[value] = new
            self._work.append(value)

    def _index(self) -> None:
        module = self.module
        for function in module.functions.values():
            for position, param in enumerate(function.params):
                self._entry_position[param] = function.name, position
            for block in function.blocks:
                for item in (*block.insts, block.terminator):
                    for value in operands(item):
                        self._users[value].append((function, item))
                    self._seed(function, item)
                for edge in block.edges():
                    for param, arg in zip(edge.block.params, edge.args, strict=True):
                        self._incoming[param].append(arg)
        for param, argument in zip(module.main.params, module.context.arguments, strict=False):
            if argument in _ENTRY_REGIONS:
                self._set(param, _ENTRY_REGIONS[argument])
            if argument is Argument.CONTEXT:
                self._context = param
        for address in [value for value in self._users if isinstance(value, Address)]:
            if address.reference.kind is ReferenceKind.FUNCTION:
                self._seed_taken(address)

    def _seed_taken(self, address: Address) -> None:
        """The parameters of a function whose address is taken: addresses, of what is known only in a callback."""
        users = [user for user in self._users[address] if not self._calls_through(user[1], address)]
        if users:
            self._taken.add(address.reference.name)
        for param in self.module.functions[address.reference.name].params:
            for _, user in users:
                region = self._callback_region(user, param.register)
                if region is not None:
                    self._set(param, region)

    def _calls_through(self, user: Inst | Terminator, address: Address) -> bool:
        """Whether all that `user` does with a function's address is to call it: as an argument it is not read."""
        if not isinstance(user, Call) or user.target is not address:
            return False
        params = self.module.functions[address.reference.name].params
        handed = [param for param, arg in zip(params, user.args, strict=False) if arg is address]
        return not any(self._users[param] for param in handed)

    def _callback_region(self, user: Inst | Terminator, register: int) -> Region | None:
        """What helpers pass to callbacks: map, key, value (and a context); None for what another place tells."""
        if not isinstance(user, Call) or user.callee is not Callee.HELPER:
            return UNKNOWN
        if user.target == TIMER_SET_CALLBACK and register == _VALUE:
            return None
        if user.target != FOR_EACH_MAP_ELEM:
            return UNKNOWN
        kind = {1: RegionKind.MAP, _VALUE: RegionKind.MAP_VALUE}.get(register)
        source = user.args[0]
        if kind is None or not isinstance(source, Address) or source.reference.kind is not ReferenceKind.MAP:
            return UNKNOWN
        return Region(kind, source.reference.name)

    def _seed(self, function: Function, item: Inst | Terminator) -> None:
        match item:
            case Frame():
                self._set(item, Region(RegionKind.FRAME, function.name, item))
            case Address(reference):
                if reference.kind is ReferenceKind.MAP:
                    self._set(item, Region(RegionKind.MAP, reference.name))
                elif reference.kind is ReferenceKind.MAP_VALUE:
                    self._set(item, Region(RegionKind.MAP_VALUE, reference.name))
                elif reference.kind is ReferenceKind.FUNCTION:
                    self._set(item, Region(RegionKind.FUNCTION, reference.name))
                else:
                    self._set(item, UNKNOWN)
            case Call(Callee.SUBPROGRAM, target):
                assert isinstance(target, str)
                self._callers[target].append(item)
            case Call(Callee.INDIRECT):
                for name in self._names_of(item):
                    self._callers[name].append(item)
            case Call(Callee.KFUNC, target) if target == SESSION_COOKIE_KFUNC:
                self._set(item, Region(RegionKind.OBJECT, SESSION_COOKIE, item))
            case Call(Callee.HELPER | Callee.KFUNC):
                kind = self._result_kind(item)
                if kind in _OUTSIDE:
                    self._set(item, Region(RegionKind.GIVEN))
                elif kind is ResultKind.MEMORY:
                    self._set(item, UNKNOWN)
            case _:
                pass

    def _run(self) -> None:
        while self._work:
            value = self._work.pop()
            for function, user in self._users[value]:
                self._propagate(function, value, user)

    def _find_loaded(self) -> None:
        """The pointers that are loaded from the context: packet pointers, and objects behind it."""
        context = self.module.context
        for value, region in list(self._found.items()):
            if region.kind is not RegionKind.CONTEXT:
                continue
            for _, user in self._users[value]:
                if not isinstance(user, Load) or user.base is not value or user.row.size < 4:
                    continue
                # Of unknown origin it is taken for r1 itself, moved by what is seen here; lowering checks that.
                places = self.context_offsets(value) or {self.offset(value)[1]}
                place = min(places) + user.offset if len(places) == 1 else -1
                if user.row.size == 8:
                    self._set_object(user, context.objects.get(place))
                elif place in context.pointers:
                    self._set(user, _PACKET_POINTERS[context.pointers[place]])

    def _propagate(self, function: Function, value: Value, user: Inst | Terminator) -> None:
        region = self._found[value]
        match user:
            case Alu():
                self._propagate_alu(user)
            case Load(row, base, offset):
                if base is value:
                    self._propagate_load(function, user, region)
            case Store(row, base, offset, stored):
                place = self.frame_offset(base)
                if stored is value and row.size == 8 and place is not None:
                    self._spill((function.name, place[1] + offset), region)
            case Call():
                self._propagate_call(user, value, region)
            case Return():
                for call in self._callers[function.name]:
                    self._set(call, self._without_origin(region))
            case Atomic() | PacketLoad() | Const() | Frame() | Address():
                pass
            case _:
                for edge in edges_of(user):
                    for param, arg in zip(edge.block.params, edge.args, strict=True):
                        if arg is value:
                            self._propagate_param(param, region)

    def _without_origin(self, region: Region) -> Region:
        return replace(region, origin=None)

    def _propagate_param(self, param: Param, region: Region) -> None:
        others = [arg for arg in self._incoming[param] if arg is not param]
        one_origin = all(self._found.get(arg, region) == region for arg in others if not _is_zero(arg))
        self._set(param, region if one_origin else self._without_origin(region))

    def _propagate_alu(self, alu: Alu) -> None:
        name = alu.row.name
        x, y = self._found.get(alu.x), self._found.get(alu.y)
        if name in ("add64 reg", "add64 imm"):
            if x is not None and y is None:
                self._set(alu, x)
            elif y is not None and x is None:
                self._set(alu, y)
            else:
                self._set(alu, UNKNOWN)
        elif name in ("sub64 reg", "sub64 imm") and x is not None and y is None:
            self._set(alu, x)
        elif name in ("sub64 reg", "sub64 imm") and alu in self._found:
            self._set(alu, UNKNOWN)

    def _propagate_load(self, function: Function, load: Load, region: Region) -> None:
        root, total = self.offset(load.base)
        total += load.offset
        if region.kind is RegionKind.OBJECT and load.row.size == 8:
            self._set_object(load, object_named(region.name).pointers.get(total))
        elif isinstance(root, Frame) and load.row.size == 8:
            slot = (function.name, total)
            self._slot_loads[slot].append(load)
            if slot in self._slots:
                self._set(load, self._slots[slot])

    def _set_object(self, load: Load, name: str | None) -> None:
        if name is not None:
            self._set(load, Region(RegionKind.OBJECT, name, load))

    def _spill(self, slot: tuple[str, int], region: Region) -> None:
        old = self._slots.get(slot)
        new = region if old is None else join(old, region)
        if new != old:
            self._slots[slot] = new
            for load in self._slot_loads[slot]:
                self._set(load, new)

    def _propagate_call(self, call: Call, value: Value, region: Region) -> None:
        if call.callee in (Callee.SUBPROGRAM, Callee.INDIRECT):
            for name in self._names_of(call):
                for param, arg in zip(self.module.functions[name].params, call.args, strict=False):
                    if arg is value:
                        self._set(param, self._without_origin(region))
        elif call.callee is Callee.HELPER and call.target == TIMER_SET_CALLBACK and call.args[0] is value:
            self._propagate_timer(call.args[1], region)
        elif call.args and call.args[0] is value and self._result_kind(call) is ResultKind.MAP_VALUE:
            parts = region.parts or ((region.kind, region.name),)
            for kind, name in sorted(parts, key=lambda part: part[1]):
                self._set(call, self._found_in(name, call) if kind is RegionKind.MAP else UNKNOWN)

    def _found_in(self, map: str, call: Call) -> Region:
        """What a lookup in a map finds."""
        if holds_maps(self.module, map):
            return Region(RegionKind.MAP, map + INNER, call)
        return Region(RegionKind.MAP_VALUE, map, call)

    def _names_of(self, call: Call) -> tuple[str, ...]:
        """The functions that a call by name or through a register may run, as far as that is seen here."""
        if isinstance(call.target, str):
            return (call.target,)
        if isinstance(call.target, Address) and call.target.reference.kind is ReferenceKind.FUNCTION:
            return (call.target.reference.name,)
        return self._in_tables

    def _propagate_timer(self, callback: Value, timer: Region) -> None:
        """A timer's callback gets a value of the map that the timer stands in."""
        if not isinstance(callback, Address) or callback.reference.kind is not ReferenceKind.FUNCTION:
            return
        for param in self.module.functions[callback.reference.name].params:
            if param.register == _VALUE:
                self._set(param, self._without_origin(timer))

    def _result_kind(self, call: Call) -> ResultKind:
        helper = None
        if call.callee is Callee.HELPER and isinstance(call.target, int):
            helper = helper_by_id(call.target, self.module.program.type)
        elif call.callee is Callee.KFUNC and isinstance(call.target, str):
            helper = KFUNCS.get(call.target)
        return ResultKind.INTEGER if helper is None else helper.result.kind


def constant_step(alu: Alu) -> tuple[Value, int] | None:
    """(value, amount) when `alu` adds a constant amount to a value."""
    name = alu.row.name
    if name in ("add64 imm", "add64 reg"):
        if isinstance(alu.y, Const):
            return alu.x, _signed(alu.y.value)
        if isinstance(alu.x, Const):
            return alu.y, _signed(alu.x.value)
    elif name in ("sub64 imm", "sub64 reg") and isinstance(alu.y, Const):
        return alu.x, -_signed(alu.y.value)
    return None


def _is_zero(value: Value) -> bool:
    return isinstance(value, Const) and value.value == 0


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
