"""Sparse conditional constant propagation: which values are one constant on every path that can be taken.

Paths that decided branches rule out do not count, so `v3` is 1 here, although 2 flows into it in the text:

    v1 = address map-value .rodata + 4
    v2 = ldx32 [v1 + 0]                            the bytes there are 0
    if jeq64 v2, 0: block 2 (1) else block 1
    block 1: jump block 2 (2)                      never reached
    block 2 (v3): ...

(Wegman and Zadeck, TOPLAS 1991.) Loads are constant at constant offsets of read-only maps, but for words that
hold addresses. Static branches and may_goto can go both ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush
from typing import Final, NamedTuple, final

from ir.algebra import Integers, signed
from ir.core import Address, Alu, Block, Branch, Const, Edge, Function, Inst, Load, Param, Value
from ir.isa import ROW_BY_NAME, compute
from ir.object import Map, ReferenceKind
from ir.passes.laws import OPERAND, laws_of

U64: Final = (1 << 64) - 1
_ADD: Final = ROW_BY_NAME["add64 imm"].meaning
_SUB: Final = ROW_BY_NAME["sub64 imm"].meaning


class Place(NamedTuple):
    """The address of byte `offset` of the value of global-data map `map`."""

    map: str
    offset: int


Fact = int | Place
User = tuple[Block, Alu | Load | Branch] | tuple[Edge, Param]


@final
class Constants:
    """What is constant in one function: `facts` by value, and the edges that may be `taken`.

    A value without a fact may be anything. Nothing is known of what instructions at `opaque` slots compute.
    """

    def __init__(
        self, function: Function, maps: Mapping[str, Map], opaque: frozenset[int] = frozenset()
    ) -> None:
        self.function, self.maps, self.opaque = function, maps, opaque
        self.facts: dict[Value, Fact] = {}
        self.taken: set[Edge] = set()
        self.has_folded_load = False
        self._algebra = Integers(function.program.big_endian)
        self._met: set[Param] = set()
        self._visited: set[Block] = set()
        self._order = function.reverse_postorder()
        self._number = {block: number for number, block in enumerate(self._order)}
        self._waiting = [0]  # a heap: dominators come first, so that what a block reads has been seen
        self._lowered: list[Value] = []
        self._users: dict[Value, list[User]] | None = None
        while self._waiting or self._lowered:
            if self._waiting:
                self._visit(self._order[heappop(self._waiting)])
            else:
                self._propagate(self._lowered.pop())

    def is_reached(self, block: Block) -> bool:
        """Whether a path that can be taken leads to `block`."""
        return block in self._visited

    def decision(self, branch: Branch) -> bool | None:
        """Which way a branch always goes, or None."""
        x, y = self.facts.get(branch.x), self.facts.get(branch.y)
        row, holds = branch.row, None
        if type(y) is int:
            if type(x) is int:
                holds = compute(row, self._algebra, x, y)
            elif x is None:
                holds = laws_of(row, self._algebra.big_endian).right.get(y & (1 << row.bits) - 1)
        elif x is None and y is None and branch.x is branch.y:
            holds = laws_of(row, self._algebra.big_endian).same
        elif type(x) is int and y is None:
            holds = laws_of(row, self._algebra.big_endian).left.get(x & (1 << row.bits) - 1)
        return None if holds is None else bool(holds)

    def place_of(self, load: Load) -> Place | None:
        """Where a load reads, when that is a constant place in global data."""
        fact = self.facts.get(load.base)
        return Place(fact.map, fact.offset + load.offset) if type(fact) is Place else None

    def _visit(self, block: Block) -> None:
        if block in self._visited:
            return
        self._visited.add(block)
        facts = self.facts
        for inst in block.insts:
            if self.opaque and inst.at in self.opaque:
                continue
            if type(inst) is Const:
                facts[inst] = inst.value
                continue
            if type(inst) is Alu and inst.x not in facts and inst.y not in facts:
                continue
            fact = self._evaluate(inst)
            if fact is not None:
                facts[inst] = fact
        if self._users is not None:
            self._register(block, self._users)
        if type(block.terminator) is Branch:
            self._branch(block.terminator)
        else:
            for edge in block.edges():
                self._take(edge)

    def _branch(self, branch: Branch) -> None:
        holds = self.decision(branch)
        if holds is not False:
            self._take(branch.taken)
        if holds is not True:
            self._take(branch.other)

    def _take(self, edge: Edge) -> None:
        if edge in self.taken:
            return
        self.taken.add(edge)
        if edge.args:
            for param, arg in zip(edge.block.params, edge.args, strict=True):
                self._meet(edge.block, param, arg)
        if edge.block not in self._visited:
            heappush(self._waiting, self._number[edge.block])

    def _meet(self, block: Block, param: Param, arg: Value) -> None:
        fact = self.facts.get(arg)
        if param not in self._met:
            self._met.add(param)
            if fact is not None:
                self.facts[param] = fact
        elif param in self.facts and self.facts[param] != fact:
            if block in self._visited:
                self._lower(param)
            else:
                del self.facts[param]

    def _lower(self, value: Value) -> None:
        """Take the fact of a value away that visited blocks may have read."""
        if self._users is None:
            self._users = {}
            for block in self._order:
                if block in self._visited:
                    self._register(block, self._users)
        del self.facts[value]
        self._lowered.append(value)

    def _propagate(self, value: Value) -> None:
        """`value` has lost its fact: see what hung on it."""
        assert self._users is not None
        for place, user in self._users.get(value, ()):
            if isinstance(place, Edge):
                if place in self.taken:
                    assert isinstance(user, Param)
                    self._meet(place.block, user, value)
            elif isinstance(user, Branch):
                self._branch(user)
            elif user in self.facts:
                assert not isinstance(user, Param)
                if self._evaluate(user) != self.facts[user]:
                    self._lower(user)

    def _register(self, block: Block, users: dict[Value, list[User]]) -> None:
        """Note who in a visited block reads values that have a fact; no other value can lose one."""
        facts = self.facts
        for item in (*block.insts, block.terminator):
            if type(item) is Alu or type(item) is Branch:
                if item.x in facts:
                    users.setdefault(item.x, []).append((block, item))
                if item.y in facts:
                    users.setdefault(item.y, []).append((block, item))
            elif type(item) is Load and item.base in facts:
                users.setdefault(item.base, []).append((block, item))
        for edge in block.edges():
            for param, arg in zip(edge.block.params, edge.args, strict=True):
                if arg in facts:
                    users.setdefault(arg, []).append((edge, param))

    def _evaluate(self, inst: Inst) -> Fact | None:
        if type(inst) is Alu:
            return self._alu(inst)
        if type(inst) is Load:
            return self._load(inst)
        if type(inst) is Address and inst.reference.kind is ReferenceKind.MAP_VALUE:
            return Place(inst.reference.name, inst.reference.offset)
        return None

    def _alu(self, alu: Alu) -> Fact | None:
        x, y = self.facts.get(alu.x), self.facts.get(alu.y)
        if x is None and y is None:
            return None
        row = alu.row
        if type(y) is int:
            if type(x) is int:
                result: int = compute(row, self._algebra, x, y)
                return result
            if x is not None:
                return self._move(alu, x, y)
            law = laws_of(row, self._algebra.big_endian).right.get(y & (1 << row.bits) - 1)
            return None if law == OPERAND else law
        if type(x) is int:
            if y is not None:
                return self._move(alu, y, x) if row.meaning is _ADD else None
            law = laws_of(row, self._algebra.big_endian).left.get(x & (1 << row.bits) - 1)
            return None if law == OPERAND else law
        return None

    def _move(self, alu: Alu, place: Fact, amount: int) -> Place | None:
        """The place that lies a constant away from another."""
        assert isinstance(place, Place)
        if alu.row.bits != 64 or alu.row.meaning not in (_ADD, _SUB):
            return None
        amount = signed(64, amount)
        return Place(place.map, place.offset + (amount if alu.row.meaning is _ADD else -amount))

    def _load(self, load: Load) -> int | None:
        place = self.place_of(load)
        map_ = self.maps.get(place.map) if place is not None else None
        if place is None or map_ is None or not map_.is_read_only or map_.initial is None or load.row.imm:
            return None
        start, end = place.offset, place.offset + load.row.size
        if not 0 <= start <= end <= len(map_.initial):
            return None
        if any(start < offset + size and offset < end for offset, size in map_.relocated):
            return None
        self.has_folded_load = True
        value = int.from_bytes(map_.initial[start:end], "big" if self._algebra.big_endian else "little")
        return signed(8 * load.row.size, value) & U64 if load.row.signed else value
