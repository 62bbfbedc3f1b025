"""What is known at one point of a function: its live values, its stack slots, offsets below lengths.

known    value -> Scalar or Pointer; of a value that is not here nothing is known
stack    byte offset from the frame -> (size, value stored there whole)
alias    value -> (symbol, constant) that it equals, where its own instruction does not show it
rooms    (symbol, length) -> n: symbol + n <= length, as numbers that do not wrap
packet   the area that a packet pointer loaded here points into
limits   the lengths that offsets are compared with
held     references, locks and the like, which somebody has to give up
outer    the state of the caller, suspended at its call
written  the bytes of the own frame that were written, as bits (kept for unprivileged programs)
lent     symbol -> value: what stands in callers' stack slots because this call stored it there
trail    the branches taken on the way, latest first
marks    the visits of loop heads that led here, latest only
exact    whether it is that of one path: nothing was lost by joining
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Set
from typing import NamedTuple, final

from ir.core import Alu, Branch, Const, Edge, Param, Value
from ir.verify.held import NOTHING_HELD
from ir.verify.scalar import Scalar, const
from ir.verify.values import (
    ANY,
    ANY_LENGTH,
    Area,
    AreaKind,
    Known,
    Pointer,
    as_number,
    covers_known,
    join_known,
)

Slot = Callable[[int], Param]
# Areas, symbols, difference of the offsets -> value, its offset: of the pointers that two ways bring.
Leaders = dict[tuple[Area, Area, Value | None, Value | None, int], tuple[Value, int]]

_CHAIN = 16
# What is added to stack offsets of a caller, so that they have symbols of their own.
_OUTER = 1 << 10
# Makes a State without filling it: that is done by who copies another.
_new = object.__new__
_U32 = 1 << 32
_U64 = 1 << 64


class Trail(NamedTuple):
    """The branches on the way to a state, latest first."""

    before: Trail | None
    branch: Branch
    taken: bool


@final
class State:
    """Mutable while its block is walked, then left alone."""

    __slots__ = (
        "alias",
        "exact",
        "held",
        "known",
        "lent",
        "limits",
        "marks",
        "outer",
        "packet",
        "rooms",
        "stack",
        "trail",
        "written",
    )

    def __init__(self, packet: Area | None = None, limits: tuple[Value, ...] = ()) -> None:
        self.known: dict[Value, Known] = {}
        self.stack: dict[int, tuple[int, Value]] = {}
        self.alias: dict[Value, tuple[Value, int]] = {}
        self.rooms: dict[tuple[Value, Value], int] = {}
        self.packet = packet
        self.limits = limits
        self.held = NOTHING_HELD
        self.outer: State | None = None
        self.lent: dict[Value, Value] = {}
        self.trail: Trail | None = None
        self.marks: frozenset[object] = frozenset()
        self.exact = True
        self.written = 0

    def copy(self) -> State:
        """A state of its own that says the same."""
        new = _new(State)
        new.packet, new.limits = self.packet, self.limits
        new.known = self.known.copy()
        new.stack = self.stack.copy()
        new.alias = self.alias.copy()
        new.rooms = self.rooms.copy()
        new.held = self.held
        new.outer = self.outer
        new.lent = self.lent.copy() if self.lent else {}
        new.trail = self.trail
        new.marks = self.marks
        new.exact = self.exact
        new.written = self.written
        return new

    def says_same(self, other: State) -> bool:
        """Whether `other` says the same, in the same words."""
        return all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__ if name != "outer"
        ) and (self.outer is other.outer)

    def of(self, value: Value) -> Known:
        """What is known of `value`."""
        if type(value) is Const:
            return const(64, value.value)
        return self.known.get(value, ANY)

    def number(self, value: Value) -> Scalar:
        """What is known of `value` as a number."""
        if type(value) is Const:
            return const(64, value.value)
        found = self.known.get(value, ANY)
        return found if type(found) is Scalar else ANY

    def symbol(self, value: Value, folds: bool = True) -> tuple[Value | None, int]:
        """`value` as symbol + constant, exactly (the sum does not wrap); (None, c) for the constant c.

        Unless it `folds`, values that are known to be a constant are symbols all the same.
        """
        total = 0
        for _ in range(_CHAIN):
            if type(value) is Const:
                return None, total + value.value
            known = self.known.get(value, ANY)
            if folds and type(known) is Scalar and not known.mask:
                return None, total + known.value
            other = self.alias.get(value)
            if other is None and type(value) is Alu:
                other = self._peel(value)
            if other is None:
                return value, total
            value, step = other
            total += step
        return value, total

    def _peel(self, alu: Alu) -> tuple[Value, int] | None:
        """(operand, constant) when `alu` is their sum without wrapping."""
        row = alu.row
        name = row.name
        if name.startswith("add"):
            operand, y = alu.x, self.number(alu.y)
            if y.mask:
                operand, y = alu.y, self.number(alu.x)
        elif name.startswith("sub"):
            operand, y = alu.x, self.number(alu.y)
        elif name == "mov32 reg":
            return (alu.y, 0) if self.number(alu.y).umax < _U32 else None
        else:
            return None
        if y.mask:
            return None
        amount = y.half().smin if row.bits == 32 else y.smin
        if name.startswith("sub"):
            amount = -amount
        known = self.known.get(operand, ANY)
        if type(known) is not Scalar or type(operand) is Const:
            return None
        limit = _U32 if row.bits == 32 else _U64
        if known.umin + amount >= 0 and known.umax + amount < limit:
            return operand, amount
        # It may wrap for some operands, but not for those that give this sum.
        total = self.number(alu)
        if known.umax >= limit:
            return None
        if amount < 0 and total.umax < known.umin + amount + limit:
            return operand, amount
        if amount > 0 and total.umin > known.umax + amount - limit:
            return operand, amount
        return None

    def room(self, symbol: Value | None, offset: int, most: int, length: Value) -> int | None:
        """The greatest known n with symbol + offset + n <= length; symbol + offset is `most` or less."""
        by_range = self.number(length).umin - most
        if symbol is length:
            return -offset
        known = self.rooms.get((symbol, length)) if symbol is not None else None
        if known is not None and known - offset > by_range:
            return known - offset
        return by_range if by_range > -_U32 else None

    def note_room(self, symbol: Value | None, length: Value, room: int) -> None:
        """Learn that symbol + room <= length."""
        if symbol is not None and symbol is not length and room > self.rooms.get((symbol, length), -_U64):
            self.rooms[symbol, length] = room

    def forget_symbol(self, symbol: Value) -> None:
        """`symbol` is about to stand for something else: express by other means what it was used for."""
        for value, known in self.known.items():
            if type(known) is Pointer and known.symbol is symbol:
                self.known[value] = Pointer(known.area, value, 0, known.span, known.is_nullable)
        for key in [key for key in self.rooms if key[0] is symbol]:
            del self.rooms[key]
        for value in [value for value, place in self.alias.items() if place[0] is symbol]:
            del self.alias[value]

    def give_back(self) -> None:
        """Tell the callers what is known by now of what stands in their stack slots."""
        for symbol, value in self.lent.items():
            fact = self.known.get(value)
            if fact is None:
                continue
            holder = self
            while holder.outer is not None:
                if symbol in holder.outer.known:
                    holder.outer = holder.outer.copy()
                    holder.outer.known[symbol] = without_symbol(fact, symbol)
                    break
                holder = holder.outer

    def forget_packets(self, gone: Known = ANY) -> None:
        """The packet may have moved: pointers into it are `gone`, here and in the callers."""
        for value, known in self.known.items():
            if type(known) is Pointer and _is_of_packet(known.area):
                self.known[value] = gone
        if self.packet is not None:
            for area in (self.packet, self.packet.meta):
                if area is not None and area.length is not None:
                    self.forget_length(area.length)
                    self.limits = tuple(limit for limit in self.limits if limit is not area.length)
        self.packet = None
        if self.outer is not None:
            self.outer = self.outer.copy()
            self.outer.forget_packets(gone)

    def forget_area(self, area: Area, gone: Known = ANY) -> None:
        """`area` is no more: pointers into it and what lives by it are `gone`, here and in the callers."""
        for value, known in self.known.items():
            if type(known) is Pointer and known.area.lives_by(area):
                self.known[value] = gone
        if self.outer is not None:
            self.outer = self.outer.copy()
            self.outer.forget_area(area, gone)

    def replace_area(self, old: Area, new: Area) -> None:
        """Pointers into `old` are pointers into `new`, here and in the callers."""
        for value, known in self.known.items():
            if type(known) is Pointer and known.area is old:
                self.known[value] = Pointer(new, known.symbol, known.offset, known.span, known.is_nullable)
        if self.outer is not None:
            self.outer = self.outer.copy()
            self.outer.replace_area(old, new)

    def points_into(self, area: Area) -> bool:
        """Whether there is a pointer into `area`, here or in a caller."""
        holder: State | None = self
        while holder is not None:
            if any(type(known) is Pointer and known.area is area for known in holder.known.values()):
                return True
            holder = holder.outer
        return False

    def start_packet(self, packet: Area) -> None:
        """Packet pointers loaded from here on point into `packet`."""
        self.packet = packet
        for area in (packet, packet.meta):
            if area is not None and area.length is not None:
                self.forget_length(area.length)
                self.limits = (*self.limits, area.length)

    def forget_length(self, length: Value) -> None:
        """`length` is about to mean another number."""
        self.known[length] = ANY_LENGTH
        for key in [key for key in self.rooms if key[1] is length]:
            del self.rooms[key]
        for value in [value for value, place in self.alias.items() if place[0] is length]:
            del self.alias[value]

    def is_pointer_at(self, place: int, size: int) -> bool:
        """Whether one of `size` stack bytes from `place` is a part of a pointer."""
        for offset, (length, value) in self.stack.items():
            if offset < place + size and place < offset + length and type(self.known.get(value)) is Pointer:
                return True
        return False

    def kill_stack(self, low: int, high: int) -> None:
        """Bytes [low, high) of the frame were written."""
        hit = [offset for offset, (size, _) in self.stack.items() if offset < high and low < offset + size]
        for offset in hit:
            del self.stack[offset]


def without_symbol(fact: Known, symbol: Value) -> Known:
    """What `fact` says of a value, said of `symbol`, without naming other symbols."""
    if type(fact) is Pointer and fact.symbol is not None:
        return Pointer(fact.area, symbol, 0, fact.span, fact.is_nullable)
    return fact


def _is_of_packet(area: Area) -> bool:
    """Whether a pointer into `area` points into a packet, perhaps through a dynptr of it."""
    if area.kind in (AreaKind.PACKET, AreaKind.PACKET_META):
        return True
    return area.owner is not None and area.owner.is_packet_view


def enter(state: State, edge: Edge, live: Set[Value], own: set[Value], slot: Slot) -> State:
    """The state on arriving by `edge`: arguments become parameters, what nobody needs is dropped.

    `own` are the symbols that the block makes (its parameters and merged stack slots) and, at the head of a loop,
    all that the loop makes: whatever names them on arrival means the previous time around, so it is expressed by
    other means or dropped.
    """
    limits = state.limits
    new = State(state.packet, limits)
    new.held, new.outer, new.trail, new.marks = state.held, state.outer, state.trail, state.marks
    new.exact, new.written = state.exact, state.written
    known = state.known
    keep: dict[Value, Known] = {value: known[value] for value in live if value in known}
    renamed: list[tuple[int, Value]] = []
    if state.stack:
        new.stack = state.stack.copy()
        for offset, (size, value) in state.stack.items():
            if value in own:
                merged = slot(offset)
                own.add(merged)
                new.stack[offset] = (size, merged)
                renamed.append((offset, value))
            elif value in known:
                keep[value] = known[value]
    for limit in limits:
        if limit in known:
            keep[limit] = known[limit]
    for symbol, value in state.lent.items():
        if value not in own:
            new.lent[symbol] = value
            if value in known:
                keep[value] = known[value]
    named: list[Value] = []
    leaders: dict[tuple[Area, Value], tuple[Value, int]] = {}
    for value, fact in keep.items():
        if type(fact) is Pointer and fact.symbol is not None:
            if fact.symbol not in own:
                named.append(fact.symbol)
            elif value in own:
                keep[value] = ANY
            else:
                keep[value] = _renamed(fact, value, leaders)
                room = pointer_room(state, fact)
                if room is not None and fact.area.length in limits:
                    new.rooms[value, fact.area.length] = room
    for key, room in state.rooms.items():
        symbol = key[0]
        if (symbol in keep or symbol in named) and symbol not in own and (key[1] in limits or key[1] in live):
            new.rooms[key] = room
    for value, place in state.alias.items():
        if value in keep and place[0] not in own:
            new.alias[value] = place
    new.known = keep
    for offset, value in renamed:
        _pass(state, new, slot(offset), value, own, leaders)
    if edge.args:
        for param, arg in zip(edge.block.params, edge.args, strict=True):
            _pass(state, new, param, arg, own, leaders)
    return new


def _renamed(fact: Pointer, symbol: Value, leaders: dict[tuple[Area, Value], tuple[Value, int]]) -> Pointer:
    """`fact` said of `symbol`, or of the one that was first to be at a constant distance from it."""
    leader, offset = symbol, fact.offset
    if fact.symbol is not None and not fact.is_nullable:
        leader, offset = leaders.setdefault((fact.area, fact.symbol), (symbol, fact.offset))
    return Pointer(fact.area, leader, fact.offset - offset, fact.span, fact.is_nullable)


def _pass(
    state: State,
    new: State,
    symbol: Value,
    arg: Value,
    own: set[Value],
    leaders: dict[tuple[Area, Value], tuple[Value, int]],
) -> None:
    """`symbol` takes the value of `arg`, and its room below each length."""
    fact = state.of(arg)
    if type(fact) is Pointer:
        room = pointer_room(state, fact)
        if room is not None and fact.area.length in state.limits:
            assert fact.area.length is not None
            new.rooms[symbol, fact.area.length] = room
            if fact.symbol is not None and fact.symbol not in own:
                new.note_room(fact.symbol, fact.area.length, room + fact.offset)
        if fact.symbol in own:
            fact = _renamed(fact, symbol, leaders)
    elif fact is not ANY:
        for limit in state.limits:
            root, offset = state.symbol(arg)
            room = state.room(root, offset, as_number(fact).umax, limit)
            if room is not None:
                new.rooms[symbol, limit] = room
    new.known[symbol] = fact


def pointer_room(state: State, pointer: Pointer) -> int | None:
    """How many bytes from `pointer` on surely lie below its area's length; None when it has no length.

    The pointer may be before the area's start: whoever asks sees to it that what is accessed is not.
    """
    length = pointer.area.length
    if length is None or pointer.is_nullable:
        return None
    return state.room(pointer.symbol, pointer.offset, pointer.span.smax, length)


def join_states(a: State, b: State, slot: Slot) -> State:
    """What holds on both of two ways to one block.

    `slot(offset)` stands for what two ways keep at a stack offset.
    """
    limits = a.limits if a.limits == b.limits else tuple(limit for limit in a.limits if limit in b.limits)
    new = State(a.packet if a.packet is b.packet else None, limits)
    new.held, new.trail, new.exact, new.written = a.held, a.trail, False, a.written & b.written
    new.marks = a.marks if a.marks is b.marks else a.marks | b.marks
    new.outer = _join_outer(a.outer, b.outer, slot)
    new.lent = {symbol: value for symbol, value in a.lent.items() if b.lent.get(symbol) is value}
    known, other = new.known, b.known
    merged: list[tuple[Value, Value, Value]] = []
    leaders: Leaders = {}
    for value, fact in a.known.items():
        found = other.get(value)
        if found is not None:
            both = fact if found is fact else _join(fact, found, value, leaders)
            if both is not ANY:
                known[value] = both
                if both is not fact and type(both) is Pointer and both.symbol is value:
                    merged.append((value, value, value))
    for offset, (size, value) in a.stack.items():
        there = b.stack.get(offset)
        if there is None or there[0] != size:
            continue
        if there[1] is value:
            new.stack[offset] = (size, value)
            continue
        symbol = slot(offset)
        new.stack[offset] = (size, symbol)
        known[symbol] = _join(a.of(value), b.of(there[1]), symbol, leaders)
        merged.append((symbol, value, there[1]))
    for key, room in a.rooms.items():
        there_room = b.rooms.get(key)
        if there_room is not None:
            new.rooms[key] = room if room < there_room else there_room
    for merge in merged:
        _merge_room(a, b, new, *merge)
    for value, place in a.alias.items():
        if b.alias.get(value) == place:
            new.alias[value] = place
    return new


def _join(a: Known, b: Known, symbol: Value, leaders: Leaders) -> Known:
    """As `join_known`; pointers that are equally far apart on both ways have the first one's symbol."""
    both = join_known(a, b, symbol)
    if type(both) is not Pointer or both.symbol is not symbol or both.is_nullable:
        return both
    if type(a) is not Pointer or type(b) is not Pointer:
        return both
    key = a.area, b.area, a.symbol, b.symbol, a.offset - b.offset
    leader, offset = leaders.setdefault(key, (symbol, a.offset))
    if leader is symbol:
        return both
    return Pointer(both.area, leader, a.offset - offset, both.span)


