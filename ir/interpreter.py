"""The reference interpreter: runs instructions as their rows say, over `Integers`, with every access checked.

It shares nothing with lifting or LLVM, so that it can tell who is wrong, and favours clarity over speed.
What a verifier would have refused (uninitialized registers, accesses outside memory, bad calls) is a
TrapError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, final

from ir.algebra import Integers, signed
from ir.context import Pointer, layout_of
from ir.context_access import find_in_packet, translate_access
from ir.diagnostics import Diagnostic, TrapError
from ir.environment import (
    FRAME_SIZE,
    FUNCTION_BASE,
    MAX_DEPTH,
    MAY_GOTO_BUDGET,
    TAIL_CALL_LIMIT,
    Environment,
    Helper,
    Registers,
    TailCall,
)
from ir.isa import (
    ARGUMENT_REGISTERS,
    FRAME_POINTER,
    NOP_FIRST,
    R0,
    R6,
    Callee,
    Insn,
    Kind,
    Row,
    Wide,
    compute,
    jump_distance,
    operand,
)
from ir.object import Program, ReferenceKind
from ir.probing import reads_objects
from ir.segments import AccessError, Memory, Segment, make_segment

MASK = (1 << 64) - 1

_Step = tuple[Row, Insn, int]  # an instruction, its row, and the slot after it


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: r0, instructions executed and the registers at the exit (None: not initialized)."""

    ret: int
    insns: int
    registers: tuple[int | None, ...]


@final
@dataclass(slots=True, eq=False)
class Frame:
    """One active function: where its caller goes on and what to give it back."""

    stack: Segment
    return_slot: int
    caller: Program | None
    saved: Registers
    may_goto_left: int = MAY_GOTO_BUDGET


