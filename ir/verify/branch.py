"""What is known on each way out of a branch."""

from __future__ import annotations

from collections.abc import Mapping

from ir.core import Alu, Branch, Const, Param, Value
from ir.isa import compute
from ir.verify.induction import Group, spread
from ir.verify.refine import Relation, Test, refine, test_of
from ir.verify.scalar import Scalar, meet
from ir.verify.state import State
from ir.verify.transfer import SCALARS
from ir.verify.values import ANY, MAX_LENGTH, ZERO, Known, Pointer

_U32 = 1 << 32
# Comparisons of two addresses of one area that compare their offsets.
_ORDERS = (Relation.EQ, Relation.ULT)
# Offsets up to here may be compared by comparing addresses: neither sum wraps.
_NEAR = 1 << 62


def fork(state: State, branch: Branch, groups: Mapping[Param, Group]) -> tuple[State | None, State | None]:
    """The states where `branch` is taken and where it is not, each None when that way is never gone.

    `state` becomes one of them. `groups` are the counters that move with each counter of a loop.
    """
    x, y, row = state.of(branch.x), state.of(branch.y), branch.row
    test = test_of(row)
    if type(x) is Scalar and type(y) is Scalar:
        pairs = refine(row, True, x, y), refine(row, False, x, y)
        first = state if None in pairs else state.copy()
        ways = (
            _learn_numbers(first, branch, test, True, x, y, pairs[0]) if pairs[0] is not None else None,
            _learn_numbers(state, branch, test, False, x, y, pairs[1]) if pairs[1] is not None else None,
        )
        for way in ways if groups else ():
            if way is not None:
                _spread(way, branch, groups)
        return ways
    if type(x) is Pointer and type(y) is Pointer:
        first = state.copy()
        return _follow_pointers(first, branch, test, True, x, y), _follow_pointers(
            state, branch, test, False, x, y
        )
    if test.relation is Relation.EQ and test.bits == 64:
        for value, fact, other in ((branch.x, x, y), (branch.y, y, x)):
            if type(fact) is not Pointer or other != ZERO:
                continue
            if not fact.is_nullable and fact.span.smin >= 0 and fact.span.smax <= MAX_LENGTH:
                return (state, None) if test.is_negated else (None, state)
            if fact.is_nullable:
                first = state.copy()
                _learn_null(first, value, fact, not test.is_negated)
                _learn_null(state, value, fact, test.is_negated)
                return first, state
    return state.copy(), state


def _spread(state: State, branch: Branch, groups: Mapping[Param, Group]) -> None:
    for value in (branch.x, branch.y):
        if type(value) is Const:
            continue
        root, _ = (value, 0) if type(value) is Param else state.symbol(value)
        if type(root) is Param and root in groups.get(root, ()):
            spread(state, root, groups[root])


def _learn_null(state: State, value: Value, fact: Pointer, is_null: bool) -> None:
    if is_null and fact.area in state.held.references:
        state.held = state.held.without_reference(fact.area)
    known: Known = ZERO if is_null else Pointer(fact.area, fact.symbol, fact.offset, fact.span)
    root, offset = state.alias.get(value, (value, 0))
    for other, found in list(state.known.items()):
        if type(found) is not Pointer or found.area is not fact.area:
            continue
        if other is value or (offset == 0 and other is root) or state.alias.get(other) == (root, offset):
            state.known[other] = known


def _learn_numbers(
    state: State, branch: Branch, test: Test, taken: bool, x: Scalar, y: Scalar, pair: tuple[Scalar, Scalar]
) -> State:
    """On the way where the branch is `taken` or not, its operands `x` and `y` are the `pair`."""
    if not (x.mask and y.mask):
        pass  # a constant is in no relation
    elif test.bits == 64 or (x.umax < _U32 and y.umax < _U32):
        # By the facts before: the constants that come off must not have wrapped.
        _relate(state, test, taken, state.symbol(branch.x), state.symbol(branch.y))
    _learn(state, branch.x, x, pair[0])
    _learn(state, branch.y, y, pair[1])
    return state


