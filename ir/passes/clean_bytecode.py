"""Small things that make bytecode shorter and change nothing else: jumps, zero extensions, dead instructions.

    if r1 == 0 goto L          if r1 == 0 goto M           goto over goto
    L: goto M

    r1 <<= 32                  w1 = w1                     what older compilers write; nothing, after `r1 = *(u32 *)..`
    r1 >>= 32

    r3 = r1                    (gone)                      nobody reads r3

Only what Linux' verifier knows as well is used: it must accept what comes out wherever it accepted what went in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from ir.bytecode import Rewritten, rewrite
from ir.context import ContextLayout
from ir.isa import R0, ROW_BY_NAME, S16, Callee, Insn, Kind, Row, jump_distance
from ir.object import Program
from ir.register_flow import fixed_effects
from ir.structure import Shape, Span, Structure, analyze_structure

_JA: Final = ROW_BY_NAME["ja"].opcode
_SHIFT_LEFT: Final = ROW_BY_NAME["lsh64 imm"].opcode
_SHIFT_RIGHT: Final = ROW_BY_NAME["rsh64 imm"].opcode
_ZERO_EXTEND: Final = ROW_BY_NAME["mov32 reg"].opcode
_PURE: Final = (Kind.ALU, Kind.WIDE, Kind.LOAD)
_SHORT: Final = (Kind.JUMP, Kind.BRANCH)


def thread_jumps(program: Program) -> Rewritten:
    """Jumps go where the jumps lead that they lead to, and a branch to the next instruction goes."""
    at = dict(zip(program.starts, zip(program.insns, program.rows, strict=True), strict=False))
    insns = list(program.insns)
    for number, (slot, row) in enumerate(zip(program.starts, program.rows, strict=False)):
        if row.kind in _SHORT and row.offset is S16:
            distance = _final(slot + 1 + insns[number].offset, at) - slot - 1
            if distance in S16:
                insns[number] = insns[number]._replace(offset=distance)
    threaded = replace(program, insns=tuple(insns))
    idle = [
        slot
        for slot, insn, row in zip(program.starts, insns, program.rows, strict=False)
        if row.kind is Kind.BRANCH and not insn.offset
    ]
    return rewrite(threaded, dict.fromkeys(idle, ()))


def _final(slot: int, at: Mapping[int, tuple[Insn, Row]]) -> int:
    """Where control comes to that goes to `slot`, past plain jumps."""
    seen: set[int] = set()
    while at[slot][0].opcode == _JA and not at[slot][0].src and slot not in seen:
        seen.add(slot)
        slot += 1 + jump_distance(at[slot][1], at[slot][0])
    return slot


def shorten_extensions(program: Program, context: ContextLayout) -> Rewritten:
    """Pairs of shifts that clear the upper half of a register become one move, or nothing."""
    replacements: dict[int, Sequence[Insn]] = {}
    for structure, span in _spans(program, context):
        insns, starts = program.insns, structure.starts
        narrow = 0  # registers whose upper half is clear, as a mask
        i = span.first
        while i <= span.last:
            insn, row = insns[i], structure.rows[i]
            following = insns[i + 1] if i < span.last else None
            if _clears_upper_half(insn, following) and not {starts[i], starts[i + 1]} & set(program.core):
                register = insn.dst
                is_clear = narrow >> register & 1
                move = Insn(_ZERO_EXTEND, register, register)
                replacements[starts[i]] = () if is_clear else (move,)
                replacements[starts[i + 1]] = ()
                narrow |= 1 << register
                i += 2
                continue
            narrow = _still_narrow(insn, row, narrow)
            i += 1
    return rewrite(program, replacements)


def _clears_upper_half(insn: Insn, following: Insn | None) -> bool:
    return (
        following is not None
        and (insn.opcode, insn.imm) == (_SHIFT_LEFT, 32)
        and (following.opcode, following.imm) == (_SHIFT_RIGHT, 32)
        and insn.dst == following.dst
    )


def _still_narrow(insn: Insn, row: Row, narrow: int) -> int:
    """The registers with a clear upper half after an instruction."""
    if row.kind is Kind.CALL:
        return narrow & ~0b111111
    if row.kind in (Kind.EXIT, Kind.JUMP, Kind.BRANCH, Kind.STATIC_BRANCH, Kind.MAY_GOTO):
        return narrow
    _, lost, written = fixed_effects(row, insn)
    is_clear = (row.kind is Kind.ALU and row.bits == 32) or (
        row.kind is Kind.LOAD and row.size < 8 and not row.signed and not row.imm
    )
    narrow &= ~(lost | written)
    return narrow | written if is_clear else narrow


def remove_dead_insns(program: Program, context: ContextLayout) -> Rewritten:
    """Instructions that only write a register that nobody reads go; loads, too: accepted programs' loads don't trap."""
    dead: list[int] = []
    for structure, span, shape in _shaped_spans(program, context):
        live = 0
        for successor in span.successors:
            live |= shape.spans[successor].live_in
        known = _known(structure, shape, span)
        for i in range(span.last, span.first - 1, -1):
            reads, lost, written = _effects(structure, shape, i, known[i - span.first])
            row = structure.rows[i]
            if row.kind in _PURE and not row.is_atomic and not written & live:
                dead.append(structure.starts[i])
                continue
            live = live & ~(lost | written) | reads
    return rewrite(program, dict.fromkeys(dead, ()))


def _known(structure: Structure, shape: Shape, span: Span) -> list[int]:
    """The registers that are initialized before each instruction of a span."""
    known = [span.initialized]
    for i in range(span.first, span.last + 1):
        _, lost, written = _effects(structure, shape, i, known[-1])
        known.append(known[-1] & ~lost | written)
    return known


def _effects(structure: Structure, shape: Shape, i: int, initialized: int) -> tuple[int, int, int]:
    """The registers that insn `i` reads, makes unusable and writes; calls pass what may be an argument."""
    row, insn = structure.rows[i], structure.program.insns[i]
    if row.kind is Kind.EXIT:
        return 1 << R0 if initialized & 1 else 0, 0, 0
    if row.kind is not Kind.CALL:
        return fixed_effects(row, insn)
    reads = shape.call_reads.get(i, 0b111110)
    if row.callee in (Callee.KFUNC, Callee.INDIRECT):
        reads |= 0b111110 & initialized
    return reads, 0b111111, 1 << R0


def _spans(program: Program, context: ContextLayout) -> Iterator[tuple[Structure, Span]]:
    for structure, span, _ in _shaped_spans(program, context):
        yield structure, span


def _shaped_spans(program: Program, context: ContextLayout) -> Iterator[tuple[Structure, Span, Shape]]:
    entry = (2 << len(context.arguments)) - 2
    structure = analyze_structure(program, entry)
    for shape in structure.shapes.values():
        for span in shape.spans:
            yield structure, span, shape