def _join_outer(a: State | None, b: State | None, slot: Slot) -> State | None:
    if a is b or a is None or b is None:
        return a
    return join_states(a, b, lambda offset: slot(offset + _OUTER))


def _merge_room(a: State, b: State, new: State, symbol: Value, x: Value, y: Value) -> None:
    """The room of what is `x` on one way and `y` on the other."""
    left, right = a.of(x), b.of(y)
    if type(left) is not Pointer or type(right) is not Pointer or left.area is not right.area:
        return
    rooms = pointer_room(a, left), pointer_room(b, right)
    if rooms[0] is not None and rooms[1] is not None:
        assert left.area.length is not None
        new.rooms[symbol, left.area.length] = min(rooms[0], rooms[1])


def covers_state(a: State, b: State, own: Collection[Value] = ()) -> bool:
    """Whether everything `a` says also holds by what `b` says.

    `own` are symbols that stand for whatever stands in a stack slot on arrival: what `a` says of one is compared
    with what `b` says of the value it has there.
    """
    if a is b:
        return True
    if len(a.stack) > len(b.stack):
        return False
    slots: set[Value] = set()
    for offset, (size, value) in a.stack.items():
        there = b.stack.get(offset)
        if there is None or there[0] != size:
            return False
        if value in own:
            slots.add(value)
            if not _covers_slot(a, b, value, there[1]):
                return False
        elif there[1] is not value:
            return False
    known = b.known
    for value, fact in a.known.items():
        if fact is not ANY and value not in slots:
            other = known.get(value, ANY)
            if other is not fact and not _covers(value, fact, other, known):
                return False
    for key, room in a.rooms.items():
        if key[0] not in slots and b.rooms.get(key, room - 1) < room:
            return False
    for value, alias in a.alias.items():
        if b.alias.get(value) != alias:
            return False
    for symbol, lent in a.lent.items():
        if b.lent.get(symbol) is not lent:
            return False
    if a.outer is not None and b.outer is not None and not covers_state(a.outer, b.outer, own):
        return False
    if a.written & ~b.written or a.held != b.held:
        return False
    return (a.packet is b.packet or a.packet is None) and set(a.limits) <= set(b.limits)


