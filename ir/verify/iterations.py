"""Whether a loop ends because the iterator that it asks for elements has no more.

    new(&it)                       not within the loop: a new iterator starts over
    head:  p = next(&it)           on every trip
           if p == 0 goto out      on every trip, and `out` is not in the loop

Source: kernel/bpf/verifier.c (process_iter_next_call).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ir.algebra import signed
from ir.callees import callees_of, reached_from
from ir.core import Alu, Branch, Call, Const, Frame, Function, Inst, Module, Value
from ir.dominators import Dominators
from ir.isa import Callee
from ir.verify.loops import Loop

_NEXT: Final = "_next"
_NEW: Final = "_new"
_ITERATOR: Final = "bpf_iter_"


def is_iteration(module: Module, function: Function, dominators: Dominators, loop: Loop) -> bool:
    """Whether each trip of `loop`, of `function`, takes an element from an iterator, and it is left when there is none."""
    elements = _left_when_null(dominators, loop)
    asked = [call.args[0] for call in _calls(loop, _NEXT) if call in elements]
    if not asked or _callees_start_over(module, function):
        return False
    # What is in this frame is not what a caller passed a pointer to.
    started = {_frame_offset(call.args[0]) for call in _calls(loop, _NEW)}
    return any(_frame_offset(place) not in started for place in asked)


def _calls(loop: Loop, what: str) -> Iterator[Call]:
    for block in loop.blocks:
        for inst in block.insts:
            if _is_call(inst, what):
                assert isinstance(inst, Call)
                yield inst


def _left_when_null(dominators: Dominators, loop: Loop) -> set[Value]:
    """The values that each trip compares with NULL, to leave the loop if they are."""
    found: set[Value] = set()
    latches = dominators.span(loop.latches)
    for block in loop.blocks:
        branch = block.terminator
        if type(branch) is not Branch or not _is_null_test(branch):
            continue
        at_null = branch.taken if branch.row.name.startswith("jeq") else branch.other
        if at_null.block not in loop.blocks and dominators.dominates_span(block, latches):
            found.add(branch.x)
    return found


def _is_null_test(branch: Branch) -> bool:
    is_equality = branch.row.name.startswith(("jeq", "jne")) and branch.row.bits == 64
    return is_equality and type(branch.y) is Const and not branch.y.value


def _callees_start_over(module: Module, function: Function) -> bool:
    """Whether what the function calls may make a new iterator in the place of another."""
    return any(
        _makes_elsewhere(module.functions[name])
        for name in reached_from(module, callees_of(module, function))
    )


def _makes_elsewhere(function: Function) -> bool:
    """Whether the function makes an iterator in the frame of a caller."""
    return any(
        _is_call(call, _NEW) and isinstance(call, Call) and _frame_offset(call.args[0]) is None
        for call in function.of_types(Call)
    )


def _frame_offset(place: Value) -> int | None:
    """Where in its function's frame a pointer points, None when elsewhere or not always there."""
    offset = 0
    while type(place) is Alu and place.row.name == "add64 imm" and type(place.y) is Const:
        offset += signed(64, place.y.value)
        place = place.x
    return offset if type(place) is Frame else None


def _is_call(inst: Inst, what: str) -> bool:
    if type(inst) is not Call or inst.callee is not Callee.KFUNC:
        return False
    name = str(inst.target).split("___")[0]
    return name.startswith(_ITERATOR) and name.endswith(what)
