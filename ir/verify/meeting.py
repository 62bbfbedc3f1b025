"""How states meet at a block: one enters it, two are joined, one covers another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Set

from ir.core import Edge, Param, Value
from ir.verify.state import State, pointer_room
from ir.verify.values import ANY, Area, Known, Pointer, as_number, covers_known, join_known

Slot = Callable[[int], Param]
# Areas, symbols, difference of the offsets -> value, its offset: of the pointers that two ways bring.
Leaders = dict[tuple[Area, Area, Value | None, Value | None, int], tuple[Value, int]]
# What is added to stack offsets of a caller, so that they have symbols of their own.
_OUTER = 1 << 10


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
