"""Ways out of a function that are no exit: a legacy load past the packet's end, a tail call, an exception.

    r0 = *(u32 *)skb[n]      past the end: this function returns 0 to its caller
    call bpf_tail_call       what follows runs in its place, and returns any number to its caller
    call bpf_throw           every function ends at once; the program returns what the exception callback makes of r1

Sources: kernel/bpf/verifier.c (check_ld_abs, check_kfunc_call, check_max_stack_depth_subprog), its processing of exits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ir.btf_types import Enum, Int, Prototype
from ir.btf_types import Function as FunctionType
from ir.callees import functions_taken, reached_from
from ir.core import Call, Const, Function, Inst, Module, Param
from ir.helpers import helper_by_id
from ir.isa import Callee
from ir.verify.exits import check_result
from ir.verify.held import who_may_not
from ir.verify.kfuncs import kfunc_named
from ir.verify.refusal import Refused
from ir.verify.state import State
from ir.verify.subject import Subject

if TYPE_CHECKING:
    from ir.verify.explore import Walk

THROW: Final = "bpf_throw"
_TAG: Final = "exception_callback:"


def leave_packet_load(walk: Walk, state: State) -> None:
    """A legacy packet load in a subprogram may return 0 to the caller."""
    _check_returns_number(walk, "a legacy packet load")
    walk.leave(state.copy(), Const(0))


def leave_tail_call(walk: Walk, state: State) -> None:
    """A tail call in a subprogram may return any number to the caller."""
    _check_returns_number(walk, "bpf_tail_call")
    walk.leave(state.copy(), Param(-1))


def _check_returns_number(walk: Walk, what: str) -> None:
    subject, name = walk.explorer.subject, walk.function.name
    is_number = returns_number(subject, walk.function)
    if not is_number:
        why = "returns no number" if is_number is False else "has no type that says that it returns a number"
        said = f"{what} in function '{name}', which {why}"
        raise Refused("bad-exception", said, None, "give the object BTF, and the function the result int")


def returns_number(subject: Subject, function: Function) -> bool | None:
    """Whether a function's type says that it returns a number; None when it has no type."""
    if subject.btf is None or not function.info.btf_id:
        return None
    type = subject.btf.type(function.info.btf_id)
    prototype = subject.btf.type(type.type_id) if isinstance(type, FunctionType) else None
    if not isinstance(prototype, Prototype):
        return None
    return isinstance(subject.btf.type(subject.btf.strip(prototype.returns)), Int | Enum)


def check_throw(walk: Walk, state: State, call: Call) -> None:
    """Refuse an exception while something is held, in a callback, or with a number that the program may not return."""
    subject, held = walk.explorer.subject, state.held
    if held.references:
        names = sorted(str(area) for area in held.references)
        said = f"exception without giving up the reference to the {names[0]}"
        raise Refused("reference-leak", said, None, "release it before the exception")
    owned = [found for found in held.objects if found.is_owned]
    if owned:
        said = f"exception with a {owned[0].kind} that is in use"
        raise Refused("reference-leak", said, None, "destroy it before the exception")
    if held.rcu or held.preempt:
        raise Refused("section-open", "exception within an RCU or preemption-disabled section")
    end = exception_callback(subject)
    called_back = reached_from(subject.module, [*functions_taken(subject.module), *([end] if end else ())])
    if walk.function.name in called_back:
        raise Refused("bad-exception", f"exception in '{walk.function.name}', which runs as a callback")
    if not end:
        check_result(subject, state, call.args[0], "the exception's cookie")


def check_global_call(subject: Subject, state: State, function: Function) -> None:
    """Refuse to call a global function that may throw or sleep where that is not allowed, and the exception callback at all."""
    if function.name == exception_callback(subject):
        raise Refused("bad-exception", f"'{function.name}' is the exception callback, which nobody calls")
    held = state.held
    is_holding = held.references or held.rcu or held.preempt or held.objects_in_use
    if is_holding and _may_throw(subject.module, function):
        said = f"call of global function '{function.name}', which may throw, while something is held"
        raise Refused("reference-leak", said)
    if not (held.may_not_sleep or held.later_sleeps is False) or not _may_sleep(subject.module, function):
        return
    who = "in a section that" if held.may_not_sleep else f"and {who_may_not(held)}"
    said = f"call of global function '{function.name}', which may sleep, {who} may not"
    raise Refused("may-sleep", said)


def exception_callback(subject: Subject) -> str:
    """The function that the program's exceptions end in, '' when it names none. Raises Refused when it names several."""
    id = subject.module.main.info.btf_id
    tags = subject.declaration_tags.get((id, -1), ()) if id else ()
    names = [tag.removeprefix(_TAG) for tag in tags if tag.startswith(_TAG)]
    if len(names) > 1:
        raise Refused("bad-exception", f"several exception callbacks: {', '.join(names)}")
    return names[0] if names else ""


def is_exception_callback(subject: Subject, function: Function) -> bool:
    """Whether `function` is where the program's exceptions end."""
    return function is not subject.module.main and function.name == exception_callback(subject)


def _may_throw(module: Module, function: Function) -> bool:
    return any(_throws(module.functions[name]) for name in reached_from(module, [function.name]))


def _may_sleep(module: Module, function: Function) -> bool:
    return any(
        _sleeps(module, call)
        for name in reached_from(module, [function.name])
        for call in module.functions[name].of_types(Call)
    )


def _sleeps(module: Module, call: Inst) -> bool:
    if not isinstance(call, Call):
        return False
    if call.callee is Callee.KFUNC:
        kfunc = kfunc_named(call.target)
        return kfunc is not None and "sleeps" in kfunc.flags
    is_helper = call.callee is Callee.HELPER and isinstance(call.target, int)
    helper = helper_by_id(call.target, module.program.type) if is_helper else None  # type: ignore[arg-type]  # an int
    return helper is not None and helper.may_sleep


def _throws(function: Function) -> bool:
    return any(
        isinstance(call, Call) and call.callee is Callee.KFUNC and call.target == THROW
        for call in function.of_types(Call)
    )
