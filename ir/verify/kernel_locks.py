"""Locks that may be refused, and states of interrupts: taken in order, given back the other way round.

    if (bpf_res_spin_lock(&a)) ...        not held where the result is not 0
    bpf_res_spin_lock(&b)                 may nest, in another value or object
    bpf_res_spin_unlock(&b), (&a)         the latest first

Source: kernel/bpf/verifier.c (process_spin_lock, process_irq_flag, check_kfunc_call).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ir.core import Call, Value
from ir.verify.owned import end_section
from ir.verify.refusal import Refused
from ir.verify.scalar import between_signed
from ir.verify.stack_objects import end_object, find_object, start_object
from ir.verify.state import State
from ir.verify.steps import Steps
from ir.verify.subject import Subject
from ir.verify.values import ZERO, Area, AreaKind, Pointer

SAVED: Final = "saved interrupt state"
SAVED_BY_LOCK: Final = "interrupt state saved by a lock"
_LOCK: Final = "bpf_res_spin_lock"
_REFUSED: Final = between_signed(64, -4095, -1)
_SIZE: Final = 8


def find_lock(subject: Subject, state: State, value: Value) -> Area:
    """What holds the bpf_res_spin_lock that `value` points at. Raises Refused when there is none."""
    known = state.of(value)
    if type(known) is Pointer and not known.is_nullable and not known.span.mask:
        area = known.area
        is_ours = area.kind is not AreaKind.OBJECT or area in state.held.references
        if is_ours and any(f.kind == _LOCK and f.offset == known.span.value for f in subject.fields_of(area)):
            return area
    raise Refused("bad-argument", f"no {_LOCK} there", value)


def take_lock(state: State, call: Call, area: Area, kind: str) -> list[State]:
    """The states after a lock was asked for: it was refused, or it is held."""
    held = state.held
    if held.comparing:
        raise Refused("lock-held", "lock taken in a comparison, which runs under a lock")
    if area in held.locks:
        raise Refused("lock-held", f"the lock of the {area} is held already")
    refused = state.copy()
    refused.known[call] = _REFUSED
    outer = held.outer_locks if held.locked is None else (*held.outer_locks, (held.locked, held.lock_kind))
    state.held = replace(held, locked=area, lock_kind=kind, outer_locks=outer)
    state.known[call] = ZERO
    return [refused, state]


def give_back_lock(subject: Subject, state: State, area: Area, kind: str) -> None:
    """The latest lock taken is held no more."""
    held = state.held
    if held.locked is None:
        raise Refused("lock-not-held", "unlock without a lock")
    if held.comparing:
        raise Refused("lock-held", "lock given back in a comparison, which runs under it")
    if held.locked is not area or held.lock_kind != kind:
        raise Refused("lock-not-held", "unlock of another lock than the latest that was taken")
    before: tuple[Area | None, str] = held.outer_locks[-1] if held.outer_locks else (None, "")
    state.held = replace(held, locked=before[0], lock_kind=before[1], outer_locks=held.outer_locks[:-1])
    end_section(subject, state, area)


def save_interrupts(steps: Steps, state: State, call: Call, value: Value, kind: str) -> None:
    """Interrupts are off, and what they were before is saved where `value` points."""
    area = steps.subject.area((kind, call, len(state.held.interrupts)), AreaKind.UNKNOWN, kind)
    start_object(steps, state, value, _SIZE, kind, area, is_owned=True)
    state.held = replace(state.held, interrupts=(*state.held.interrupts, area))


def restore_interrupts(steps: Steps, state: State, value: Value, kind: str) -> None:
    """Interrupts are as they were when the latest state was saved."""
    found = find_object(state, value, kind)
    if not state.held.interrupts or state.held.interrupts[-1] is not found.area:
        raise Refused("section-not-open", "interrupt states are restored the other way round", value)
    end_object(steps, state, found)
    state.held = replace(state.held, interrupts=state.held.interrupts[:-1])
