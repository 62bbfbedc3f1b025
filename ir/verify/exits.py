"""What must hold where a program ends."""

from __future__ import annotations

from ir.core import Value
from ir.kinds import ProgramType
from ir.verify.contexts import returns_of
from ir.verify.refusal import Refused
from ir.verify.state import State
from ir.verify.subject import Subject
from ir.verify.targets import results_of
from ir.verify.unprivileged import check_not_pointer
from ir.verify.values import Pointer


def check_exit(subject: Subject, state: State, value: Value) -> None:
    """Refuse an exit of the program with r0 = `value` while something is held, or with a number not allowed."""
    held = state.held
    if held.references:
        names = sorted(str(area) for area in held.references)
        said = f"exit without giving up the reference to the {names[0]}"
        raise Refused("reference-leak", said, None, "release it on every way to the exit")
    if held.locked is not None:
        raise Refused("lock-held", f"exit with the spin lock of the {held.locked} held")
    if held.rcu or held.preempt:
        raise Refused("section-open", "exit within an RCU or preemption-disabled section")
    if subject.unprivileged:
        check_not_pointer(state, value, "returned")
    check_result(subject, state, value, "r0")


def check_result(subject: Subject, state: State, value: Value, what: str) -> None:
    """Refuse a result that programs of this type may not give."""
    if subject.returns_nothing:
        return
    wanted = returns_of(subject.type, subject.attach_type)
    if subject.type is ProgramType.LSM:
        wanted = results_of(subject.program, subject.target)
    if wanted is None:
        return
    known = state.of(value)
    if type(known) is Pointer:
        raise Refused(
            "return-range", f"{what} is a {known.area} pointer at exit, wanted {wanted[0]}..{wanted[1]}"
        )
    if known.smin < wanted[0] or known.smax > wanted[1]:
        number = known.half()
        if number.smin < wanted[0] or number.smax > wanted[1]:
            said = f"{what} is {known} at exit, wanted {wanted[0]}..{wanted[1]}"
            raise Refused("return-range", said, value, "return one of the numbers allowed")


def check_global_exit(state: State, value: Value) -> None:
    """Refuse an exit of a global function while it holds something, or with a pointer as result."""
    held = state.held
    if held.references or held.may_not_sleep:
        raise Refused("reference-leak", "exit of a global function while something is held", value)
    if type(state.of(value)) is Pointer:
        raise Refused("global-function", "a global function returns a pointer", value)
