"""Whether a loop ends because the iterator that it asks for elements has no more.

    new(&it)                       not within the loop: a new iterator starts over
    head:  p = next(&it)           on every trip
           if p == 0 goto out      on every trip, and `out` is not in the loop

Source: kernel/bpf/verifier.c (process_iter_next_call).
"""

from __future__ import annotations

from typing import Final

from ir.algebra import signed
from ir.callees import callees_of, reached_from
from ir.core import Alu, Block, Branch, Call, Const, Frame, Function, Inst, Module, Value
from ir.dominators import Dominators
from ir.isa import Callee
from ir.verify.loops import Loop

_NEXT: Final = "_next"
_NEW: Final = "_new"
_ITERATOR: Final = "bpf_iter_"


def is_iteration(module: Module, function: Function, dominators: Dominators, loop: Loop) -> bool:
    """Whether each trip of `loop`, of `function`, takes an element from an iterator, and it is left when there is none."""
    for block in loop.blocks:
        for inst in block.insts:
            if not _is_call(inst, _NEXT) or not _leaves_at_null(dominators, loop, inst):
                continue
            assert isinstance(inst, Call)
            if not _starts_over(module, function, loop, inst.args[0]):
                return True
    return False


def _leaves_at_null(dominators: Dominators, loop: Loop, element: Value) -> bool:
    for block in loop.blocks:
        branch = block.terminator
        if type(branch) is not Branch or not _is_null_test(branch, element):
            continue
        at_null = branch.taken if branch.row.name.startswith("jeq") else branch.other
        if at_null.block not in loop.blocks and _is_on_every_trip(dominators, loop, block):
            return True
    return False


def _is_null_test(branch: Branch, element: Value) -> bool:
    is_equality = branch.row.name.startswith(("jeq", "jne")) and branch.row.bits == 64
    return is_equality and branch.x is element and type(branch.y) is Const and not branch.y.value


def _is_on_every_trip(dominators: Dominators, loop: Loop, block: Block) -> bool:
    return all(dominators.dominates(block, latch) for latch in loop.latches)


def _starts_over(module: Module, function: Function, loop: Loop, place: Value) -> bool:
    """Whether a new iterator may be made at `place` within the loop, by itself or by what it calls."""
    here = _frame_offset(place)
    for block in loop.blocks:
        for inst in block.insts:
            if _is_call(inst, _NEW):
                assert isinstance(inst, Call)
                there = _frame_offset(inst.args[0])
                # What is in this frame is not what a caller passed a pointer to.
                if there == here if there is not None and here is not None else there is here:
                    return True
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
