"""Helpers that call a function of the program: once, often, or later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ir.core import Call, Function, Param, Value
from ir.helpers import Helper
from ir.object import Map
from ir.verify.arguments import Passed
from ir.verify.arrivals import widen_state
from ir.verify.held import NOTHING_HELD
from ir.verify.helper_calls import fresh_value
from ir.verify.meeting import covers_state, join_states
from ir.verify.owned import element
from ir.verify.refusal import Refused
from ir.verify.scalar import Scalar, between
from ir.verify.state import State
from ir.verify.values import ANY, AreaKind, Known, Pointer, start_of

if TYPE_CHECKING:
    from ir.verify.explore import Walk

Arguments = Callable[[State], list[Value | Known]]
"""What a callback is called with in a state."""

_MOST_ROUNDS: Final = 40
_MOST_APART: Final = 32
_MOST_LOOPS: Final = 1 << 23
# As many calls are followed one by one.
_FEW: Final = 16
_WITHIN: Final = "give back within the function what it takes, and nothing else"
_PASSING: Final = (AreaKind.MAP_KEY, AreaKind.DYNPTR)


def call_back(walk: Walk, state: State, call: Call, helper: Helper, passed: Passed) -> list[State]:
    """The states after a helper that calls `passed.function`, from the one in which the helper was called."""
    subject = walk.explorer.subject
    function = subject.module.functions[passed.function]
    if helper.name == "timer_set_callback":
        _walk_later(walk, function, passed, sleeps=False)
        return [state]
    if state.held.locked is not None:
        raise Refused("lock-held", f"{helper.full_name} while a spin lock is held")
    outcome = state.known.get(call, ANY)

    def arguments(now: State) -> list[Value | Known]:
        return _arguments(walk, now, call, helper, passed)

    most = state.number(call.args[0]).umax if helper.name == "loop" else _MOST_LOOPS
    return _go_round(walk, state, call, function, arguments, outcome, most)


def _go_round(
    walk: Walk,
    state: State,
    call: Call,
    function: Function,
    arguments: Arguments,
    outcome: Known,
    most: int,
) -> list[State]:
    """Call the function `most` times, or until nothing new comes of it: none, one or more times."""
    reached = _reach(walk, state, function, arguments, most)
    after = reached or [_join_rounds(walk, state, function, arguments, most).copy()]
    for each in after:
        each.known[call] = outcome
    return after


def _reach(
    walk: Walk, state: State, function: Function, arguments: Arguments, most: int
) -> list[State] | None:
    """The states after any number of rounds, kept apart; None when they are more than the effort allows."""
    width = min(walk.explorer.effort.width, _MOST_APART)
    if width == 1:
        return None
    reached, latest = [state], [state]
    for _ in range(most):
        before, latest = latest, []
        for each in before:
            for back in _call_once(walk, each, function, arguments):
                if not any(covers_state(known, back) for known in reached):
                    reached.append(back)
                    latest.append(back)
            if len(reached) > width:
                return None
        if not latest:
            break
    return [each.copy() for each in reached]


def _join_rounds(walk: Walk, state: State, function: Function, arguments: Arguments, most: int) -> State:
    """What holds after any number of rounds."""
    symbols: dict[int, Param] = {}
    walk.explorer.has_rounds = True

    def slot(offset: int) -> Param:
        return symbols.setdefault(offset, Param(-1))

    for rounds in range(_MOST_ROUNDS):
        if rounds == most:
            return state
        after = state
        for back in _call_once(walk, state, function, arguments):
            after = join_states(after, back, slot)
        if after is state or covers_state(state, after):
            return state
        if rounds > 1 and most > _FEW:
            widen_state(state, after, (0, 1 << 16, 1 << 32))
        state = after
    raise Refused("too-complex", f"the effect of calling '{function.name}' in a loop is not bounded")


def _call_once(walk: Walk, state: State, function: Function, arguments: Arguments) -> Iterator[State]:
    """The states after one more round from `state`, which stays as it is."""
    given = arguments(state)
    # What the helper keeps for the time of a call: the key, or a dynptr of what was sent.
    passing = [each.area for each in given[:-1] if type(each) is Pointer and each.area.kind in _PASSING]
    for done in walk.enter_function(state.copy(), function, given):
        _check_result(done, function, 1)
        back = walk.resume(None, done)
        for area in passing:
            back.forget_area(area)
        if back.held != state.held:
            said = f"'{function.name}', called in a loop, ends with other references or locks than it starts"
            raise Refused("reference-leak", said, None, _WITHIN)
        yield back


def compare(walk: Walk, state: State, call: Call, passed: Passed) -> None:
    """A function that orders the nodes of a tree, called any number of times under the tree's lock."""
    subject, root, held = walk.explorer.subject, passed.root, state.held
    assert root is not None
    function = subject.module.functions[passed.function]
    inside, during = state.copy(), replace(held, comparing=True)
    inside.held = during
    nodes: list[Value | Known] = [element(subject, inside, call, root, owned=False, nullable=False)] * 2
    for done in walk.enter_function(inside, function, nodes):
        _check_result(done, function, 1)
        if done.held != during:
            said = (
                f"'{function.name}', which orders a tree, ends with other references or locks than it starts"
            )
            raise Refused("reference-leak", said, None, _WITHIN)


