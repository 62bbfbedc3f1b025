"""The shape of a program before SSA: functions, basic blocks, registers read; and everything wrong with that shape.

These are the checks Linux makes before it looks at any value: jumps, fall-through, reachability, calls, recursion.
They make lifting total: a program without problems here always lifts. Reads of registers that are not
initialised on every path are only noted, for such instructions may be dead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from ir.diagnostics import Diagnostic, RejectedError
from ir.functions import called_slot
from ir.helpers import helper_by_id
from ir.isa import (
    ARGUMENT_REGISTERS,
    FRAME_POINTER,
    R0,
    Callee,
    Insn,
    Kind,
    Row,
    jump_distance,
)
from ir.object import POISON_HELPER, FunctionInfo, Program

EINVAL, E2BIG, EACCES = 22, 7, 13
MAX_FUNCTIONS = 256
MAX_DEPTH = 8
MAX_INSNS = 1_000_000

_ENDS = (Kind.JUMP, Kind.BRANCH, Kind.STATIC_BRANCH, Kind.MAY_GOTO, Kind.EXIT)
_ARGUMENTS = sum(1 << register for register in ARGUMENT_REGISTERS)
_CLOBBERED = _ARGUMENTS | 1 << R0
_ALL = (1 << 11) - 1


@final
@dataclass(eq=False, slots=True)
class Span:
    """A basic block: insns [first, last], successors as span numbers (taken first), registers as bit masks."""

    first: int
    last: int
    successors: tuple[int, ...] = ()
    initialized: int = _ALL
    live_in: int = 0


@final
@dataclass(eq=False, slots=True)
class Shape:
    """One function: its spans in order (the first is the entry), what it calls and which arguments it reads.

    `reads` and `call_reads` are masks of registers: read at entry, and passed at each call (by insn number).
    """

    info: FunctionInfo
    first: int
    end: int
    spans: list[Span] = field(default_factory=list)
    callees: list[int] = field(default_factory=list)
    reads: int = 0
    returns: bool = True
    address_taken: bool = False
    call_reads: dict[int, int] = field(default_factory=dict)


@final
@dataclass(eq=False, slots=True)
class Structure:
    """A program's rows, where each insn starts, and its functions keyed by starting slot (main first).

    `effects` holds what `_effects` says of an insn, where that does not depend on the way to it. `forbidden` are insns
    that are wrong if control gets to them, which only values tell: what they read without its being written first (a
    mask of registers), and what to say.
    """

    program: Program
    rows: list[Row]
    starts: list[int]
    index_of: dict[int, int]
    shapes: dict[int, Shape]
    effects: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    forbidden: dict[int, tuple[int, Diagnostic]] = field(default_factory=dict)


def analyze_structure(program: Program, entry_registers: int) -> Structure:
    """The structure of `program`, whose main starts with `entry_registers` (a mask). Raises RejectedError."""
    starts = program.starts
    structure = Structure(
        program,
        program.rows,
        starts,
        {slot: i for i, slot in enumerate(starts)},
        {},
    )
    problems: list[Diagnostic] = []
    _check_size(structure, problems)
    _split_functions(structure, problems)
    for shape in structure.shapes.values():
        _split_spans(structure, shape, problems)
    order = [] if problems else _call_order(structure, problems)
    for shape in order:
        given = entry_registers if shape.info.start == 0 else _declared(shape.info)
        _flow_initialized(structure, shape, given | 1 << FRAME_POINTER)
        _flow_live(structure, shape)
    if problems:
        raise RejectedError(problems)
    return structure


def _declared(info: FunctionInfo) -> int:
    """The registers that callers surely pass: those that the type of a global function says, else any may be."""
    return ((2 << info.parameters) - 2) & _ARGUMENTS if info.is_global and info.btf_id else _ARGUMENTS


def _problem(structure: Structure, insn: int, code: str, message: str, errno: int) -> Diagnostic:
    return Diagnostic(code, message, structure.program.location(structure.starts[insn]), errno=errno)


def is_poison(row: Row, insn: Insn) -> bool:
    """Whether an instruction stands where a CO-RE relocation could not be resolved."""
    return row.callee is Callee.HELPER and insn.imm == POISON_HELPER


def _check_size(structure: Structure, problems: list[Diagnostic]) -> None:
    count = structure.starts[-1]
    if count == 0:
        problems.append(
            Diagnostic(
                "empty-program", "program has no instructions", structure.program.location(0), errno=EINVAL
            )
        )
    if count > MAX_INSNS:
        said = f"program has {count} instructions, {MAX_INSNS} are allowed"
        problems.append(Diagnostic("too-many-insns", said, structure.program.location(0), errno=E2BIG))


def _split_functions(structure: Structure, problems: list[Diagnostic]) -> None:
    program, index_of = structure.program, structure.index_of
    if len(program.functions) > MAX_FUNCTIONS:
        said = f"program has {len(program.functions)} functions, {MAX_FUNCTIONS} are allowed"
        problems.append(Diagnostic("too-many-functions", said, program.location(0), errno=E2BIG))
    for info in program.functions:
        if info.start not in index_of or info.start + info.slots not in index_of or not info.slots:
            said = f"function '{info.name}' does not start and end at instructions"
            problems.append(Diagnostic("bad-function", said, program.location(info.start), errno=EINVAL))
            continue
        structure.shapes[info.start] = Shape(info, index_of[info.start], index_of[info.start + info.slots])
    for start in program.tokens.values():
        if start in structure.shapes:
            structure.shapes[start].address_taken = True


def _split_spans(structure: Structure, shape: Shape, problems: list[Diagnostic]) -> None:
    """Find the basic blocks of one function, and every jump, call or end that leads nowhere."""
    insns, rows, starts, index_of = (
        structure.program.insns,
        structure.rows,
        structure.starts,
        structure.index_of,
    )
    targets: dict[int, int] = {}
    leaders = {shape.first}
    before = len(problems)
    for i in range(shape.first, shape.end):
        row, insn = rows[i], insns[i]
        _check_insn(structure, shape, i, problems)
        if row.kind not in _ENDS:
            continue
        leaders.add(i + 1)
        if row.kind is Kind.EXIT:
            continue
        target = index_of.get(starts[i] + 1 + jump_distance(row, insn), -1)
        if not shape.first <= target < shape.end:
            said = f"'{row.name}' jumps to slot {starts[i] + 1 + jump_distance(row, insn)}, outside function '{shape.info.name}'"
            problems.append(_problem(structure, i, "jump-out-of-range", said, EINVAL))
            continue
        targets[i] = target
        leaders.add(target)
    last = rows[shape.end - 1].kind
    if last not in (Kind.EXIT, Kind.JUMP):
        said = f"control falls off the end of function '{shape.info.name}'"
        problems.append(_problem(structure, shape.end - 1, "falls-off-end", said, EINVAL))
    if len(problems) > before:
        return
    firsts = sorted(leader for leader in leaders if leader < shape.end)
    number = {first: n for n, first in enumerate(firsts)}
    for first, following in zip(firsts, [*firsts[1:], shape.end], strict=True):
        i = following - 1
        kind = rows[i].kind
        taken = (number[targets[i]],) if i in targets else ()
        falls = () if kind in (Kind.EXIT, Kind.JUMP) else (number[following],)
        shape.spans.append(Span(first, i, taken + falls))
    _check_reachable(structure, shape, problems)


def _check_insn(structure: Structure, shape: Shape, i: int, problems: list[Diagnostic]) -> None:
    row, insn = structure.rows[i], structure.program.insns[i]
    if _writes_frame_pointer(row, insn):
        problem = _problem(structure, i, "frame-pointer-write", "frame pointer r10 is read only", EACCES)
        structure.forbidden[i] = 0, problem
    target = called_slot(insn, structure.starts[i])
    if target is None:
        return
    if target not in structure.shapes:
        problems.append(
            _problem(structure, i, "bad-call-target", f"slot {target} is not the start of a function", EINVAL)
        )
    elif row.kind is Kind.CALL:
        shape.callees.append(target)
    else:
        structure.shapes[target].address_taken = True
        shape.callees.append(target)


def _writes_frame_pointer(row: Row, insn: Insn) -> bool:
    if row.kind is Kind.ATOMIC:
        return row.fetches and insn.src == FRAME_POINTER
    return row.kind in (Kind.ALU, Kind.WIDE, Kind.LOAD) and insn.dst == FRAME_POINTER


def _check_reachable(structure: Structure, shape: Shape, problems: list[Diagnostic]) -> None:
    seen, work = {0}, [0]
    while work:
        for successor in shape.spans[work.pop()].successors:
            if successor not in seen:
                seen.add(successor)
                work.append(successor)
    for number, span in enumerate(shape.spans):
        if number not in seen:
            problems.append(
                _problem(
                    structure, span.first, "unreachable-insn", "no path leads to this instruction", EINVAL
                )
            )
            return


def _call_order(structure: Structure, problems: list[Diagnostic]) -> list[Shape]:
    """The functions, callees before callers; problems when they recurse or nest deeper than 8."""
    depth: dict[int, int] = {}
    order: list[Shape] = []
    on_path: set[int] = set()
    roots = list(structure.shapes)
    stack: list[tuple[int, list[int]]] = []
    for root in roots:
        if root in depth:
            continue
        stack.append((root, list(structure.shapes[root].callees)))
        on_path.add(root)
        while stack:
            start, rest = stack[-1]
            if rest:
                callee = rest.pop()
                if callee in on_path:
                    name = structure.shapes[callee].info.name
                    at = structure.program.location(structure.shapes[start].info.start)
                    problems.append(
                        Diagnostic("recursion", f"function '{name}' calls itself", at, errno=E2BIG)
                    )
                    return []
                if callee not in depth:
                    on_path.add(callee)
                    stack.append((callee, list(structure.shapes[callee].callees)))
                continue
            stack.pop()
            on_path.discard(start)
            depth[start] = 1 + max((depth[callee] for callee in structure.shapes[start].callees), default=0)
            order.append(structure.shapes[start])
    main = structure.program.functions[0].start
    if depth[main] > MAX_DEPTH:
        said = f"calls nest {depth[main]} functions deep, {MAX_DEPTH} are allowed"
        problems.append(Diagnostic("call-depth", said, structure.program.location(main), errno=E2BIG))
    return order


def _effects(structure: Structure, shape: Shape, i: int, initialized: int) -> tuple[int, int, int]:
    """Of insn i: the registers it reads, makes unusable and initialises, as masks."""
    known = structure.effects.get(i)
    if known is not None:
        return known
    row, insn = structure.rows[i], structure.program.insns[i]
    if row.kind is Kind.EXIT:
        return (1 if shape.info.start == 0 or initialized & 1 else 0), 0, 0
    if is_poison(row, insn):
        shape.call_reads[i] = 0
        return 0, 0, _ALL  # stands where another instruction stood, which may have written any register
    if _writes_frame_pointer(row, insn):
        return 0, 0, 0
    if row.kind is Kind.CALL:
        reads, returns = _call_effects(structure, row, insn, i, initialized)
        shape.call_reads[i] = reads
        return reads, _CLOBBERED, 1 if returns else 0
    structure.effects[i] = fixed_effects(row, insn)
    return structure.effects[i]


def fixed_effects(row: Row, insn: Insn) -> tuple[int, int, int]:
    """The registers (masks) that an instruction reads, makes unusable and writes; not of calls and exits."""
    dst, src = 1 << insn.dst, (1 << insn.src if row.uses_src else 0)
    match row.kind:
        case Kind.ALU:
            return src | dst if row.reads_dst else src, 0, dst
        case Kind.WIDE:
            return 0, 0, dst
        case Kind.LOAD:
            return src, 0, dst
        case Kind.STORE:
            return src | dst, 0, 0
        case Kind.ATOMIC:
            if row.meaning is None:
                return src | dst | 1, 0, 1
            return src | dst, 0, src if row.fetches else 0
        case Kind.PACKET:
            return src | 1 << 6, _ARGUMENTS, 1
        case Kind.BRANCH:
            return src | dst, 0, 0
        case Kind.JUMP | Kind.STATIC_BRANCH | Kind.MAY_GOTO:
            return 0, 0, 0
        case Kind.EXIT | Kind.CALL:
            raise AssertionError(f"{row.name} has effects that depend on the way to it")


def _call_effects(structure: Structure, row: Row, insn: Insn, i: int, initialized: int) -> tuple[int, bool]:
    if row.callee is Callee.SUBPROGRAM:
        target = called_slot(insn, structure.starts[i])
        assert target is not None
        callee = structure.shapes[target]
        return callee.reads, callee.returns
    helper = helper_by_id(insn.imm, structure.program.type) if row.callee is Callee.HELPER else None
    if helper is not None and not helper.is_variadic:
        return (2 << len(helper.arguments)) - 2, True
    reference = structure.program.references.get(structure.starts[i]) if row.callee is Callee.KFUNC else None
    if reference is not None and reference.parameters is not None:
        return (2 << min(reference.parameters, len(ARGUMENT_REGISTERS))) - 2, True
    available = (2 << len(helper.arguments)) - 2 if helper is not None else 0
    for register in ARGUMENT_REGISTERS:
        if not initialized >> register & 1:
            break
        available |= 1 << register
    return available | (1 << insn.dst if row.callee is Callee.INDIRECT else 0), True


def _flow_initialized(structure: Structure, shape: Shape, given: int) -> None:
    """Forward: which registers are initialised on every path; an insn that reads another one is forbidden."""
    spans = shape.spans
    spans[0].initialized = given
    work = [0]
    seen: set[int] = set()
    while work:
        number = work.pop()
        known = spans[number].initialized
        for i in range(spans[number].first, spans[number].last + 1):
            reads, killed, made = _effects(structure, shape, i, known)
            known = (known | reads) & ~killed | made
        for successor in spans[number].successors:
            met = spans[successor].initialized & known
            if successor not in seen or met != spans[successor].initialized:
                seen.add(successor)
                spans[successor].initialized = met
                work.append(successor)
    for span in spans:
        known = span.initialized
        for i in range(span.first, span.last + 1):
            reads, killed, made = _effects(structure, shape, i, known)
            if structure.rows[i].kind is Kind.EXIT and not known & 1:
                shape.returns = False
            missing = reads & ~known
            if missing:
                register = (missing & -missing).bit_length() - 1
                said = f"register r{register} is read before it is written"
                problem = _problem(structure, i, "uninitialized-register", said, EACCES)
                structure.forbidden[i] = missing, problem
            known = (known | reads) & ~killed | made


def _flow_live(structure: Structure, shape: Shape) -> None:
    """Backward: which registers each span reads before writing them."""
    spans = shape.spans
    summary = [_summary(structure, shape, span) for span in spans]
    before: list[list[int]] = [[] for _ in spans]
    for number, span in enumerate(spans):
        for successor in span.successors:
            before[successor].append(number)
    work = list(range(len(spans)))
    queued = set(work)
    while work:
        number = work.pop()
        queued.discard(number)
        used, written = summary[number]
        live_out = 0
        for successor in spans[number].successors:
            live_out |= spans[successor].live_in
        live_in = used | live_out & ~written
        if live_in != spans[number].live_in:
            spans[number].live_in = live_in
            for previous in before[number]:
                if previous not in queued:
                    queued.add(previous)
                    work.append(previous)
    shape.reads = _ARGUMENTS if shape.address_taken else spans[0].live_in & _ARGUMENTS
    if shape.info.is_global and shape.info.start:
        shape.reads |= _declared(shape.info) if shape.info.btf_id else 0


def _summary(structure: Structure, shape: Shape, span: Span) -> tuple[int, int]:
    """The registers a span reads before writing them, and those it writes or clobbers."""
    used = written = 0
    known = span.initialized
    for i in range(span.first, span.last + 1):
        reads, killed, made = _effects(structure, shape, i, known)
        used |= reads & known & ~written
        written |= killed | made
        known = (known | reads) & ~killed | made
    return used, written