def _covers(value: Value, fact: Known, other: Known, known: Mapping[Value, Known]) -> bool:
    """As `covers_known`; a pointer whose offset is the symbol `value` itself may have any.

    One that is as far from another as `known` says has that one's symbol.
    """
    if type(fact) is Pointer and type(other) is Pointer and fact.symbol is not None:
        if fact.symbol is value and not fact.offset:
            other = Pointer(other.area, value, 0, other.span, other.is_nullable)
        elif fact.symbol is not other.symbol:
            leader = known.get(fact.symbol)
            if (
                type(leader) is Pointer
                and leader.area is other.area
                and leader.symbol is other.symbol
                and other.offset - leader.offset == fact.offset
                and not leader.is_nullable
            ):
                other = Pointer(other.area, fact.symbol, fact.offset, other.span, other.is_nullable)
    return covers_known(fact, other)


def _covers_slot(a: State, b: State, symbol: Value, value: Value) -> bool:
    """Whether what `a` says of the symbol of a stack slot holds of the `value` that `b` has there."""
    if not _covers(symbol, a.of(symbol), b.of(value), b.known):
        return False
    other = b.of(value)
    for key, room in a.rooms.items():
        if key[0] is not symbol:
            continue
        if type(other) is Pointer:
            known = pointer_room(b, other) if other.area.length is key[1] else None
        else:
            root, offset = b.symbol(value)
            known = b.room(root, offset, other.umax, key[1])
        if known is None or known < room:
            return False
    return True
