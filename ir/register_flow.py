"""Which registers a function's instructions read and write, and what follows: initialised on every path, live at each block.

Sets of registers are bit masks. Most instructions do the same to them however they are reached, so a basic block is
summed up once; a call whose arguments nothing declares reads those of r1-r5 that are initialised there.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING, Final, NamedTuple, final

from ir.diagnostics import Diagnostic
from ir.functions import called_slot
from ir.helpers import ResultKind, helper_by_id
from ir.isa import ARGUMENT_REGISTERS, FRAME_POINTER, R0, R6, ROWS_BY_OPCODE, Callee, Insn, Kind, Row
from ir.object import POISON_HELPER, FunctionInfo

if TYPE_CHECKING:
    from ir.structure import Shape, Span, Structure

EACCES: Final = 13
ALL: Final = (1 << 11) - 1
_ARGUMENTS: Final = sum(1 << register for register in ARGUMENT_REGISTERS)
_CLOBBERED: Final = _ARGUMENTS | 1 << R0


class Effects(NamedTuple):
    """The registers that an instruction reads, makes unusable and initialises."""

    reads: int
    killed: int
    made: int


_NO_EFFECTS: Final = Effects(0, 0, 0)


class Summary(NamedTuple):
    """The effects of a span as a whole: `reads` before it writes them. `is_broken`: it reads what it made unusable."""

    reads: int
    killed: int
    made: int
    is_broken: bool


def flow_registers(structure: Structure, shape: Shape, given: int) -> None:
    """Fill in what `shape` and its spans say of registers, `given` those that are initialised at the entry.

    Insns that read what is not initialised on every path are forbidden; from there on it is. Callees have to be done before.
    """
    _Flow(structure, shape).run(given)


def declared(info: FunctionInfo) -> int:
    """The registers that callers surely pass: those that the type of a global function says, else any may be."""
    return ((2 << info.parameters) - 2) & _ARGUMENTS if info.is_global and info.btf_id else _ARGUMENTS


def is_poison(row: Row, insn: Insn) -> bool:
    """Whether an instruction stands where a CO-RE relocation could not be resolved."""
    return row.callee is Callee.HELPER and insn.imm == POISON_HELPER


def writes_frame_pointer(row: Row, insn: Insn) -> bool:
    """Whether an instruction would change r10, which is read only."""
    return insn.src == FRAME_POINTER if row.fetches else row.writes_dst and insn.dst == FRAME_POINTER


def fixed_effects(row: Row, insn: Insn) -> Effects:
    """What an instruction other than a call or an exit does to registers."""
    dst, src = 1 << insn.dst, (1 << insn.src if row.uses_src else 0)
    match row.kind:
        case Kind.ALU:
            return Effects(src | dst if row.reads_dst else src, 0, dst)
        case Kind.WIDE:
            return Effects(0, 0, dst)
        case Kind.LOAD:
            return Effects(src, 0, dst)
        case Kind.STORE | Kind.BRANCH:
            return Effects(src | dst, 0, 0)
        case Kind.ATOMIC:
            if row.meaning is None:
                return Effects(src | dst | 1 << R0, 0, 1 << R0)
            return Effects(src | dst, 0, src if row.fetches else 0)
        case Kind.PACKET:
            return Effects(src | 1 << R6, _ARGUMENTS, 1 << R0)
        case Kind.JUMP | Kind.STATIC_BRANCH | Kind.MAY_GOTO:
            return Effects(0, 0, 0)
        case Kind.EXIT | Kind.CALL:
            raise AssertionError(f"{row.name} has effects that depend on where it stands")


@cache
def _effects_of(opcode: int, dst: int, src: int) -> Effects | None:
    """The effects of all instructions with these fields; None when they hang on more."""
    row, insn = ROWS_BY_OPCODE[opcode][0], Insn(opcode, dst, src)
    if row.kind in (Kind.EXIT, Kind.CALL) or row.is_atomic:
        return None
    return _NO_EFFECTS if writes_frame_pointer(row, insn) else fixed_effects(row, insn)


@final
class _Flow:
    """The registers of one function; `effects` are those of each insn, `open` the insns whose effects depend on the way there."""

    def __init__(self, structure: Structure, shape: Shape) -> None:
        self.structure, self.shape = structure, shape
        self.insns, self.rows = structure.program.insns, structure.rows
        self.open: set[int] = set()
        self.effects = self._all_effects()

    def run(self, given: int) -> None:
        """Forward to what is initialised, then backward to what is live."""
        spans = self.shape.spans
        summaries = [self._summarize(span) for span in spans]
        self._flow_initialized(given, summaries)
        for number, span in enumerate(spans if self.open else ()):
            if self._close(span):
                summaries[number] = self._summarize(span)
        for span, summary in zip(spans, summaries, strict=True):
            if summary.is_broken or summary.reads & ~span.initialized:
                self._forbid(span)
        self._flow_live(given, summaries)

    def _all_effects(self) -> list[Effects]:
        """The effects of each insn, numbered as in the program; of other functions' and open ones anything."""
        first, end = self.shape.first, self.shape.end
        effects = [_NO_EFFECTS] * first
        append = effects.append
        for insn in self.insns[first:end]:
            opcode, dst, src, _, _ = insn
            append(_effects_of(opcode, dst, src) or self._own_effects(len(effects), insn))
        return effects

    def _own_effects(self, i: int, insn: Insn) -> Effects:
        row = self.rows[i]
        if row.kind in (Kind.EXIT, Kind.CALL):
            return self._leaving_effects(i, row, insn)
        return _NO_EFFECTS if writes_frame_pointer(row, insn) else fixed_effects(row, insn)

    def _leaving_effects(self, i: int, row: Row, insn: Insn) -> Effects:
        """The effects of a call or exit, as far as they are known; opens it otherwise."""
        if row.kind is Kind.EXIT:
            if self.shape.info.start and not self.shape.address_taken:
                self.open.add(i)  # who calls it back wants a result; other callers may not
            return Effects(1 << R0, 0, 0)
        reads, made = 0, 1 << R0
        if is_poison(row, insn):
            self.shape.call_reads[i] = 0
            return Effects(0, 0, ALL)  # where another instruction stood, which may have written any register
        if row.callee is Callee.SUBPROGRAM:
            target = called_slot(insn, self.structure.starts[i])
            assert target is not None
            callee = self.structure.shapes[target]
            reads, made = callee.reads, 1 << R0 if callee.returns else 0
        else:
            count, takes_more = self._parameters(i, row, insn)
            made = 0 if self._is_void(row, insn) else made
            reads = 1 << insn.dst if row.callee is Callee.INDIRECT else (2 << count) - 2
            if takes_more:
                self.open.add(i)
        self.shape.call_reads[i] = reads
        if not made:
            self.shape.void_calls.add(i)
        return Effects(reads, _CLOBBERED, made)

    def _is_void(self, row: Row, insn: Insn) -> bool:
        """Whether a call leaves no result in r0."""
        helper = helper_by_id(insn.imm, self.structure.program.type) if row.callee is Callee.HELPER else None
        return helper is not None and helper.result.kind is ResultKind.VOID

    def _parameters(self, i: int, row: Row, insn: Insn) -> tuple[int, bool]:
        """How many arguments a call out of the program surely takes, and whether it takes what else there is."""
        if row.callee is Callee.KFUNC:
            reference = self.structure.program.references.get(self.structure.starts[i])
            known = reference.parameters if reference is not None else None
            return (0, True) if known is None else (min(known, len(ARGUMENT_REGISTERS)), False)
        helper = helper_by_id(insn.imm, self.structure.program.type) if row.callee is Callee.HELPER else None
        return (len(helper.arguments), helper.is_variadic) if helper is not None else (0, True)

    def _summarize(self, span: Span) -> Summary:
        reads = made = gone = killed = written = 0
        is_broken = False
        for reading, killing, making in self.effects[span.first : span.last + 1]:
            reads |= reading & ~written
            if reading & gone:
                is_broken = True
            made |= reading
            if killing:
                killed |= killing
                gone |= killing
                made &= ~killing
            made |= making
            gone &= ~(making | reading & ~killing)
            written |= killing | making
        return Summary(reads, killed, made, is_broken)

    def _flow_initialized(self, given: int, summaries: list[Summary]) -> None:
        """Forward: which registers are initialised on every path to each span; open insns differ in what they read only."""
        spans = self.shape.spans
        spans[0].initialized = given
        work = [0]
        seen: set[int] = set()
        while work:
            span, summary = spans[work[-1]], summaries[work.pop()]
            known = span.initialized & ~summary.killed | summary.made
            for successor in span.successors:
                met = spans[successor].initialized & known
                if successor not in seen or met != spans[successor].initialized:
                    seen.add(successor)
                    spans[successor].initialized = met
                    work.append(successor)

    def _close(self, span: Span) -> bool:
        """Decide what the open insns of a span read, now that it is known what is initialised there; whether it has any."""
        found = self.open.intersection(range(span.first, span.last + 1))
        known = span.initialized
        for i in range(span.first, span.last + 1) if found else ():
            if i in found:
                self._close_insn(i, known)
            reads, killed, made = self.effects[i]
            known = (known | reads) & ~killed | made
        return bool(found)

    def _close_insn(self, i: int, initialized: int) -> None:
        reads, killed, made = self.effects[i]
        if self.rows[i].kind is Kind.EXIT:
            self.effects[i] = Effects(initialized & 1 << R0, 0, 0)
            self.shape.returns &= bool(initialized & 1 << R0)
            return
        passed = initialized & self.meant
        for register in ARGUMENT_REGISTERS:
            if not passed >> register & 1:
                break
            reads |= 1 << register
        self.shape.call_reads[i] = reads
        self.effects[i] = Effects(reads, killed, made)

    @cached_property
    def meant(self) -> int:
        """The registers that hold what this function was given, by its type, or wrote; others only happen to hold something."""
        info, meant = self.shape.info, 0
        for effects in self.effects[self.shape.first : self.shape.end]:
            meant |= effects.made
        return meant | (2 << info.parameters) - 2 if info.btf_id else ALL

    def _forbid(self, span: Span) -> None:
        """Forbid each insn of `span` that reads a register which some path to it leaves uninitialised."""
        structure, known = self.structure, span.initialized
        taken: dict[int, int] = {}  # register -> the slot of the call that it was lost in
        for i in range(span.first, span.last + 1):
            reads, killed, made = self.effects[i]
            missing = reads & ~known
            if missing:
                register = (missing & -missing).bit_length() - 1
                said = f"register r{register} is read before it is written"
                if register in taken:
                    said = f"register r{register} is read after the call at insn {taken[register]}, which keeps r6 to r9 only"
                at = structure.program.location(structure.starts[i])
                problem = Diagnostic("uninitialized-register", said, at, errno=EACCES)
                structure.forbidden[i] = missing, problem
                self.shape.uncertain |= missing
            if killed:
                taken = dict.fromkeys(ARGUMENT_REGISTERS, structure.starts[i])
            known = (known | reads) & ~killed | made

    def _flow_live(self, given: int, summaries: list[Summary]) -> None:
        """Backward: which registers each span reads before writing them, `given` those that are initialised at the entry."""
        shape, spans = self.shape, self.shape.spans
        before: list[list[int]] = [[] for _ in spans]
        for number, span in enumerate(spans):
            for successor in span.successors:
                before[successor].append(number)
        work = list(range(len(spans)))
        queued = set(work)
        while work:
            number = work.pop()
            queued.discard(number)
            span, summary, live = spans[number], summaries[number], 0
            for successor in span.successors:
                live |= spans[successor].live_in
            live = summary.reads & (span.initialized | shape.uncertain) | live & ~(
                summary.killed | summary.made
            )
            if live != span.live_in:
                span.live_in = live
                for previous in before[number]:
                    if previous not in queued:
                        queued.add(previous)
                        work.append(previous)
        shape.reads = _ARGUMENTS if shape.address_taken else spans[0].live_in & _ARGUMENTS & given
        if shape.info.is_global and shape.info.start:
            shape.reads |= declared(shape.info) if shape.info.btf_id else 0
