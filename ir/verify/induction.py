"""Counting loops: parameters of a head that every trip moves by a constant, and tests that end the loop.

    head (i, p):                    i = i0 + k, p = p0 + 4 k on arriving for the k-th time
      ...
      i' = i + 1, p' = p + 4
      if i' != 10: head (i', p')    so the head is reached at most 10 - i0 times

What counts is read off the code, so a bound needs no ranges that converge; what `k` can be then bounds every
counter of the loop, and what is learned about one counter is learned about the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from ir.algebra import signed
from ir.core import Alu, Branch, Const, Param, Value
from ir.dominators import Dominators
from ir.verify.loops import Loop
from ir.verify.refine import Relation, test_of
from ir.verify.scalar import Scalar, between, meet
from ir.verify.state import State
from ir.verify.transfer import SCALARS
from ir.verify.values import Known, Pointer

_CHAIN: Final = 8
_MOST_TESTS: Final = 32
_U32: Final = 1 << 32
_NEAR: Final = 1 << 62


@final
@dataclass(frozen=True, slots=True)
class Exit:
    """The loop goes on only while `counter + offset` is `relation` to `limit`, as `bits`-wide numbers."""

    counter: Param
    offset: int
    relation: str
    limit: Value
    bits: int
    test_bits: int
    is_signed: bool


@final
class Induction:
    """What one natural loop counts with: steps by parameter (with the width they wrap at), and its exits."""

    def __init__(self, loop: Loop, dominators: Dominators) -> None:
        self.loop = loop
        self.steps: dict[Param, tuple[int, int]] = _find_steps(loop)
        self.exits: list[Exit] = _find_exits(loop, dominators, self.steps) if self.steps else []

    def arrivals(self, entry: State) -> int | None:
        """How often at most the head is reached each time the loop is entered.

        `entry` is known on entering it.
        """
        found = [_arrivals(each, self.steps[each.counter], entry) for each in self.exits]
        return min((count for count in found if count is not None), default=None)

    def clamp(self, entry: State, state: State, arrivals: int) -> tuple[Group, frozenset[Param]]:
        """Make what `state`, at the head, says of the counters what `arrivals` allow.

        Returns the counters that move together, and all that were bounded.
        """
        trips = between(64, 0, arrivals - 1)
        members: Group = {}
        bounded: set[Param] = set()
        for param, (step, bits) in self.steps.items():
            first = entry.known.get(param)
            if first is None:
                continue
            span = first.span if type(first) is Pointer else first
            assert type(span) is Scalar
            low, high = span.umin + min(step, 0) * arrivals, span.umax + max(step, 0) * arrivals
            if bits == 32 and (low < 0 or high >= _U32):
                continue
            reach = SCALARS.add(64, span, SCALARS.mul(64, trips, SCALARS.const(64, step)))
            if type(first) is not Pointer:
                state.known[param] = reach
            else:
                now = state.known.get(param)
                if type(now) is not Pointer or now.area is not first.area:
                    continue
                state.known[param] = Pointer(now.area, param, 0, reach, now.is_nullable)
            bounded.add(param)
            if low >= 0 and high < _NEAR:
                members[param] = span, step
        return members, frozenset(bounded)


Group = dict[Param, tuple[Scalar, int]]
"""Counters of one loop that move together and never wrap: where each starts, and its step."""


def spread(state: State, param: Param, group: Group) -> None:
    """`param` is better known now: so is how often its loop went round, and so are the other counters."""
    first, step = group[param]
    now = state.number(param)
    if step > 0:
        least, most = now.umin - first.umax, now.umax - first.umin
    else:
        least, most = first.umin - now.umax, first.umax - now.umin
    pace = abs(step)
    least, most = max(0, -(-least // pace)), most // pace
    if least > most:
        return
    trips = between(64, least, most)
    for other, (start, other_step) in group.items():
        if other is not param and other in state.known:
            reach = SCALARS.add(64, start, SCALARS.mul(64, trips, SCALARS.const(64, other_step)))
            _meet_into(state, other, state.known[other], reach)


def _meet_into(state: State, param: Param, now: Known, reach: Scalar) -> None:
    both = meet(now.span if type(now) is Pointer else now, reach)
    if both is None:
        return
    if type(now) is Pointer:
        state.known[param] = Pointer(now.area, now.symbol, now.offset, both, now.is_nullable)
    else:
        state.known[param] = both


def _find_steps(loop: Loop) -> dict[Param, tuple[int, int]]:
    """The parameters of the head that every back-edge changes by one constant, not 0."""
    found: dict[Param, tuple[int, int]] = {}
    edges = [edge for latch in loop.latches for edge in latch.edges() if edge.block is loop.head]
    for position, param in enumerate(loop.head.params):
        steps: set[tuple[int, int]] = set()
        for edge in edges:
            counter, step, bits = peel(edge.args[position])
            steps.add((step, bits) if counter is param else (0, 0))
        if len(steps) == 1:
            step, bits = steps.pop()
            if step:
                found[param] = step, bits
    return found


def _find_exits(loop: Loop, dominators: Dominators, steps: Mapping[Param, tuple[int, int]]) -> list[Exit]:
    found: list[Exit] = []
    latches = dominators.span(loop.latches)
    for block in loop.blocks:
        terminator = block.terminator
        if type(terminator) is not Branch or len(found) >= _MOST_TESTS:
            continue
        stays = terminator.taken.block in loop.blocks
        if stays == (terminator.other.block in loop.blocks):
            continue
        if dominators.dominates_span(block, latches):
            found += _read_exit(loop, terminator, stays, steps)
    return found


_NEGATED: Final = {"<": ">=", "<=": ">", "!=": "==", "==": "!=", ">": "<=", ">=": "<"}
_EXCHANGED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "!=": "!=", "==": "=="}


def _read_exit(loop: Loop, branch: Branch, stays: bool, steps: Mapping[Param, tuple[int, int]]) -> list[Exit]:
    """The condition under which a branch stays in the loop, for each operand that counts."""
    test = test_of(branch.row)
    if test.relation is Relation.SET:
        return []
    relation = "==" if test.relation is Relation.EQ else "<"
    if test.is_flipped:
        relation = _EXCHANGED[relation]
    if stays == test.is_negated:
        relation = _NEGATED[relation]
    found: list[Exit] = []
    for value, limit, named in ((branch.x, branch.y, relation), (branch.y, branch.x, _EXCHANGED[relation])):
        counter, offset, bits = peel(value)
        if type(counter) is Param and counter in steps and _is_invariant(loop, limit):
            width = min(bits, test.bits, steps[counter][1])
            is_signed = test.relation is Relation.SLT
            if not is_signed or width == test.bits:
                found.append(Exit(counter, offset, named, limit, width, test.bits, is_signed))
    return found


def _is_invariant(loop: Loop, value: Value) -> bool:
    return type(value) is Const or value not in loop.made()


def peel(value: Value) -> tuple[Value, int, int]:
    """`value` as (root, constant, bits): it is root + constant, as far as neither leaves `bits` bits."""
    offset, bits = 0, 64
    for _ in range(_CHAIN):
        if type(value) is not Alu:
            break
        name = value.row.name
        if name.startswith(("add", "sub")):
            operand, constant = value.x, value.y
            if type(constant) is not Const and name.startswith("add"):
                operand, constant = constant, operand
            if type(constant) is not Const:
                break
            amount = signed(value.row.bits, constant.value)
            offset += amount if name.startswith("add") else -amount
            bits = min(bits, value.row.bits)
            value = operand
        elif name == "mov32 reg":
            bits, value = 32, value.y
        elif name == "rsh64 imm" and _is_shift_up(value.x) and _is_32(value.y):
            assert type(value.x) is Alu
            bits, value = 32, value.x.x
        else:
            break
    return value, offset, bits


def _is_shift_up(value: Value) -> bool:
    return type(value) is Alu and value.row.name == "lsh64 imm" and _is_32(value.y)


def _is_32(value: Value) -> bool:
    return type(value) is Const and value.value == 32


def _arrivals(exit_: Exit, pace: tuple[int, int], entry: State) -> int | None:
    """How often the head is reached at most before the exit is taken; None when that cannot be told."""
    step = pace[0]
    top, floor = 1 << exit_.bits, 0
    first, limit = entry.known.get(exit_.counter), entry.of(exit_.limit)
    if type(first) is Pointer and type(limit) is Pointer:
        if first.area is not limit.area or not first.area.is_single or first.is_nullable or limit.is_nullable:
            return None
        first, limit = first.span, limit.span
        top = _NEAR
        if exit_.bits < 64 or exit_.is_signed or limit.smin < 0:
            return None
    if type(first) is not Scalar or type(limit) is not Scalar:
        return None
    if exit_.test_bits == 32:
        limit = limit.half()
    low, high = limit.umin, limit.umax
    if exit_.is_signed:
        # Below half the width a number reads the same signed and unsigned.
        top >>= 1
        low, high, floor = limit.smin, limit.smax, -top
    if first.umax >= top or abs(step) >= top or high >= 1 << exit_.bits:
        return None
    range_ = _Range(first.umin + exit_.offset, first.umax + exit_.offset, bool(first.mask))
    if range_.low < floor or range_.high >= top:
        return None
    if step > 0:
        return _count_up(range_, step, exit_.relation, low, high, top)
    return _count_down(range_, -step, exit_.relation, low, high, floor)


class _Range(NamedTuple):
    """Where a counter starts, as it is tested."""

    low: int
    high: int
    varies: bool


def _count_up(start: _Range, step: int, relation: str, low: int, high: int, top: int) -> int | None:
    """Arrivals of a counter that grows; the limit is in low..high, numbers stay below `top`."""
    if relation == "!=":
        gap = high - start.low
        if low != high or start.high > low or gap % step or (start.varies and step != 1):
            return None
        return gap // step + 1
    if relation == "<=":
        high += 1
    elif relation != "<":
        return 2 if relation == "==" else None
    # The last number that stays is high - 1; a step from there must not wrap.
    return None if high - 1 + step >= top else max(0, -((start.low - high) // step)) + 1


def _count_down(start: _Range, step: int, relation: str, low: int, high: int, floor: int) -> int | None:
    """Arrivals of a counter that shrinks by `step`; numbers stay at `floor` or above."""
    if relation == "!=":
        gap = start.high - low
        if low != high or start.low < high or gap % step or (start.varies and step != 1):
            return None
        return gap // step + 1
    if relation == ">=":
        low -= 1
    elif relation != ">":
        return 2 if relation == "==" else None
    # The least number that stays is low + 1; a step from there must not wrap.
    return None if low + 1 - step < floor else max(0, -((low - start.high) // step)) + 1
