"""Lowering of terminators: jumps, branches, static branches, loop budgets and returns, and the fuel that loops spend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from backends import abi
from backends.static_sites import FLAG
from ir.core import Block, Branch, Edge, Jump, MayGoto, Return, StaticBranch
from ir.isa import compute

if TYPE_CHECKING:
    from backends.function import FunctionLowering

PATCHPOINT: Final = "llvm.experimental.patchpoint.void"


def lower_terminator(lowering: FunctionLowering, block: Block) -> None:
    """Append the LLVM form of the block's terminator."""
    terminator = block.terminator
    match terminator:
        case Jump(edge):
            _spend_fuel(lowering, block, (edge,), terminator.at)
            lowering.text.do(f"br label %{_enter(lowering, block, edge)}")
        case Branch(row, x, y, taken, other):
            _spend_fuel(lowering, block, (taken, other), terminator.at)
            condition = compute(row, lowering.text, lowering.as_int(x), lowering.as_int(y))
            _branch(lowering, block, condition, taken, other)
        case StaticBranch():
            _static_branch(lowering, block, terminator)
        case MayGoto(taken, other):
            _spend_fuel(lowering, block, (taken, other), terminator.at)
            left = lowering.text.emit("load i64, ptr %budget")
            lowering.text.do(f"store i64 {lowering.text.sub(64, left, '1')}, ptr %budget")
            _branch(lowering, block, lowering.text.eq(64, left, "0"), taken, other)
        case Return(value):
            lowering.spill_fuel()
            lowering.leave_frame()
            lowering.text.do(f"ret i64 {_as_result(lowering, lowering.as_int(value))}")
        case _:
            assert_never(terminator)


def _as_result(lowering: FunctionLowering, value: str) -> str:
    """r0 as callers expect it of a type narrower than 8 bytes: extended to 4 by its sign, from there by zeros."""
    size, is_signed = lowering.module.context.result
    if not lowering.is_main or size == 8:
        return value
    text = lowering.text
    narrow = text.trunc(64, value, 8 * size)
    if is_signed and size < 4:
        narrow, size = text.sext(8 * size, narrow, 32), 4
    return text.zext(8 * size, narrow, 64)


def _spend_fuel(lowering: FunctionLowering, block: Block, edges: tuple[Edge, ...], at: int) -> None:
    """One unit for a terminator with a fueled back-edge, whichever way it goes."""
    if not any(lowering.is_fueled(block, edge) for edge in edges):
        return
    left = lowering.text.emit("load i64, ptr %fuel")
    less = lowering.text.sub(64, left, "1")
    lowering.text.do(f"store i64 {less}, ptr %fuel")
    lowering.unit.fueled += 1
    lowering.trap_unless(lowering.text.emit(f"icmp ne i64 {less}, 0"), abi.Trap.FUEL, at)


def _arguments(lowering: FunctionLowering, block: Block, edge: Edge) -> list[str]:
    """What `edge` gives for each of its block's phis (`FunctionLowering.entered_with`)."""
    given = [
        lowering.as_own(arg, lowering.type_of(param))
        for param, arg in zip(edge.block.params, edge.args, strict=True)
    ]
    given += lowering.origins_of(edge.block.params, edge.args)
    if not lowering.is_large or not lowering.is_back(block, edge):
        return given
    # What is frozen on its way around a loop is no number that LLVM can follow from loop to loop: all that it would
    # find out of a thousand loops in a row takes seconds, and a function in a hurry makes no use of it.
    return [
        lowering.text.emit(f"freeze {kind} {value}") if value.startswith("%") else value
        for (_, kind), value in zip(lowering.entered_with(edge.block), given, strict=True)
    ]


def _enter(lowering: FunctionLowering, block: Block, edge: Edge) -> str:
    """The label to branch to for `edge` from `block`, having noted what it passes."""
    lowering.incoming[edge.block].append((lowering.label, _arguments(lowering, block, edge)))
    return lowering.labels[edge.block]


def _branch(lowering: FunctionLowering, block: Block, condition: str, taken: Edge, other: Edge) -> None:
    if taken.block is other.block:
        _same_target(lowering, block, condition, taken, other)
        return
    first, second = _enter(lowering, block, taken), _enter(lowering, block, other)
    lowering.text.do(f"br i1 {condition}, label %{first}, label %{second}")


def _same_target(lowering: FunctionLowering, block: Block, condition: str, taken: Edge, other: Edge) -> None:
    chosen = []
    first, second = (_arguments(lowering, block, edge) for edge in (taken, other))
    for (_, kind), a, b in zip(lowering.entered_with(taken.block), first, second, strict=True):
        chosen.append(lowering.text.emit(f"select i1 {condition}, {kind} {a}, {kind} {b}"))
    lowering.incoming[taken.block].append((lowering.label, chosen))
    lowering.text.do(f"br label %{lowering.labels[taken.block]}")


def _static_branch(lowering: FunctionLowering, block: Block, terminator: StaticBranch) -> None:
    """An invoke of a patchpoint that preserves every register: its unwind edge is the taken side.

    Where LLVM has no patchpoints, a test of a word that only the patcher changes.
    """
    _spend_fuel(lowering, block, (terminator.taken, terminator.other), terminator.at)
    if lowering.has_flags:
        lowering.unit.flags.add(terminator.at)
        flag = lowering.text.emit(
            f"load volatile i32, ptr @{lowering.quoted(f'{FLAG}{terminator.at}')}, align 4"
        )
        is_on = lowering.text.emit(f"icmp ne i32 {flag}, 0")
        _branch(lowering, block, is_on, terminator.taken, terminator.other)
        return
    patchpoint = lowering.unit.declare(PATCHPOINT, "void", "i64, i32, ptr, i32, ...")
    other, taken = lowering.text.name("off"), lowering.text.name("on")
    call = f"invoke anyregcc void (i64, i32, ptr, i32, ...) {patchpoint}"
    key, size = terminator.at, lowering.unit.options.site_bytes
    assert size, "a module with static branches is lowered for one region"
    arguments = f"(i64 {key}, i32 {size}, ptr null, i32 0) memory(inaccessiblemem: readwrite)"
    lowering.text.do(f"{call}{arguments} to label %{other} unwind label %{taken}")
    lowering.start_block(other)
    lowering.text.do(f"br label %{_enter(lowering, block, terminator.other)}")
    lowering.start_block(taken)
    lowering.text.emit("landingpad { ptr, i32 } cleanup")
    lowering.text.do(f"br label %{_enter(lowering, block, terminator.taken)}")