def _learn(state: State, value: Value, old: Scalar, now: Scalar) -> None:
    """`value` is `now`, and so is what it is a sum of."""
    if now is old or type(value) is Const:
        return
    root, offset = state.symbol(value)
    state.known[value] = now
    if root is value and now.mask:
        root, offset = state.symbol(value)
    if root is None:
        return
    found = state.known.get(root, ANY)
    if root is not value and type(found) is Scalar:
        both = meet(found, SCALARS.sub(64, now, SCALARS.const(64, offset)))
        if both is None or both is found:
            return
        state.known[root] = both
        now, offset = both, 0
    for other, (symbol, distance) in state.alias.items():
        fact = state.known.get(other, ANY)
        if symbol is root and other is not value and type(fact) is Scalar:
            far = SCALARS.add(64, now, SCALARS.const(64, distance - offset))
            state.known[other] = meet(fact, far) or fact
    for other, fact in state.known.items():
        if type(other) is not Alu or other.x is not root or other is value or type(fact) is not Scalar:
            continue
        name = other.row.name
        if name == "mov32 reg" or (type(other.y) is Const and name.startswith(("add", "sub"))):
            sum_: Scalar = compute(other.row, SCALARS, state.number(root), state.number(other.y))
            state.known[other] = meet(fact, sum_) or fact


def _learn_offsets(state: State, value: Value, learned: Pointer) -> None:
    """`value` is `learned`: other pointers at constant distances from it are better known too."""
    if learned.symbol is None:
        return
    for other, fact in state.known.items():
        if other is value or type(fact) is not Pointer or fact.symbol is not learned.symbol:
            continue
        if fact.area is learned.area and not fact.is_nullable:
            distance = SCALARS.const(64, fact.offset - learned.offset)
            span = meet(fact.span, SCALARS.add(64, learned.span, distance))
            if span is not None and span is not fact.span:
                state.known[other] = Pointer(fact.area, fact.symbol, fact.offset, span)


def _follow_pointers(
    state: State, branch: Branch, test: Test, taken: bool, x: Pointer, y: Pointer
) -> State | None:
    if test.relation is Relation.EQ and test.bits == 64 and taken != test.is_negated:
        # Equal to what is not NULL.
        for value, fact, other in ((branch.x, x, y), (branch.y, y, x)):
            if (
                fact.is_nullable
                and not other.is_nullable
                and not (fact.area.is_object or other.area.is_object)
            ):
                _learn_null(state, value, fact, False)
    x, y = _as_metadata(state, x, y), _as_metadata(state, y, x)
    length = x.area.length
    if x.area is not y.area or not x.area.is_single or test.bits != 64 or test.relation not in _ORDERS:
        return state
    if x.is_nullable or y.is_nullable or min(x.span.smin, y.span.smin) < 0:
        return state
    if max(x.span.umax, y.span.umax) > _NEAR:
        return state
    pair = refine(branch.row, taken, x.span, y.span)
    if pair is None:
        return None
    if length is not None:
        _relate(state, test, taken, (x.symbol, x.offset), (y.symbol, y.offset))
    for value, fact, span in ((branch.x, x, pair[0]), (branch.y, y, pair[1])):
        if span is fact.span:
            continue
        before = state.of(value)
        if type(before) is Pointer and before.area is fact.area:
            learned = Pointer(fact.area, fact.symbol, fact.offset, span)
            state.known[value] = learned
            _learn_offsets(state, value, learned)
        if length is not None and fact.symbol is length:
            both = meet(state.number(length), SCALARS.sub(64, span, SCALARS.const(64, fact.offset)))
            if both is None:
                return None  # the length is known by other comparisons not to be so
            state.known[length] = both
    return state


def _as_metadata(state: State, pointer: Pointer, other: Pointer) -> Pointer:
    """The start of a packet is the end of the metadata before it, when compared with a pointer into that."""
    meta = pointer.area.meta
    if meta is None or other.area is not meta or pointer.symbol is not None or pointer.offset:
        return pointer
    assert meta.length is not None
    return Pointer(meta, meta.length, 0, state.number(meta.length))


def _relate(
    state: State, test: Test, taken: bool, x: tuple[Value | None, int], y: tuple[Value | None, int]
) -> None:
    """Note what the test tells about `symbol + room <= length`."""
    if test.is_flipped:
        x, y = y, x
    holds = taken != test.is_negated
    if test.relation is Relation.ULT:
        if holds:
            _below(state, x, y, 1)
        else:
            _below(state, y, x, 0)
    elif test.relation is Relation.EQ:
        for low, high in ((x, y), (y, x)):
            if holds:
                _below(state, low, high, 0)
            elif low[0] is not None and high[0] is not None:
                room = state.rooms.get((low[0], high[0]))
                if room is not None and room == low[1] - high[1]:
                    state.rooms[low[0], high[0]] = room + 1


def _below(state: State, low: tuple[Value | None, int], high: tuple[Value | None, int], gap: int) -> None:
    """low + gap <= high."""
    if high[0] is not None:
        state.note_room(low[0], high[0], low[1] + gap - high[1])
