"""What led to a refusal: the instructions that made the culprit, the branches that were taken, what was acquired.

4: r2 = *(u32 *)(r1 + 0)
6: r4 = r2                     moves and constants are no values in SSA form: found backward in the straight code
7: if r4 > r3 goto +5 (not taken)
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from functools import cached_property
from typing import Final, final

from ir.asm import format_insn, reference_comment
from ir.core import Branch, Call, Const, Module, Param, Value, operands
from ir.diagnostics import Cause
from ir.functions import called_slot
from ir.helpers import helper_by_id
from ir.isa import Callee, Insn, Kind, jump_distance, row_of
from ir.object import Program
from ir.register_flow import fixed_effects, is_poison
from ir.verify.held import Held
from ir.verify.refusal import Refused
from ir.verify.state import Trail
from ir.verify.subject import Subject

MOST: Final = 10
_MOST_VALUES: Final = 40
_MOST_BRANCHES: Final = 400  # looked at, latest first
_LOCKS: Final = frozenset(("bpf_spin_lock", "bpf_rcu_read_lock", "bpf_preempt_disable"))
_NO_POINTERS: Final = frozenset(("not-a-pointer", "bad-argument"))
_RESOURCES: Final = frozenset(("reference-leak", "lock-held", "section-open"))


def causal_path(subject: Subject, refused: Refused) -> tuple[Cause, ...]:
    """The causes of a refusal in program order, the last `MOST` of them."""
    program = subject.program
    slicer = Slicer(subject.module)
    values = slicer.backward(refused.culprit)
    found = {value.at: "" for value in values if not isinstance(value, Param) and value.at >= 0}
    found |= dict.fromkeys(straight_slice(program, refused.at, argument_of(subject, refused)), "")
    trail = refused.state.trail if refused.state is not None else None
    if refused.code in _RESOURCES and refused.state is not None:
        found |= acquisitions(subject, refused.state.held)
        found |= branches(trail, lambda _: True)
    elif refused.code == "uninitialized-register":
        found |= branches(trail, lambda _: True)
    else:
        found |= branches(trail, lambda branch: slicer.is_about(branch, values))
    if (loser := loser_of(subject, refused)) is not None:
        found[loser] = "made invalid here"
    found.pop(refused.at, None)
    return tuple(Cause(program.location(at), text_at(program, at), found[at]) for at in sorted(found)[-MOST:])


def loser_of(subject: Subject, refused: Refused) -> int | None:
    """The slot of the call that made invalid what was taken for a pointer; None where it never was one."""
    if refused.state is None or refused.culprit is None or refused.code not in _NO_POINTERS:
        return None
    return subject.loser(refused.state.of(refused.culprit))


def text_at(program: Program, slot: int) -> str:
    """The instruction at `slot` as text, with what it calls or refers to by name; '' where none starts."""
    number = bisect_left(program.starts, slot)
    if number >= len(program.insns) or program.starts[number] != slot:
        return ""
    insn = program.insns[number]
    name = callee_name(program, slot, insn)
    if name and row_of(insn).callee is Callee.KFUNC:
        return f"call {name}"
    comment = reference_comment(program.references.get(slot)) if not name else ""
    return format_insn(insn, name) + comment


@final
class Slicer:
    """Backward slices over the values of a module, through joins and the calls of functions."""

    def __init__(self, module: Module) -> None:
        self.module = module

    def backward(self, *culprits: Value | None) -> set[Value]:
        """The values that `culprits` were computed from, themselves included; at most some forty, nearest first."""
        found: set[Value] = set()
        work = deque(culprit for culprit in culprits if culprit is not None)
        while work and len(found) < _MOST_VALUES:
            value = work.popleft()
            if value in found or isinstance(value, Const):
                continue
            found.add(value)
            work += self._sources.get(value, ()) if isinstance(value, Param) else operands(value)
        return found

    def is_about(self, branch: Branch, values: set[Value]) -> bool:
        """Whether a branch compared one of the values, or what is made of the same things (data + 14)."""
        made = {value for value in values if not isinstance(value, Param)}
        compared = self.backward(branch.x, branch.y)
        return not compared.isdisjoint(made) or branch.x in values or branch.y in values

    @cached_property
    def _sources(self) -> dict[Param, list[Value]]:
        """What each parameter may be: the arguments of the edges into its block, or the calls of its function."""
        found: dict[Param, list[Value]] = {}
        functions = self.module.functions
        for function in functions.values():
            for block in function.blocks:
                for edge in block.edges():
                    for param, value in zip(edge.block.params, edge.args, strict=True):
                        found.setdefault(param, []).append(value)
                for inst in block.insts:
                    if isinstance(inst, Call) and isinstance(inst.target, str) and inst.target in functions:
                        for param in functions[inst.target].params:
                            found.setdefault(param, []).append(inst)
        return found


def straight_slice(program: Program, slot: int, registers: int | None = None) -> list[int]:
    """The slots, latest first, that set the registers which `slot` reads (a mask, where the caller knows better).

    Only the code that surely ran just before is looked at: up to where somebody may jump in.
    """
    index = {start: number for number, start in enumerate(program.starts)}
    number = index.get(slot, 0)
    wanted = _reads(program, number) if registers is None else registers
    entries = _entries(program)
    found: list[int] = []
    while wanted and number > 0 and program.starts[number] not in entries and len(found) < MOST:
        number -= 1
        row = row_of(program.insns[number])
        if row.kind in (Kind.EXIT, Kind.JUMP):
            break
        if row.kind is Kind.CALL:
            if wanted & 1:
                found.append(program.starts[number])
            wanted &= ~0x3F
            continue
        reads, _, made = fixed_effects(row, program.insns[number])
        if made & wanted:
            found.append(program.starts[number])
            wanted = wanted & ~made | reads
    return found


def argument_of(subject: Subject, refused: Refused) -> int | None:
    """The registers (a mask) that pass the culprit to the call that was refused; None when it was no call."""
    number = {start: number for number, start in enumerate(subject.program.starts)}.get(refused.at)
    if number is None or row_of(subject.program.insns[number]).kind is not Kind.CALL:
        return None
    for function in subject.module.functions.values():
        for inst in function.insts():
            if isinstance(inst, Call) and inst.at == refused.at:
                places = enumerate(inst.args, 1)
                return sum(1 << place for place, value in places if value is refused.culprit)
    return 0


def branches(trail: Trail | None, is_wanted: Callable[[Branch], bool]) -> dict[int, str]:
    """The latest branches taken that are wanted, and which way each went."""
    found: dict[int, str] = {}
    seen: set[Branch] = set()
    for _ in range(_MOST_BRANCHES):
        if trail is None or len(found) == MOST:
            break
        branch = trail.branch
        # What asks whether a register was written is no branch of the program's.
        is_own = not isinstance(branch.x, Param) or branch.x.register >= 0
        if branch not in seen and is_own and is_wanted(branch):
            found[branch.at] = "taken" if trail.taken else "not taken"
        seen.add(branch)
        trail = trail.before
    return found


def acquisitions(subject: Subject, held: Held) -> dict[int, str]:
    """Where what is held was acquired."""
    found = {area.origin: "acquired here" for area in held.references if area.origin >= 0}
    if held.locked is not None or held.rcu or held.preempt:
        program = subject.program
        for slot, insn in zip(program.starts, program.insns, strict=False):
            if row_of(insn).kind is Kind.CALL and callee_name(program, slot, insn) in _LOCKS:
                found[slot] = "taken here"
    return found


def callee_name(program: Program, slot: int, insn: Insn) -> str:
    """The name of the helper, kernel function or subprogram that `insn` calls or takes the address of; else ''."""
    reference, target = program.references.get(slot), called_slot(insn, slot)
    if is_poison(row_of(insn), insn):
        return "(unresolved)"
    if target is not None:
        function = program.function_at(target)
        return function.name if function is not None and function.start == target else ""
    if row_of(insn).kind is not Kind.CALL:
        return ""
    if reference is not None:
        return reference.name
    helper = helper_by_id(insn.imm, program.type) if row_of(insn).callee is Callee.HELPER else None
    return helper.full_name if helper is not None else ""


def _reads(program: Program, number: int) -> int:
    row = row_of(program.insns[number])
    if row.kind is Kind.CALL:
        return 0
    return 1 if row.kind is Kind.EXIT else fixed_effects(row, program.insns[number])[0]


def _entries(program: Program) -> set[int]:
    """The slots that control may come to otherwise than from the one before."""
    found = {function.start for function in program.functions}
    for slot, insn in zip(program.starts, program.insns, strict=False):
        row = row_of(insn)
        if row.kind in (Kind.BRANCH, Kind.JUMP, Kind.STATIC_BRANCH, Kind.MAY_GOTO):
            found.add(slot + 1 + jump_distance(row, insn))
    return found
