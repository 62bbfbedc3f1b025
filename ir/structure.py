"""The shape of a program before SSA: functions, basic blocks, registers read; and everything wrong with that shape.

These are the checks Linux makes before it looks at any value: jumps, fall-through, reachability, calls, recursion.
They make lifting total: a program without problems here always lifts. Reads of registers that are not
initialised on every path are only noted, for such instructions may be dead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from ir.diagnostics import Diagnostic, RejectedError
from ir.functions import MAY_NAME_FUNCTION, called_slot
from ir.isa import (
    FRAME_POINTER,
    Kind,
    Row,
    jump_distance,
)
from ir.object import FunctionInfo, Program
from ir.register_flow import ALL, declared, flow_registers, writes_frame_pointer

EINVAL, E2BIG, EACCES, EBADF = 22, 7, 13, 9
MAX_FUNCTIONS = 256
MAX_DEPTH = 8
MAX_INSNS = 1_000_000
_EXIT = Kind.EXIT
_NEVER_FALLS = (Kind.EXIT, Kind.JUMP)


@final
@dataclass(eq=False, slots=True)
class Span:
    """A basic block: insns [first, last], successors as span numbers (taken first), registers as bit masks."""

    first: int
    last: int
    successors: tuple[int, ...] = ()
    initialized: int = ALL
    live_in: int = 0


@final
@dataclass(eq=False, slots=True)
class Shape:
    """One function: its spans in order (the first is the entry), what it calls and which arguments it reads.

    `reads` and `call_reads` are masks of registers: read at entry, and passed at each call (by insn number). Those that are
    `uncertain` are read somewhere although not all ways there wrote them. `void_calls` leave nothing in r0.
    """

    info: FunctionInfo
    first: int
    end: int
    spans: list[Span] = field(default_factory=list)
    callees: list[int] = field(default_factory=list)
    reads: int = 0
    uncertain: int = 0
    returns: bool = True
    address_taken: bool = False
    call_reads: dict[int, int] = field(default_factory=dict)
    void_calls: set[int] = field(default_factory=set)


@final
@dataclass(eq=False, slots=True)
class Structure:
    """A program's rows, where each insn starts, and its functions keyed by starting slot (main first).

    `forbidden` are insns that are wrong if control gets to them, which only values tell: what they read without its being
    written first (a mask of registers), and what to say.
    """

    program: Program
    rows: list[Row]
    starts: list[int]
    index_of: dict[int, int]
    shapes: dict[int, Shape]
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
        given = entry_registers if shape.info.start == 0 else declared(shape.info)
        flow_registers(structure, shape, given | 1 << FRAME_POINTER)
    if problems:
        raise RejectedError(problems)
    return structure


def problem(structure: Structure, insn: int, code: str, message: str, errno: int) -> Diagnostic:
    return Diagnostic(code, message, structure.program.location(structure.starts[insn]), errno=errno)


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
    i = shape.first - 1
    for row, insn in zip(rows[shape.first : shape.end], insns[shape.first : shape.end], strict=True):
        i += 1
        if not row.ends_block:
            opcode, dst, src, _, _ = insn
            if (dst == FRAME_POINTER or src == FRAME_POINTER) and writes_frame_pointer(row, insn):
                wrong = problem(structure, i, "frame-pointer-write", "frame pointer r10 is read only", EACCES)
                structure.forbidden[i] = 0, wrong
            if opcode in MAY_NAME_FUNCTION:
                _check_named(structure, shape, i, problems)
            continue
        leaders.add(i + 1)
        if row.kind is _EXIT:
            continue
        slot = starts[i] + 1 + jump_distance(row, insn)
        target = index_of.get(slot, -1)
        if not shape.first <= target < shape.end:
            said = f"'{row.name}' jumps to slot {slot}, outside function '{shape.info.name}'"
            problems.append(problem(structure, i, "jump-out-of-range", said, EINVAL))
            continue
        targets[i] = target
        leaders.add(target)
    if rows[shape.end - 1].kind not in _NEVER_FALLS:
        said = f"control falls off the end of function '{shape.info.name}'"
        problems.append(problem(structure, shape.end - 1, "falls-off-end", said, EINVAL))
    if len(problems) > before:
        return
    firsts = sorted(leader for leader in leaders if leader < shape.end)
    number = {first: n for n, first in enumerate(firsts)}
    for first, following in zip(firsts, [*firsts[1:], shape.end], strict=True):
        i = following - 1
        taken = (number[targets[i]],) if i in targets else ()
        falls = () if rows[i].kind in _NEVER_FALLS else (number[following],)
        shape.spans.append(Span(first, i, taken + falls))
    _check_reachable(structure, shape, problems)


def _check_named(structure: Structure, shape: Shape, i: int, problems: list[Diagnostic]) -> None:
    """Note the function that an instruction calls or takes the address of, if it names one."""
    row, insn = structure.rows[i], structure.program.insns[i]
    target = called_slot(insn, structure.starts[i])
    if target is None:
        if row.kind is Kind.WIDE and insn.src and structure.starts[i] not in structure.program.references:
            said = f"nothing is known by the number {insn.imm & 0xFFFF_FFFF} that is loaded here"
            problems.append(problem(structure, i, "bad-map-descriptor", said, EBADF))
        return
    if target not in structure.shapes:
        problems.append(
            problem(structure, i, "bad-call-target", f"slot {target} is not the start of a function", EINVAL)
        )
    elif row.kind is Kind.CALL:
        shape.callees.append(target)
    else:
        structure.shapes[target].address_taken = True
        shape.callees.append(target)


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
                problem(
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
