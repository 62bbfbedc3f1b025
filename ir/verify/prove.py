"""Prove a program safe: join first, tell paths apart where that fails, within a budget.

Say why when nothing helps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Final, final

from ir.btf import Btf
from ir.core import Function, Module
from ir.diagnostics import Diagnostic
from ir.kinds import ProgramType
from ir.stack_depth import check_stack
from ir.verify.abrupt import exception_callback
from ir.verify.arrivals import Effort
from ir.verify.explain import explain, explain_structure
from ir.verify.explore import Explorer, Witness
from ir.verify.global_functions import arguments_of, entry_of
from ir.verify.outline import Outline
from ir.verify.refusal import Refused
from ir.verify.scalar import between
from ir.verify.state import State
from ir.verify.subject import KernelTypes, Subject
from ir.verify.targets import unsupported_operation
from ir.verify.unprivileged import check_structure
from ir.verify.values import MAX_LENGTH, Area, AreaKind, start_of

EACCES: Final = 13
# Refusals that no closer look at the ways to an instruction can change, but for one that it is never reached.
_PLAIN: Final = frozenset(
    (
        *("unknown-helper", "helper-unavailable", "gpl-only", "map-type", "unknown-kfunc", "may-sleep"),
        *("no-kernel-btf", "call-depth", "unprivileged", "unsupported-operation"),
    )
)
_UNDECIDED: Final = frozenset(("too-complex", "unbounded-loop"))
EFFORTS: Final = (
    Effort(width=1, steps=40_000, steps_per_insn=4, clamps=True),
    Effort(width=8, steps=30_000, clamps=True),
    Effort(width=2, steps=150_000, clamps=False),
    Effort(width=128, steps=200_000, clamps=False),
)


@final
@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on a program. `tries` is how many attempts it took, `ns` the time of all."""

    name: str
    diagnostics: tuple[Diagnostic, ...]
    steps: int
    states: int
    tries: int
    ns: int

    @property
    def is_accepted(self) -> bool:
        """Whether the program is proved safe."""
        return not self.diagnostics


def verify(
    module: Module,
    license: str = "",
    btf: Btf | None = None,
    kernel: KernelTypes = None,
    efforts: tuple[Effort, ...] = EFFORTS,
    witness: Callable[[], Witness] | None = None,
    unprivileged: bool = False,
) -> Report:
    """The verdict on `module`. `btf` are the object's types, `kernel` those of the kernel it is for,
    or what finds them when they are needed. `unprivileged`: whoever loads it has no capability.

    Each attempt is watched by a `witness` of its own.
    """
    subject = Subject(module, license, btf, kernel, unprivileged)
    outlines: dict[Function, Outline] = {}
    start = perf_counter_ns()
    steps = states = 0
    found: tuple[Diagnostic, ...] = ()
    tries = 0
    is_final = False
    given_up = False
    for effort in efforts:
        if given_up and effort.clamps:
            continue  # with more states it would take longer
        tries += 1
        subject.guards.clear()
        explorer = Explorer(subject, effort, outlines, witness() if witness is not None else None)
        try:
            prove_main(explorer)
            problems = check_stack(module, subject.stack_used, explorer.through)
            found = tuple(explain_structure(module.program, problem) for problem in problems)
            is_final = bool(found)
        except Refused as refused:
            if not found or refused.code != "too-complex":
                found = (explain(subject, refused),)
            given_up = explorer.is_spent
            is_exact = refused.state is not None and refused.state.exact
            is_final = refused.code in _PLAIN or (is_exact and refused.code not in _UNDECIDED)
            is_final |= given_up and not explorer.has_rounds
        steps += explorer.budget - explorer.steps_left
        states += explorer.states
        if not found or is_final:
            break
    return Report(module.program.name, found, steps, states, tries, perf_counter_ns() - start)


def prove_main(explorer: Explorer) -> None:
    """Walk the main function and check what holds where it ends. Raises Refused.

    Then each global function that a walk came to call, once, by its types alone: what nobody calls is not looked at.
    """
    subject = explorer.subject
    main = subject.module.main
    try:
        if subject.unprivileged:
            check_structure(subject, explorer.outline(main))
        if subject.type is ProgramType.STRUCT_OPS:
            _check_operation(subject)
        explorer.walk(main, entry_state(subject), ())
        for function in explorer.called:  # grows meanwhile
            arguments = arguments_of(subject, function)
            assert arguments is not None, "its calls were checked by them"
            explorer.walk(function, entry_of(subject, function, arguments), ())
        _prove_exception_callback(explorer)
    except Refused as refused:
        if not refused.function:
            refused.function = main.name
        raise


def _check_operation(subject: Subject) -> None:
    """Refuse what no struct of operations takes."""
    if not subject.is_gpl:
        raise Refused("gpl-only", "structs of operations are for programs with a GPL-compatible license")
    said = unsupported_operation(subject.program, subject.maps, subject.btf)
    if said:
        raise Refused("unsupported-operation", said)


def _prove_exception_callback(explorer: Explorer) -> None:
    """Walk the function that exceptions end in, which takes one number and returns for the program."""
    subject = explorer.subject
    functions = subject.module.functions
    function = functions.get(exception_callback(subject)) if len(functions) > 1 else None
    if function is None:
        return
    arguments = arguments_of(subject, function) or ()
    if [argument.kind for argument in arguments] != ["number"]:
        said = f"exception callback '{function.name}' does not take one number"
        raise Refused("bad-exception", said)
    explorer.walk(function, entry_of(subject, function, arguments), ())


def entry_state(subject: Subject) -> State:
    """What holds when the program starts."""
    main = subject.module.main
    arguments = arguments_of(subject, main)
    if arguments is not None:
        return entry_of(subject, main, arguments)
    state = State()
    params = main.params
    if subject.module.context.is_raw:
        memory = Area(AreaKind.MEMORY, length=params[1])
        state.limits = (params[1],)
        state.known[params[1]] = between(64, 0, MAX_LENGTH)
        state.known[params[0]] = start_of(memory)
    elif params:
        state.known[params[0]] = start_of(subject.area("context", AreaKind.CONTEXT))
    return state
