"""The stack of a chain of calls: what all its frames take together must fit where one frame does.

    main 256 -> parse 240     496 of 512 bytes: fits
    main 256 -> parse 272     528: refused

Each frame counts as a multiple of 16 bytes (kernel/bpf/verifier.c, check_max_stack_depth, for programs that are compiled).
Programs that trace, unless they tail-call, have stacks of their own for frames of 64 bytes and more: those count alone.
A function that tail-calls may be reached with less than 256 bytes in use only, since its callers' frames stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ir.callees import named_function
from ir.core import Address, Atomic, Call, Function, Load, Module, Store
from ir.diagnostics import Diagnostic
from ir.kinds import AttachType, ProgramType
from ir.object import Program
from ir.region import RegionKind
from ir.regions import Regions

EACCES: Final = 13
LIMIT: Final = 512
TAIL_CALLER_LIMIT: Final = 256
TAIL_CALL: Final = 12
_UNIT: Final = 16


_PRIVATE_STACK_LEAST: Final = 64
_TRACERS: Final = frozenset(
    (
        *(ProgramType.KPROBE, ProgramType.TRACEPOINT, ProgramType.PERF_EVENT, ProgramType.RAW_TRACEPOINT),
        ProgramType.TRACING,
    )
)


def frame_sizes(module: Module, regions: Regions) -> dict[str, int]:
    """Bytes of each function's own frame, down to the lowest place that it names."""
    return {name: _frame_bytes(function, regions) for name, function in module.functions.items()}


def check_stack(
    module: Module, used: Mapping[str, int], called: Mapping[Call, Iterable[str]] | None = None
) -> list[Diagnostic]:
    """What is wrong with the combined stack of `module`'s call chains; structure has refused recursion already.

    `used` are the bytes that each function uses of its frame. `called`: the functions that each call through a
    register may run, once that is known.
    """
    if len(module.functions) == 1 and used.get(module.main.name, 0) <= LIMIT:
        return []
    sizes = {name: -(-used.get(name, 0) // _UNIT) * _UNIT for name in module.functions}
    callees = {name: _callees(function, called or {}) for name, function in module.functions.items()}
    tail_callers = {name for name, function in module.functions.items() if _tail_calls(function)}
    has_private = _has_private_stacks(module.program) and not tail_callers
    problems: list[Diagnostic] = []
    deepest: dict[str, int] = {}
    work = [(module.main.name, 0)]
    while work:
        name, above = work.pop()
        if above <= deepest.get(name, -1):
            continue
        deepest[name] = above
        at = module.functions[name].location(module.functions[name].info.start)
        if above and name in tail_callers and above >= TAIL_CALLER_LIMIT:
            said = f"'{name}' tail-calls with {above} bytes of callers' stack in use, {TAIL_CALLER_LIMIT - 1} are allowed"
            problems.append(Diagnostic("tail-call-stack", said, at, errno=EACCES))
        is_private = has_private and sizes[name] >= _PRIVATE_STACK_LEAST
        total = above if is_private else above + sizes[name]
        if total > LIMIT:
            said = (
                f"the calls that lead into '{name}' take {total} bytes of stack together, {LIMIT} are allowed"
            )
            problems.append(Diagnostic("combined-stack", said, at, errno=EACCES))
            continue
        work += [(callee, total) for callee in callees[name]]
    return problems


def _frame_bytes(function: Function, regions: Regions) -> int:
    lowest = 0
    for inst in function.insts():
        if isinstance(inst, Load | Store | Atomic):
            place = regions.frame_offset(inst.base)
            if place is not None:
                lowest = min(lowest, place[1] + inst.offset)
        elif regions.of(inst).kind is RegionKind.FRAME:
            place = regions.frame_offset(inst)
            lowest = lowest if place is None else min(lowest, place[1])
    return -lowest


def _has_private_stacks(program: Program) -> bool:
    return program.type in _TRACERS and program.attach_type is not AttachType.TRACE_ITER


def _callees(function: Function, called: Mapping[Call, Iterable[str]]) -> list[str]:
    found: set[str] = set()
    for inst in function.of_types(Call, Address):
        found.add(named_function(inst))
        if called and isinstance(inst, Call):
            found.update(called.get(inst, ()))
    return sorted(found - {""})


def _tail_calls(function: Function) -> bool:
    return any(isinstance(inst, Call) and inst.target == TAIL_CALL for inst in function.of_types(Call))
