"""Lifting: instructions to SSA.

    r1 = 7                       entry:
    r2 = r1          ->            v0 = const 7
    r2 += 1                        v1 = const 1
    exit ...                       v2 = add64 v0, v1

Registers become values: a move makes no instruction. A block that several edges enter gets a parameter for each register
live there that they bring different values of; for each one at all where an edge comes back, and those that turn out to
receive one value only are then removed.

Where a register is read that only some of the ways there wrote, another parameter, its flag, says whether the one taken did,
and a branch asks it:

    b1: ...                b1(v1: r5, v2: flag):
      r0 = r5      ->        if v2 == 0 goto b2 else b3
                           b2: v3 = call poison      b3: ...
                             return v3
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

from ir.context import ContextLayout, layout_of
from ir.core import (
    Address,
    Alu,
    Atomic,
    Block,
    Branch,
    Call,
    Const,
    Edge,
    Frame,
    Function,
    Inst,
    Jump,
    Load,
    MayGoto,
    Module,
    PacketLoad,
    Param,
    Return,
    StaticBranch,
    Store,
    Value,
)
from ir.functions import called_slot
from ir.isa import (
    ARGUMENT_REGISTERS,
    FRAME_POINTER,
    NOP_FIRST,
    R0,
    R1,
    R6,
    ROW_BY_NAME,
    Callee,
    Insn,
    Kind,
    Row,
    Wide,
)
from ir.object import POISON_HELPER, Map, Program, Reference, ReferenceKind
from ir.register_flow import is_poison
from ir.rename import remove_trivial_params
from ir.structure import Shape, Span, Structure, analyze_structure

U64 = (1 << 64) - 1
_ALU, _LOAD, _STORE, _BRANCH = Kind.ALU, Kind.LOAD, Kind.STORE, Kind.BRANCH
_COPY, _CONSTANT = ROW_BY_NAME["mov64 reg"], ROW_BY_NAME["mov64 imm"]
_IF_EQUAL = ROW_BY_NAME["jeq64 reg"]
_FLAG = -1  # the register of flags, which stood in none


def lift(program: Program, maps: Mapping[str, Map], context: ContextLayout | None = None) -> Module:
    """The SSA form of `program`. Raises RejectedError when its structure is not sound."""
    context = context or layout_of(program.type)
    entry_registers = (2 << len(context.arguments)) - 2
    structure = analyze_structure(program, entry_registers)
    functions = {
        shape.info.name: _Lifter(structure, shape, is_main=shape.info.start == 0, context=context).run()
        for shape in structure.shapes.values()
    }
    if structure.forbidden:
        reasons = {structure.starts[i]: problem for i, (_, problem) in structure.forbidden.items()}
        program = replace(program, poisoned={**program.poisoned, **reasons})
    return Module(program, functions, maps, context)


Registers = list[Value | None]


class _Lifter:
    """Lifts one function; `registers` is the value of each register while walking a block."""

    def __init__(self, structure: Structure, shape: Shape, is_main: bool, context: ContextLayout) -> None:
        self.structure = structure
        self.shape = shape
        self.insns = structure.program.insns
        self.blocks = [Block(structure.starts[span.first]) for span in shape.spans]
        self.parts = [[block] for block in self.blocks]  # a span's block, and those that it ends up in
        self.entry_counts = [0] * len(shape.spans)
        self.entering: list[list[tuple[Edge, Registers]]] = [[] for _ in shape.spans]
        self.entered: set[int] = set()
        self.has_loops = False
        # Of the parameters that bring a register which not all ways wrote.
        self.flag_of: dict[Value, Param] = {}
        self.flagged: dict[Param, int] = {}  # flag -> that register
        self.params = [Param(register) for register in ARGUMENT_REGISTERS if shape.reads >> register & 1]
        if is_main:
            self.params = [Param(R1 + number) for number in range(len(context.arguments))]
        self.registers: Registers = [None] * 11
        self.out: list[Inst] = []

    def run(self) -> Function:
        shape = self.shape
        for span in shape.spans:
            for successor in span.successors:
                self.entry_counts[successor] += 1
        at = self.structure.starts[shape.first]
        frame = Frame(at)
        start: Registers = [None] * 11
        for param in self.params:
            start[param.register] = param
        start[FRAME_POINTER] = frame
        entry = self.blocks[0]
        if self.entry_counts[0]:
            entry = Block(at)
            entry.terminator = Jump(self._edge(0, start), at)
        else:
            self.entering[0].append((Edge(entry), start))
        self.entry_counts[0] += 1
        entry.insts.append(frame)
        if shape.uncertain:
            self.unset, self.is_set = Const(0, at), Const(1, at)
            entry.insts += self.unset, self.is_set
        for number in self._order():
            self._lift_span(number)
        blocks = [*chain.from_iterable(self.parts)]
        if entry is not blocks[0]:
            blocks.insert(0, entry)
        function = Function(shape.info, self.params, blocks, self.structure.program)
        if self.has_loops:
            remove_trivial_params(function)
        return function

    def _order(self) -> list[int]:
        """Span numbers in reverse postorder."""
        spans = self.shape.spans
        seen: set[int] = set()
        order: list[int] = []
        stack = [0]
        while stack:
            number = stack.pop()
            if number < 0:  # all behind it are done
                order.append(~number)
            elif number not in seen:
                seen.add(number)
                stack.append(~number)
                stack += [following for following in spans[number].successors[::-1] if following not in seen]
        order.reverse()
        return order

    def _edge(self, number: int, registers: Registers) -> Edge:
        """An edge into span `number`; what it passes is decided when that is lifted, unless it has been."""
        edge = Edge(self.blocks[number])
        edges = self.entering[number]
        edges.append((edge, registers))
        if number in self.entered:
            self._pass(edge, registers)
        return edge

    def _enter(self, number: int) -> Registers:
        """The registers at the start of a span, having made its block's parameters."""
        self.entered.add(number)
        block, edges = self.blocks[number], self.entering[number]
        first = edges[0][1]
        if self.entry_counts[number] == 1:
            return first.copy()
        is_loop = len(edges) < self.entry_counts[number]
        self.has_loops |= is_loop
        registers: Registers = [None] * 11
        registers[FRAME_POINTER] = first[FRAME_POINTER]
        live = self.shape.spans[number].live_in
        for register in range(FRAME_POINTER):
            if not live >> register & 1:
                continue
            value = first[register]
            if is_loop or any(brought[register] is not value for _, brought in edges):
                value = Param(register)
                block.params.append(value)
                if self.shape.uncertain >> register & 1:
                    self.flag_of[value] = flag = Param(_FLAG)
                    self.flagged[flag] = register
                    block.params.append(flag)
            registers[register] = value
        for edge, brought in edges if block.params else ():
            self._pass(edge, brought)
        return registers

    def _pass(self, edge: Edge, registers: Registers) -> None:
        """Make `edge` pass what its block wants of these registers."""
        for param in edge.block.params:
            register = self.flagged.get(param, param.register)
            value = registers[register]
            if param.register == _FLAG:
                value = self.flag_of.get(value, self.is_set) if value is not None else self.unset
            elif value is None:
                assert self.shape.uncertain >> register & 1, (
                    "other registers are live where they are initialised"
                )
                value = self.unset
            edge.args.append(value)

    def _lift_span(self, number: int) -> None:
        span, self.block, self.part = self.shape.spans[number], self.blocks[number], self.parts[number]
        self.registers, self.out = registers, out = self._enter(number), self.block.insts
        rows, insns, starts = self.structure.rows, self.insns, self.structure.starts
        forbidden = self.structure.forbidden
        for i in range(span.first, span.last + (not rows[span.last].ends_block)):
            if forbidden and i in forbidden:
                if not self._forbid(i):
                    continue
                out = self.out
            row, insn, at = rows[i], insns[i], starts[i]
            kind = row.kind
            if row is _COPY:
                registers[insn.dst] = self._read(insn.src)
            elif kind is _ALU:
                registers[insn.dst] = self._lift_alu(row, insn, at)
            elif kind is _LOAD:
                registers[insn.dst] = load = Load(row, self._read(insn.src), insn.offset, at)
                out.append(load)
            elif kind is _STORE:
                out.append(Store(row, self._read(insn.dst), insn.offset, self._operand(row, insn, at), at))
            else:
                self._lift_insn(i, row, insn, at)
        if span.last in forbidden and rows[span.last].ends_block:
            self._forbid(span.last)
        self._terminate(self.block, span)

    def _forbid(self, i: int) -> bool:
        """Put a call of nothing before insn i, which must not be reached; whether there is more to lift of it.

        Where that hangs on the way there, the call is in a block of its own.
        """
        missing, _ = self.structure.forbidden[i]
        if not missing:
            self._poison(i)
        for register in range(11):
            if not missing >> register & 1:
                continue
            value = self.registers[register]
            if value is None:
                self.registers[register] = self._poison(i)
            elif value in self.flag_of:
                self._ask(i, self.flag_of[value])
        return missing != 0

    def _poison(self, i: int) -> Inst:
        return self._emit(Call(Callee.HELPER, POISON_HELPER, (), self.structure.starts[i]))

    def _ask(self, i: int, flag: Param) -> None:
        """End the block with a branch to a call of nothing, taken unless the flag is set; go on in a new one."""
        at, before = self.structure.starts[i], self.block
        trap, rest = Block(at), Block(at)
        before.terminator = Branch(_IF_EQUAL, flag, self.unset, Edge(trap), Edge(rest), at)
        self.out = trap.insts
        trap.terminator = Return(self._poison(i), at)
        self.block, self.out = rest, rest.insts
        self.part += trap, rest

    def _terminate(self, block: Block, span: Span) -> None:
        i, at = span.last, self.structure.starts[span.last]
        row, insn, registers = self.structure.rows[i], self.insns[i], self.registers
        edges = [self._edge(successor, registers) for successor in span.successors]
        if row.kind is _BRANCH:
            taken, other = edges
            x, y = self._read(insn.dst), self._operand(row, insn, at)
            block.terminator = Branch(row, x, y, taken, other, at)
            return
        match row.kind:
            case Kind.STATIC_BRANCH:
                taken, other = edges
                block.terminator = StaticBranch(row, taken, other, not insn.src & NOP_FIRST, at)
            case Kind.MAY_GOTO:
                taken, other = edges
                block.terminator = MayGoto(taken, other, at)
            case Kind.EXIT:
                value = registers[R0]
                block.terminator = Return(value if value is not None else self._const(0, at), at)
            case _:
                block.terminator = Jump(edges[0], at)

    def _read(self, register: int) -> Value:
        value = self.registers[register]
        assert value is not None, "structure refuses reads of uninitialised registers"
        return value

    def _const(self, value: int, at: int) -> Const:
        const = Const(value & U64, at)
        self.out.append(const)
        return const

    def _operand(self, row: Row, insn: Insn, at: int) -> Value:
        return self._read(insn.src) if row.uses_src else self._const(insn.imm, at)

    def _lift_insn(self, i: int, row: Row, insn: Insn, at: int) -> None:
        registers = self.registers
        match row.kind:
            case Kind.WIDE:
                registers[insn.dst] = self._lift_wide(insn, at)
            case Kind.ATOMIC:
                self._lift_atomic(row, insn, at)
            case Kind.PACKET:
                index = self._read(insn.src) if row.uses_src else None
                registers[R0] = self._emit(PacketLoad(row, self._read(R6), index, insn.imm, at))
                self._clobber()
            case Kind.CALL:
                self._lift_call(i, row, insn, at)
            case _:
                raise AssertionError(f"{row.name} inside a block")

    def _emit(self, inst: Inst) -> Inst:
        self.out.append(inst)
        return inst

    def _lift_alu(self, row: Row, insn: Insn, at: int) -> Value:
        if row is _CONSTANT:
            return self._const(insn.imm, at)
        if row.reads_dst:
            x = y = self._read(insn.dst)
            if row.uses_src:
                y = self._read(insn.src)
            elif type(row.imm) is not int:
                y = self._const(insn.imm, at)
        else:
            x = y = self._operand(row, insn, at)
        alu = Alu(row, x, y, at)
        self.out.append(alu)
        return alu

    def _lift_wide(self, insn: Insn, at: int) -> Value:
        if insn.src == Wide.PLAIN.value and at not in self.structure.program.references:
            return self._const(insn.imm, at)
        if insn.src == Wide.FUNC.value:
            target = called_slot(insn, at)
            assert target is not None
            name = self.structure.shapes[target].info.name
            return self._emit(Address(Reference(ReferenceKind.FUNCTION, name), at))
        return self._emit(Address(self.structure.program.references[at], at))

    def _lift_atomic(self, row: Row, insn: Insn, at: int) -> None:
        expected = None if row.meaning is not None else self._read(R0)
        old = self._emit(Atomic(row, self._read(insn.dst), insn.offset, self._read(insn.src), expected, at))
        if expected is not None:
            self.registers[R0] = old
        elif row.fetches:
            self.registers[insn.src] = old

    def _lift_call(self, i: int, row: Row, insn: Insn, at: int) -> None:
        reads = self.shape.call_reads[i]
        args = tuple(self._read(register) for register in ARGUMENT_REGISTERS if reads >> register & 1)
        target: int | str | Value
        assert row.callee is not None
        if row.callee is Callee.SUBPROGRAM:
            slot = called_slot(insn, at)
            assert slot is not None
            target = self.structure.shapes[slot].info.name
        elif row.callee is Callee.KFUNC:
            reference = self.structure.program.references.get(at)
            target = reference.name if reference is not None else f"btf_{insn.imm}"
        elif row.callee is Callee.INDIRECT:
            target = self._read(insn.dst)
            args = tuple(
                self._read(r) for r in ARGUMENT_REGISTERS if reads >> r & 1 and self.registers[r] is not None
            )
        else:
            target = insn.imm
        result = self._emit(Call(row.callee, target, args, at))
        if is_poison(row, insn):
            self.registers[:] = [result if value is None else value for value in self.registers]
            return
        self.registers[R0] = result if i not in self.shape.void_calls else None
        self._clobber()

    def _clobber(self) -> None:
        for register in ARGUMENT_REGISTERS:
            self.registers[register] = None
