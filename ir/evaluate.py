"""The SSA form, run as it stands: what passes are tested against.

Works as the interpreter of instructions (`ir/interpreter.py`), with its addresses: lifting is right when both
give the same result, memory and traps, a pass when this one does before and after it.
"""

from __future__ import annotations

from typing import Final, NoReturn, assert_never, final

from ir.algebra import Integers, signed
from ir.context import Pointer
from ir.context_access import translate_access
from ir.core import (
    Address,
    Alu,
    Atomic,
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
    Return,
    StaticBranch,
    Store,
    Terminator,
    Value,
)
from ir.diagnostics import Diagnostic, TrapError
from ir.environment import FRAME_SIZE, FUNCTION_BASE, MAX_DEPTH, MAY_GOTO_BUDGET, Environment
from ir.isa import Callee, compute
from ir.object import POISON_HELPER, Reference, ReferenceKind
from ir.segments import AccessError, Memory, Segment, make_segment

U64: Final = (1 << 64) - 1


class _Outside(Exception):  # noqa: N818  # control flow, not an error
    """A legacy packet load left the packet: its function returns 0."""


@final
class Evaluator:
    """One run of a module. `fuel` of the environment bounds the jumps; helpers may use `memory` only."""

    def __init__(
        self,
        module: Module,
        memory: Memory | None = None,
        environment: Environment | None = None,
        context: Segment | None = None,
    ) -> None:
        self.module = module
        self.memory = memory or Memory(big_endian=module.program.big_endian)
        self.environment = environment or Environment()
        self.context = context
        self.fuel = self.environment.fuel
        self._algebra = Integers(module.program.big_endian)
        self._arguments: tuple[int, ...] = ()
        self._depth = 0

    def run(self, *arguments: int) -> int:
        """r0 of main called with `arguments` (by default the context). Raises TrapError."""
        if not arguments and self.context is not None:
            arguments = (self.context.base,)
        self._arguments = arguments
        return self._call_function(self.module.main, arguments)

    def call(self, address: int, *arguments: int) -> int:
        """Call the module's function at `address` from a helper (a callback); its result."""
        function = self._function_at(address)
        assert function is not None, "a callback is a function of the module"
        return self._call_function(function, arguments[: len(function.params)])

    def _function_at(self, address: int) -> Function | None:
        start = self.module.program.tokens.get(address, (address - FUNCTION_BASE) / 8)
        return next((each for each in self.module.functions.values() if each.info.start == start), None)

    def _call_function(self, function: Function, arguments: tuple[int, ...]) -> int:
        if self._depth == MAX_DEPTH:
            self._trap(
                function, function.info.start, "call-depth", f"calls nest deeper than {MAX_DEPTH} frames"
            )
        base = self.environment.stack + self._depth * 0x1000
        stack = make_segment(base, bytearray(FRAME_SIZE), f"the stack of frame {self._depth}")
        self.memory.add(stack)
        self._depth += 1
        result = _Activation(self, function, arguments, stack.end).run()
        self._depth -= 1
        self.memory.remove(stack)
        return result

    def _trap(self, function: Function, at: int, code: str, message: str) -> NoReturn:
        raise TrapError([Diagnostic(code, message, function.location(at))])


