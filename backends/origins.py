"""Where pointers come from that are checked without knowing it from the program's text.

    r0 = lookup     r0 = lookup         p = phi [ lookup 1 + r9 ], [ lookup 2 ]
    r0 += r9            |               o = phi [ lookup 1 ], [ lookup 2 ]
          \\            /
           load [r0 + 27]               27 bytes after p must be in the value that o is in

A pointer reaches the value of a map that it was made from, however it was moved, and no other. Where which one that is
differs from way to way, the start of that value (its origin) goes the same ways: beside a block's parameter as a phi,
beside the parameter of a function that nobody else calls as an argument, beside a stack slot in a place of its own, where
it counts as long as the slot holds what was stored with it. An origin may be null (a slot was filled otherwise, a lookup
found nothing); what cannot be followed is its own origin.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final, final

from ir.callees import functions_taken
from ir.core import Alu, Atomic, Call, Const, Function, Load, Module, Param, Store, Value
from ir.isa import Callee
from ir.region import RegionKind
from ir.regions import Regions

if TYPE_CHECKING:
    from backends.unit import Facts

_CHECKED: Final = (Callee.HELPER, Callee.KFUNC)
_WORD: Final = 8
_Slot = tuple[str, int]  # of a function's frame
_Node = Value | _Slot


@final
class Origins:
    """The pointers of a module whose origins are followed: those that accesses without a proof may depend on."""

    def __init__(self, module: Module, regions: Regions, facts: Facts) -> None:
        self._module, self._regions = module, regions
        self._taken = frozenset(functions_taken(module))
        self._users: dict[_Node, list[_Node]] = defaultdict(list)  # those whose origin is one's
        self._followed: set[Value] = set()
        self._slots: set[_Slot] = set()
        self._inexact: set[_Node] = set()
        self._refilled: set[_Node] = set()
        self._owner = {param: function for function in module.functions.values() for param in function.params}
        self._follow([pointer for pointer in self._checked(facts) if self._is_unclear(pointer)])

    def is_followed(self, value: Value) -> bool:
        """Whether a parameter or a load has an origin of its own."""
        return value in self._followed

    def is_kept(self, function: Function, offset: int) -> bool:
        """Whether the slot at `offset` of a function's frame has an origin beside it."""
        return (function.name, offset) in self._slots

    def slots(self, function: Function) -> list[int]:
        """The offsets of a function's slots that have."""
        return sorted(offset for name, offset in self._slots if name == function.name)

    def is_exact(self, value: Value) -> bool:
        """Whether the origin of `value` is null or the very start of a value, of the map of its region."""
        return value not in self._inexact

    def is_refilled(self, value: Value) -> bool:
        """Whether the origin of `value` may be null because a slot was filled in a way that was not seen."""
        return value in self._refilled

    def root(self, value: Value) -> Value:
        """The value that has the origin of `value`: without the steps in between."""
        while isinstance(value, Alu):
            before = self._moved(value)
            if before is None:
                break
            value = before
        return value

    def _moved(self, alu: Alu) -> Value | None:
        """The pointer that `alu` moves."""
        x, y = self._regions.is_pointer(alu.x), self._regions.is_pointer(alu.y)
        if x and not y and alu.row.name.startswith(("add64", "sub64")):
            return alu.x
        return alu.y if y and not x and alu.row.name.startswith("add64") else None

    def _checked(self, facts: Facts) -> Iterator[Value]:
        """The pointers that are checked, or may be."""
        for function in self._module.functions.values():
            for inst in function.of_types(Load, Store, Atomic, Call):
                if facts.is_proved(inst):
                    continue
                if isinstance(inst, Load | Store | Atomic):
                    yield inst.base
                elif isinstance(inst, Call) and inst.callee in _CHECKED:
                    yield from inst.args

    def _is_unclear(self, value: Value) -> bool:
        return self._regions.of(value).kind in (RegionKind.MAP_VALUE, RegionKind.UNKNOWN)

    def _follow(self, work: list[_Node]) -> None:
        """Find all that the origins of these pointers depend on, and which of them are exact.

        A slot stands for all that is stored there, or each load of it would be followed to each store.
        """
        seen: set[_Node] = set()
        bad: list[_Node] = []
        filled: list[_Node] = []
        while work:
            node = work.pop()
            if node in seen:
                continue
            seen.add(node)
            sources = self._sources(node)
            if isinstance(node, tuple):
                filled.append(node)
            elif not sources and not self._is_start(node):
                bad.append(node)
            for source in sources:
                self._users[source].append(node)
            work += sources
        self._inexact = self._dependents(bad)
        self._refilled = self._dependents(filled)

    def _sources(self, value: _Node) -> Sequence[_Node]:
        """What the origin of `value` is one of; nothing when it is its own."""
        if isinstance(value, tuple):
            return self._stores[value]
        if not self._regions.is_pointer(value):
            return ()
        match value:
            case Alu():
                before = self._moved(value)
                return () if before is None else (before,)
            case Param():
                owner = self._owner.get(value)
                if not self._is_unclear(value) or (owner is not None and not self._is_private(owner)):
                    return ()
                sources = self._regions.sources(value)
                if sources:
                    self._followed.add(value)
                return sources
            case Load():
                return self._slot_of(value) if self._is_unclear(value) else ()
            case _:
                return ()

    def _is_private(self, function: Function) -> bool:
        """Whether nothing but direct calls in the module enters a function."""
        is_entered = function is self._module.main or function.info.is_global
        return not is_entered and function.name not in self._taken

    def _slot_of(self, load: Load) -> Sequence[_Slot]:
        """The slot that is loaded, if something is stored there as far as that is seen."""
        place = self._regions.frame_offset(load.base)
        if place is None or load.row.size != _WORD:
            return ()
        frame, offset = place
        slot = self._regions.of(frame).name, offset + load.offset
        if slot not in self._stores:
            return ()
        self._slots.add(slot)
        self._followed.add(load)
        return (slot,)

    @cached_property
    def _stores(self) -> dict[_Slot, list[Value]]:
        found: dict[_Slot, list[Value]] = defaultdict(list)
        for name, function in self._module.functions.items():
            for store in function.of_types(Store):
                assert isinstance(store, Store), "of this type"
                place = self._regions.frame_offset(store.base)
                if place is not None and store.row.size == _WORD:
                    found[name, place[1] + store.offset].append(store.value)
        return dict(found)

    def _is_start(self, value: Value) -> bool:
        """Whether `value` is null or the very start of a value in its region, wherever it is used."""
        if isinstance(value, Const):
            return value.value == 0
        region = self._regions.of(value)
        return region.kind is RegionKind.MAP_VALUE and region.origin is value

    def _dependents(self, work: list[_Node]) -> set[_Node]:
        found: set[_Node] = set()
        while work:
            value = work.pop()
            if value not in found:
                found.add(value)
                work += self._users[value]
        return found