def call_later(walk: Walk, state: State, call: Call, passed: Passed) -> None:
    """A function that a kernel function runs some time, with the map whose value it was given."""
    assert passed.place is not None
    passed.map = passed.place.area.map
    returns_zero = "task_work" not in str(call.target)
    function = walk.explorer.subject.module.functions[passed.function]
    _walk_later(walk, function, passed, sleeps=True, returns_zero=returns_zero)


def _walk_later(
    walk: Walk, function: Function, passed: Passed, sleeps: bool, returns_zero: bool = True
) -> None:
    """A function that runs by itself some time: with a map, a key and a value, and nothing held."""
    subject = walk.explorer.subject
    map_ = passed.map
    assert map_ is not None
    args: list[Known] = [
        start_of(subject.map_area(map_)),
        _key(walk, map_),
        start_of(subject.value_area("timer", map_)),
    ]
    entry, held = State(), replace(NOTHING_HELD, later_sleeps=sleeps)
    entry.held = held
    for param in function.params:
        entry.known[param] = args[param.register - 1] if param.register <= len(args) else ANY
    for done in walk.explorer.walk(function, entry, ()):
        if returns_zero:
            _check_result(done, function, 0)
        if done.held != held:
            said = f"'{function.name}', which runs by itself, ends with something held"
            raise Refused("reference-leak", said, None, _WITHIN)


def _check_result(done: State, function: Function, most: int) -> None:
    """Refuse unless a callback returned 0, or 1 to stop where it is called in a loop."""
    from ir.verify.explore import RESULT

    known = done.of(RESULT)
    if type(known) is Pointer or known.umax > most:
        said = f"'{function.name}', a callback, returns {known}, wanted 0" + ("..1" if most else "")
        hint = "return 0 to go on, or 1 to stop" if most else "return 0"
        raise Refused("return-range", said, None, hint)


def _key(walk: Walk, map_: Map) -> Known:
    area = walk.explorer.subject.area(
        ("key", map_.name), AreaKind.MAP_KEY, map_.name, map_.key_size, writable=False
    )
    return start_of(area)


def _arguments(walk: Walk, state: State, call: Call, helper: Helper, passed: Passed) -> list[Value | Known]:
    """What the helper passes to the function."""
    subject = walk.explorer.subject
    if helper.name == "loop":
        times = state.of(call.args[0])
        if type(times) is Scalar:
            most = min(times.half().umax, _MOST_LOOPS)
            return [between(64, 0, max(most - 1, 0)), _plain(state, call.args[2])]
        raise Refused("bad-argument", "bpf_loop: argument 1: a pointer where a count is wanted", call.args[0])
    if helper.name == "for_each_map_elem":
        map_ = passed.map
        assert map_ is not None
        value = start_of(fresh_value(subject, state, ("each", call), map_))
        return [start_of(subject.map_area(map_)), _key(walk, map_), value, _plain(state, call.args[2])]
    if helper.name == "user_ringbuf_drain":
        dynptr = subject.area(("drained", call), AreaKind.DYNPTR)
        return [start_of(dynptr), _plain(state, call.args[2])]
    vma = subject.area(("vma", call), AreaKind.BTF, "vm_area_struct", writable=False)
    return [_plain(state, call.args[0]), start_of(vma), _plain(state, call.args[3])]


def _plain(state: State, value: Value) -> Known:
    """A value to be passed on each round: its offset is kept as a range only."""
    known = state.of(value)
    if type(known) is Pointer and known.symbol is not None and known.area.length is None:
        return Pointer(known.area, None, 0, known.span, known.is_nullable) if known.span.is_const else known
    return known