@final
class Machine:
    """One run of a program: registers, memory, frames. `context` is what r1 points at, if not raw memory."""

    def __init__(
        self,
        program: Program,
        memory: Memory | None = None,
        environment: Environment | None = None,
        context: Segment | None = None,
    ) -> None:
        self.program = program
        self.memory = memory if memory is not None else Memory(big_endian=program.big_endian)
        self.environment = environment if environment is not None else Environment()
        self.context = context
        self.layout = layout_of(program.type)
        self.registers: Registers = [None if self.environment.strict else 0] * 11
        self.slot = 0
        self.insns = 0
        self.fuel = self.environment.fuel
        self.tail_calls = TAIL_CALL_LIMIT
        self.frames: list[Frame] = []
        self._arguments: tuple[int, ...] = ()
        self._algebra = Integers(program.big_endian)
        self._codes: dict[int, list[_Step | None]] = {}
        self._code = self._rows_by_slot(program)

    def run(self, *arguments: int) -> Outcome:
        """Run from the start with r1.. = `arguments` (by default the context); raises TrapError."""
        if not arguments and self.context is not None:
            arguments = (self.context.base,)
        self._arguments = arguments
        self.registers[1 : 1 + len(arguments)] = arguments
        self._enter(0, return_slot=-1)
        self._execute(until_depth=0)
        return Outcome(self.read(R0), self.insns, tuple(self.registers))

    def call(self, address: int, *arguments: int) -> int:
        """Call the program's function at `address` from a helper (a callback); its result."""
        saved, slot, depth = list(self.registers), self.slot, len(self.frames)
        self.registers[1 : 1 + len(arguments)] = arguments
        self.slot = self._enter(self._function_at(address), return_slot=slot)
        self._execute(until_depth=depth)
        ret = self.read(R0)
        self.registers[:] = saved
        return ret

    def read(self, register: int) -> int:
        """The value of a register; traps when it has none."""
        value = self.registers[register]
        if value is None:
            self.trap("uninitialized-register", f"r{register} is read before it is written")
        return value

    def trap(self, code: str, message: str) -> NoReturn:
        """End the run with a TrapError about the instruction being executed."""
        raise TrapError([Diagnostic(code, message, self.program.location(self.slot))])

    def _rows_by_slot(self, program: Program) -> list[_Step | None]:
        """What starts at each slot; None for the second half of a wide load."""
        code = self._codes.get(id(program))
        if code is None:
            code = [None] * program.starts[-1]
            starts = program.starts
            for slot, after, row, insn in zip(starts, starts[1:], program.rows, program.insns, strict=False):
                code[slot] = (row, insn, after)
            self._codes[id(program)] = code
        return code

    def _execute(self, until_depth: int) -> None:
        trace = self.environment.trace
        while len(self.frames) > until_depth:
            step = self._code[self.slot]
            assert step is not None
            if trace is not None:
                trace(self.slot, self.registers)
            self.insns += 1
            row, insn, after = step
            try:
                following = _STEPS[row.kind](self, row, insn)
            except AccessError as error:
                self.trap(error.code, error.message)
            self._go(after if following is None else following)

    def _go(self, slot: int) -> None:
        if not self.frames:
            return
        if not 0 <= slot < len(self._code) or self._code[slot] is None:
            self.trap("bad-jump", f"control reaches slot {slot}, where no instruction starts")
        self.slot = slot

    def _second(self, row: Row, insn: Insn) -> int:
        register = operand(row, insn)
        return insn.imm & MASK if register is None else self.read(register)

    # One method per kind of row: perform the instruction, return the slot to go on at, or None for the next.

    def _alu(self, row: Row, insn: Insn) -> None:
        x = self.read(insn.dst) if row.reads_dst else 0
        self._write(insn.dst, compute(row, self._algebra, x, self._second(row, insn)))

    def _wide(self, row: Row, insn: Insn) -> None:
        self._write(insn.dst, self._wide_value(insn))

    def _load(self, row: Row, insn: Insn) -> None:
        address = (self.read(insn.src) + insn.offset) & MASK
        try:
            value = self.memory.read(*self._place(address, row.size))
        except AccessError:
            if self._context_offset(address) is not None or not reads_objects(self.program):
                raise
            value = 0
        if row.signed:
            value = signed(row.size * 8, value) & MASK
        self._write(insn.dst, value)

    def _store(self, row: Row, insn: Insn) -> None:
        address, size = self._place((self.read(insn.dst) + insn.offset) & MASK, row.size, is_store=True)
        self.memory.write(address, size, self._second(row, insn))

    def _atomic(self, row: Row, insn: Insn) -> None:
        address = (self.read(insn.dst) + insn.offset) & MASK
        if self._context_offset(address) is not None:
            self.trap("bad-context-access", f"atomic operation on {self.layout.name}")
        old, value = self.memory.read(address, row.size), self.read(insn.src)
        if row.meaning is not None:
            self.memory.write(address, row.size, compute(row, self._algebra, old, value))
            if row.fetches:
                self._write(insn.src, old)
            return
        if old == self.read(R0) & ((1 << row.bits) - 1):
            self.memory.write(address, row.size, value)
        self._write(R0, old)

    def _packet(self, row: Row, insn: Insn) -> int | None:
        """Read the packet; outside of it, the function returns 0 as the kernel's does (bpf_gen_ld_abs)."""
        index = signed(32, insn.imm + (self.read(insn.src) if row.uses_src else 0))
        address = find_in_packet(index, row.size, *self._packet_bounds())
        if address is None:
            self.registers[R0] = 0
            return self._leave()
        self._clobber_arguments()
        self._write(R0, int.from_bytes(self.memory.view(address, row.size), "big"))
        return None

    def _jump(self, row: Row, insn: Insn) -> int:
        return self._take(row, insn)

    def _branch(self, row: Row, insn: Insn) -> int | None:
        holds = compute(row, self._algebra, self.read(insn.dst), self._second(row, insn))
        return self._take(row, insn) if holds else None

    def _static_branch(self, row: Row, insn: Insn) -> int | None:
        jumps_first = not insn.src & NOP_FIRST
        return self._take(row, insn) if jumps_first != (self.slot in self.environment.flipped) else None

    def _may_goto(self, row: Row, insn: Insn) -> int | None:
        frame = self.frames[-1]
        if frame.may_goto_left == 0:
            return self._take(row, insn)
        frame.may_goto_left -= 1
        return None

    def _call(self, row: Row, insn: Insn) -> int | None:
        if row.callee is Callee.SUBPROGRAM:
            return self._enter(self.slot + 1 + insn.imm, return_slot=self.slot + 1)
        if row.callee is Callee.KFUNC:
            reference = self.program.references.get(self.slot)
            name = reference.name if reference is not None else f"btf_{insn.imm}"
            return self._call_helper(self.environment.kfuncs.get(name), f"kfunc '{name}'")
        number = self.read(insn.dst) if row.callee is Callee.INDIRECT else insn.imm
        helper = self.environment.helpers.get(number)
        if row.callee is Callee.INDIRECT and helper is None:
            return self._enter(self._function_at(number), return_slot=self.slot + 1)
        return self._call_helper(helper, f"helper {number}")

    def _exit(self, row: Row, insn: Insn) -> int:
        self.read(R0)
        return self._leave()

    def _write(self, register: int, value: int) -> None:
        if register == FRAME_POINTER:
            self.trap("frame-pointer-write", "r10 is read-only")
        self.registers[register] = value

    def _wide_value(self, insn: Insn) -> int:
        reference = self.program.references.get(self.slot)
        if reference is None and insn.src == Wide.PLAIN.value:
            return insn.imm
        if reference is None and insn.src == Wide.FUNC.value:
            return FUNCTION_BASE + 8 * (self.slot + 1 + signed(32, insn.imm))
        if reference is not None and reference.kind is ReferenceKind.FUNCTION:
            return FUNCTION_BASE + 8 * reference.offset
        if reference is None or self.environment.resolve is None:
            what = reference.name if reference is not None else f"{insn.imm:#x}"
            self.trap("unresolved-reference", f"{Wide(insn.src).name.lower()} '{what}' has no value here")
        return self.environment.resolve(reference) & MASK

    def _place(self, address: int, size: int, is_store: bool = False) -> tuple[int, int]:
        """Where an access goes: to its own address, or into the context as that is laid out."""
        offset = self._context_offset(address)
        if offset is None:
            return address, size
        moved, size = translate_access(self.layout, offset, size, is_store)
        return address - offset + moved, size

    def _context_offset(self, address: int) -> int | None:
        context = self.context
        if context is None or self.layout.is_raw or not context.base <= address < context.end:
            return None
        return address - context.base

    def _packet_bounds(self) -> tuple[int, int]:
        if self.context is not None and self.layout.pointers:
            self.read(R6)
            data, end = (self.context.base + pointer.value for pointer in (Pointer.DATA, Pointer.DATA_END))
            return self.memory.read(data, 8), self.memory.read(end, 8)
        if len(self._arguments) >= 2:
            return self._arguments[0], self._arguments[0] + self._arguments[1]
        return 0, 0

    def _take(self, row: Row, insn: Insn) -> int:
        distance = jump_distance(row, insn)
        if distance < 0:
            if self.fuel == 0:
                self.trap("out-of-fuel", f"more than {self.environment.fuel} jumps back")
            self.fuel -= 1
        return self.slot + 1 + distance

    def _enter(self, slot: int, return_slot: int) -> int:
        if len(self.frames) == MAX_DEPTH:
            self.trap("call-depth", f"calls nest deeper than {MAX_DEPTH} frames")
        base = self.environment.stack + len(self.frames) * 0x1000
        stack = make_segment(base, bytearray(FRAME_SIZE), f"the stack of frame {len(self.frames)}")
        self.memory.add(stack)
        self.frames.append(Frame(stack, return_slot, self.program, self.registers[6:11]))
        self.registers[FRAME_POINTER] = stack.end
        if self.environment.strict:
            self.registers[R0] = None
            self.registers[6:10] = [None] * 4
        return slot

    def _leave(self) -> int:
        frame = self.frames.pop()
        self.memory.remove(frame.stack)
        self._clobber_arguments()
        if self.frames:
            self.registers[6:11] = frame.saved
            assert frame.caller is not None
            self.program = frame.caller
            self._code = self._rows_by_slot(frame.caller)
        return frame.return_slot

    def _clobber_arguments(self) -> None:
        if self.environment.strict:
            for register in ARGUMENT_REGISTERS:
                self.registers[register] = None

    def _function_at(self, address: int) -> int:
        slot, rest = divmod(address - FUNCTION_BASE, 8)
        if address in self.program.tokens:
            slot, rest = self.program.tokens[address], 0
        if rest or not 0 <= slot < len(self._code) or self._code[slot] is None:
            self.trap("bad-call", f"{address:#x} is not a function or a helper")
        return slot

    def _call_helper(self, helper: Helper | None, name: str) -> int | None:
        if helper is None:
            reason = self.program.poisoned.get(self.slot)
            if reason is not None:
                self.trap(reason.code, reason.message)
            self.trap("missing-helper", f"{name} is not provided")
        arguments = [self.registers[register] or 0 for register in ARGUMENT_REGISTERS]
        try:
            result = helper(self, *arguments) & MASK
        except TailCall as call:
            if self.tail_calls > 0:
                return self._replace(call.program, arguments[0])
            result = MASK
        self._clobber_arguments()
        self._write(R0, result)
        return None

    def _replace(self, program: Program, context: int) -> int:
        """Go on at the start of `program` in the current frame, as a tail call does."""
        self.tail_calls -= 1
        self.program = program
        self._code = self._rows_by_slot(program)
        if self.environment.strict:
            self.registers[:10] = [None] * 10
        self.registers[1] = context
        return 0


_STEPS: Final[Mapping[Kind, Callable[[Machine, Row, Insn], int | None]]] = {
    Kind.ALU: Machine._alu,
    Kind.WIDE: Machine._wide,
    Kind.LOAD: Machine._load,
    Kind.STORE: Machine._store,
    Kind.ATOMIC: Machine._atomic,
    Kind.PACKET: Machine._packet,
    Kind.JUMP: Machine._jump,
    Kind.BRANCH: Machine._branch,
    Kind.STATIC_BRANCH: Machine._static_branch,
    Kind.MAY_GOTO: Machine._may_goto,
    Kind.CALL: Machine._call,
    Kind.EXIT: Machine._exit,
}
assert set(_STEPS) == set(Kind)