@final
class _Activation:
    """One call of a function: the values made so far."""

    def __init__(self, run: Evaluator, function: Function, arguments: tuple[int, ...], frame: int) -> None:
        self.machine, self.function, self.frame = run, function, frame
        self.memory, self.algebra = run.memory, run._algebra
        self.values: dict[Value, int] = dict(zip(function.params, arguments, strict=False))
        self.may_goto_left = MAY_GOTO_BUDGET

    def run(self) -> int:
        """Run to the return."""
        block = self.function.entry
        while True:
            item: Inst | Terminator = block.terminator
            try:
                for item in block.insts:
                    result = self._inst(item)
                    if result is not None:
                        self.values[item] = result & U64
            except AccessError as error:
                self.machine._trap(self.function, item.at, error.code, error.message)
            except _Outside:
                return 0
            edge = self._leave(block.terminator)
            if not isinstance(edge, Edge):
                return edge
            if self.machine.fuel == 0:
                self.machine._trap(self.function, block.terminator.at, "out-of-fuel", "too many jumps")
            self.machine.fuel -= 1
            args = [self.values[arg] for arg in edge.args]
            self.values.update(zip(edge.block.params, args, strict=True))
            block = edge.block

    def _inst(self, inst: Inst) -> int | None:
        values = self.values
        match inst:
            case Const(value):
                return value
            case Frame():
                return self.frame
            case Address(reference):
                return self._address(inst, reference)
            case Alu(row, x, y):
                result: int = compute(row, self.algebra, values[x], values[y])
                return result
            case Load(row, base, offset):
                value = self.memory.read(*self._place(values[base] + offset, row.size))
                return signed(8 * row.size, value) if row.signed else value
            case Store(row, base, offset, stored):
                self.memory.write(
                    *self._place(values[base] + offset, row.size, is_store=True), values[stored]
                )
                return None
            case Atomic():
                return self._atomic(inst)
            case PacketLoad():
                return self._packet_load(inst)
            case Call():
                return self._call(inst)
            case _:
                assert_never(inst)

    def _leave(self, terminator: Terminator) -> Edge | int:
        """The edge taken, or what is returned."""
        match terminator:
            case Jump(edge):
                return edge
            case Branch(row, x, y, taken, other):
                return taken if compute(row, self.algebra, self.values[x], self.values[y]) else other
            case StaticBranch(_, taken, other, starts_taken):
                flipped = terminator.at in self.machine.environment.flipped
                return taken if starts_taken != flipped else other
            case MayGoto(taken, other):
                if self.may_goto_left == 0:
                    return taken
                self.may_goto_left -= 1
                return other
            case Return(value):
                return self.values[value]
            case _:
                assert_never(terminator)

    def _address(self, inst: Address, reference: Reference) -> int:
        if reference.kind is ReferenceKind.FUNCTION:
            return FUNCTION_BASE + 8 * self.machine.module.functions[reference.name].info.start
        resolve = self.machine.environment.resolve
        if resolve is None:
            said = f"{reference.kind.value} '{reference.name}' has no value here"
            self.machine._trap(self.function, inst.at, "unresolved-reference", said)
        return resolve(reference)

    def _place(self, address: int, size: int, is_store: bool = False) -> tuple[int, int]:
        """Where an access goes: to its own address, or into the context as that is laid out."""
        address &= U64
        context, layout = self.machine.context, self.machine.module.context
        if context is None or layout.is_raw or not context.base <= address < context.end:
            return address, size
        offset, size = translate_access(layout, address - context.base, size, is_store)
        return context.base + offset, size

    def _atomic(self, inst: Atomic) -> int:
        address, size = (self.values[inst.base] + inst.offset) & U64, inst.row.size
        old, value = self.memory.read(address, size), self.values[inst.value]
        if inst.expected is None:
            self.memory.write(address, size, compute(inst.row, self.algebra, old, value))
        elif old == self.values[inst.expected] & (1 << 8 * size) - 1:
            self.memory.write(address, size, value)
        return old

    def _packet_load(self, inst: PacketLoad) -> int:
        index = signed(32, inst.imm + (0 if inst.index is None else self.values[inst.index]))
        start, end = self._packet_bounds()
        if not 0 <= index <= end - start - inst.row.size:
            raise _Outside
        return int.from_bytes(self.memory.view(start + index, inst.row.size), "big")

    def _packet_bounds(self) -> tuple[int, int]:
        context, arguments = self.machine.context, self.machine._arguments
        if context is not None and self.machine.module.context.pointers:
            data, end = (context.base + pointer.value for pointer in (Pointer.DATA, Pointer.DATA_END))
            return self.memory.read(data, 8), self.memory.read(end, 8)
        return (arguments[0], arguments[0] + arguments[1]) if len(arguments) >= 2 else (0, 0)

    def _call(self, inst: Call) -> int:
        machine, environment = self.machine, self.machine.environment
        args = tuple(self.values[arg] for arg in inst.args)
        target = inst.target
        if isinstance(target, str) and inst.callee is Callee.SUBPROGRAM:
            return machine._call_function(machine.module.functions[target], args)
        if isinstance(target, int):
            helper = environment.helpers.get(target)
        elif isinstance(target, str):
            helper = environment.kfuncs.get(target)
        else:
            address = self.values[target]
            helper = environment.helpers.get(address)
            function = machine._function_at(address)
            if function is not None:
                return machine._call_function(function, args)
        if helper is None:
            reason = machine.module.program.poisoned.get(inst.at) if target == POISON_HELPER else None
            if reason is not None:
                machine._trap(self.function, inst.at, reason.code, reason.message)
            machine._trap(self.function, inst.at, "missing-helper", "helper is not provided")
        padded = (*args, 0, 0, 0, 0, 0)[:5]
        return helper(machine, *padded)  # type: ignore[arg-type]  # helpers may use what both machines have
