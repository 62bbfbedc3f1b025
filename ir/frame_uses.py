"""What a function does with its stack frame: the bytes it loads and stores, and those that others may touch.

stx64 [frame - 8], v3                  a slot: bytes -8..0
v2 = ldx32 [frame - 8]                 a part of it
v1 = add64 frame, -24
call helper map_lookup_elem (v2, v1)   pins the key's bytes, -24..-20: they must be in memory
call subprogram f (v1)                 pins the whole frame: f may go anywhere in it
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple, final

from ir.algebra import signed
from ir.core import (
    Address,
    Alu,
    Call,
    Const,
    Frame,
    Function,
    Inst,
    Load,
    Module,
    Store,
    Value,
    operands,
)
from ir.helpers import ArgumentKind, Helper, helper_by_id
from ir.isa import ROWS, Callee, Kind
from ir.object import ReferenceKind
from ir.regions import constant_step

FRAME_SIZE: Final = 512


class Range(NamedTuple):
    """Bytes [start, end) relative to r10: start >= -512, end <= 0."""

    start: int
    end: int


WHOLE: Final = Range(-FRAME_SIZE, 0)
_ORDERED: Final = {
    row.name for row in ROWS if row.kind in (Kind.LOAD, Kind.STORE) and row.group.startswith("atomic")
}


@final
@dataclass
class FrameUses:
    """The loads and stores at constant places of the frame, and the ranges that are pinned to memory."""

    accesses: dict[Load | Store, Range] = field(default_factory=dict)
    pinned: set[Range] = field(default_factory=set)

    def slots(self) -> dict[Range, Range]:
        """The slot that each accessed range is a part of, in order, for those that are: a slot is a run of at most 8 bytes
        in which accesses overlap and that nothing else touches.
        """
        found: dict[Range, Range] = {}
        group: list[Range] = []
        end = -FRAME_SIZE
        for each in (*sorted({*self.accesses.values(), *self.pinned}), Range(0, 0)):
            if each.start >= end and group:
                if end - group[0].start <= 8 and self.pinned.isdisjoint(group):
                    found |= dict.fromkeys(group, Range(group[0].start, end))
                group = []
            group.append(each)
            end = max(end, each.end)
        return found


def find_frame_uses(function: Function, module: Module) -> FrameUses:
    """How `function` uses its frame."""
    return _Finder(function, module).run()


@final
class _Finder:
    """Walks a function once; `places` are the offsets from r10 of the addresses found so far."""

    def __init__(self, function: Function, module: Module) -> None:
        self.function, self.module = function, module
        self.places: dict[Value, int] = {}
        self.uses = FrameUses()

    def run(self) -> FrameUses:
        """The uses, found in reverse postorder so that addresses come before what uses them."""
        places, pinned = self.places, self.uses.pinned
        for block in self.function.reverse_postorder():
            for inst in block.insts:
                if type(inst) is Frame:
                    places[inst] = 0
                elif places:
                    self._inst(inst)
            if places and not places.keys().isdisjoint(operands(block.terminator)):
                pinned.add(WHOLE)
            if WHOLE in pinned:
                break
        return self.uses

    def _inst(self, inst: Inst) -> None:
        places = self.places
        if type(inst) is Alu:
            if inst.x in places or inst.y in places:
                self._step(inst)
        elif type(inst) is Load or (type(inst) is Store and inst.value not in places):
            if inst.base in places:
                self._access(inst)
        elif type(inst) is Call:
            self._call(inst)
        elif type(inst) is not Const and not places.keys().isdisjoint(operands(inst)):
            self.uses.pinned.add(WHOLE)

    def _step(self, alu: Alu) -> None:
        step = constant_step(alu)
        if step is None or step[0] not in self.places:
            self.uses.pinned.add(WHOLE)
        else:
            self.places[alu] = signed(64, self.places[step[0]] + step[1])

    def _access(self, inst: Load | Store) -> None:
        start = signed(64, self.places[inst.base] + inst.offset)
        touched = Range(start, start + inst.row.size)
        if not -FRAME_SIZE <= touched.start <= touched.end <= 0:
            return  # it traps
        if inst.row.name in _ORDERED:
            self.uses.pinned.add(touched)
        else:
            self.uses.accesses[inst] = touched

    def _call(self, call: Call) -> None:
        places = self.places
        if places.keys().isdisjoint(operands(call)):
            return
        helper = None
        if call.callee is Callee.HELPER and isinstance(call.target, int):
            helper = helper_by_id(call.target, self.module.program.type)
        if helper is None or call.target in places:
            self.uses.pinned.add(WHOLE)
            return
        for position, value in enumerate(call.args):
            if value in places:
                start, size = places[value], self._passed_size(helper, call, position)
                touched = WHOLE if size is None else Range(max(start, -FRAME_SIZE), min(start + size, 0))
                self.uses.pinned.add(touched if touched.start < touched.end else WHOLE)

    def _passed_size(self, helper: Helper, call: Call, position: int) -> int | None:
        """How many bytes from an argument on a helper may touch; None when it may touch others too."""
        if position >= len(helper.arguments):
            return None
        argument = helper.arguments[position]
        if argument.kind is ArgumentKind.MEMORY:
            if argument.size:
                return argument.size
            size = call.args[position + 1] if position + 1 < len(call.args) else None
            return size.value if isinstance(size, Const) else FRAME_SIZE
        if argument.kind in (ArgumentKind.MAP_KEY, ArgumentKind.MAP_VALUE):
            return self._element_size(helper, call, argument.kind)
        return None

    def _element_size(self, helper: Helper, call: Call, kind: ArgumentKind) -> int | None:
        """Bytes of a key or value of the map argument, as they are copied: in whole 8-byte words."""
        for argument, value in zip(helper.arguments, call.args, strict=False):
            if argument.kind is ArgumentKind.MAP:
                is_map = isinstance(value, Address) and value.reference.kind is ReferenceKind.MAP
                map_ = self.module.maps.get(value.reference.name) if is_map else None  # type: ignore[union-attr]
                if map_ is None:
                    return None
                size = map_.key_size if kind is ArgumentKind.MAP_KEY else map_.value_size
                return -(-size // 8) * 8
        return None
