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

from typing import NamedTuple, final

from ir.core import Alu, Branch, Const, Value
from ir.verify.held import NOTHING_HELD
from ir.verify.scalar import Scalar, const
from ir.verify.values import (
    ANY,
    ANY_LENGTH,
    Area,
    AreaKind,
    Known,
    Pointer,
)

_CHAIN = 16
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


def pointer_room(state: State, pointer: Pointer) -> int | None:
    """How many bytes from `pointer` on surely lie below its area's length; None when it has no length.

    The pointer may be before the area's start: whoever asks sees to it that what is accessed is not.
    """
    length = pointer.area.length
    if length is None or pointer.is_nullable:
        return None
    return state.room(pointer.symbol, pointer.offset, pointer.span.smax, length)
