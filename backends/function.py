"""Lowering of one function: blocks and phis, arithmetic, the frame, the trap block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Final, assert_never, final

from backends import abi
from backends.access import lower_atomic, lower_load, lower_packet_load, lower_store
from backends.calls import emit_call
from backends.checks import Checker
from backends.control import lower_terminator
from backends.line_table import mark_lines, scope_of
from backends.text import Text
from backends.unit import Unit, quote
from ir import meaning
from ir.core import (
    Address,
    Alu,
    Atomic,
    Block,
    Call,
    Const,
    Edge,
    Frame,
    Function,
    Inst,
    Load,
    MayGoto,
    PacketLoad,
    Param,
    StaticBranch,
    Store,
    Value,
    operands,
)
from ir.diagnostics import Diagnostic
from ir.isa import ROWS, Kind, compute
from ir.object import ReferenceKind
from ir.passes.laws import laws_of

EACCES: Final = 13
FRAME_SIZE: Final = 512
WORD: Final = 8
MAY_GOTO_BUDGET: Final = 8_388_608
FUEL_BOUND: Final = 1 << 32
LARGE: Final = 1500  # instructions from which on a function is better compiled in a hurry
TRAP_ARMS: Final = 64  # ways into one trap block; the time that LLVM takes grows with their square
_DIVISIONS: Final = {
    row.name for row in ROWS if row.meaning in (meaning.div, meaning.mod, meaning.sdiv, meaning.smod)
}
_SWAPS: Final = {row.name for row in ROWS if row.kind is Kind.ALU and row.imm in (16, 32, 64)}


@final
class FunctionLowering:
    """Lowers one function; `text` collects the lines of the LLVM block being written."""

    probed: Final = "%probed"  # what a load of a kernel object found

    def __init__(self, unit: Unit, function: Function) -> None:
        self.unit, self.function = unit, function
        self.module, self.regions, self.facts = unit.module, unit.regions, unit.facts
        self.text = Text(unit.options.big_endian)
        self.labels = {block: f"b{number}" for number, block in enumerate(function.blocks)}
        self.label = "entry"
        self.operands: dict[Value, str] = {}
        self._origins: dict[Value, str] = {}
        self.incoming: dict[Block, list[tuple[str, list[str]]]] = {block: [] for block in function.blocks}
        self.order = {block: number for number, block in enumerate(function.reverse_postorder())}
        self.is_main = function is self.module.main
        self.fueled = False
        self.may_goto = any(isinstance(block.terminator, MayGoto) for block in function.blocks)
        self.has_flags = not unit.options.site_bytes
        has_branches = any(isinstance(block.terminator, StaticBranch) for block in function.blocks)
        self.static = has_branches and not self.has_flags
        self.trap_arms: list[tuple[str, int | str, str]] = []
        self.has_frame = False
        self.uses_run_stack = unit.uses_run_stack
        self.is_narrow = unit.options.word < 8
        self.reads: Counter[Value] = Counter()
        # A static branch has its cost in where blocks stand, which is not decided in a hurry.
        self.is_large = not self.static and sum(len(block.insts) for block in function.blocks) >= LARGE
        if self.is_large:
            unit.large.add(function.name)
            self.reads.update(chain.from_iterable(map(operands, function.insts())))
            self.reads.update(chain.from_iterable(operands(block.terminator) for block in function.blocks))
        self.checker = Checker(self)

    # the function as a whole

    def run(self) -> str:
        """The text of the function's definition."""
        function = self.function
        self.fueled = any(
            self.is_fueled(block, edge)
            for block in function.blocks
            if block in self.order
            for edge in block.edges()
        )
        for position, param in enumerate(function.params):
            self.operands[param] = f"%a{position}"
            if self.unit.origins.is_followed(param):
                self._origins[param] = f"%o{position}"
        self._prologue()
        entry_lines = self.text.lines
        blocks: list[tuple[Block, list[str]]] = []
        for block in sorted(self.order, key=lambda block: self.order[block]):
            for position, param in enumerate(block.params):
                self.operands[param] = f"%{self.labels[block]}p{position}"
                if self.unit.origins.is_followed(param):
                    self._origins[param] = f"%{self.labels[block]}o{position}"
        for block in sorted(self.order, key=lambda block: self.order[block]):
            self.text.lines = []
            self.text.start_block()
            self.label = self.labels[block]
            if self.unit.options.count_insns:
                self._count(block)
            for inst in block.insts:
                self.lower_inst(inst)
                self._mark(inst.at)
            lower_terminator(self, block)
            self._mark(block.terminator.at)
            self._mark(block.insts[-1].at if block.insts else block.start)  # when no slot has the terminator
            blocks.append((block, self.text.lines))
        if self.trap_arms:
            self.unit.may_trap.add(function.name)
        lines = [self._header(), "entry:", *entry_lines, f"  br label %{self.labels[function.entry]}"]
        for block, body in blocks:
            lines += [f"{self.labels[block]}:", *self._phis(block), *body]
        lines += [*self._trap_blocks(), "}"]
        if self.unit.options.lines:
            mark_lines(lines, function.info.start)
        return "\n".join(lines)

    def _mark(self, slot: int) -> None:
        """What was written since the last mark is for a slot, if it is one of this function's."""
        info = self.function.info
        if self.unit.options.lines and info.start <= slot < info.start + info.slots:
            mark_lines(self.text.lines, slot)

    def _header(self) -> str:
        function = self.function
        arguments = ["ptr noalias %run"]
        for position, param in enumerate(function.params):
            kind = self.type_of(param)
            layout = self.module.context
            is_own = self.is_main and kind == "ptr" and not layout.is_raw and layout.entry is None
            noalias = " noalias" if is_own else ""
            if self.is_narrow:
                arguments.append(f"i64 %{'w' if kind == 'ptr' else 'a'}{position}")
            else:
                arguments.append(f"{kind}{noalias} %a{position}")
        arguments += [f"ptr {self._origins[param]}" for param in function.params if param in self._origins]
        linkage, prologue = self._linkage()
        attributes = "nounwind" if not self.static else ""
        if self.unit.options.lines:
            attributes += " uwtable"
        personality = " personality ptr @__bpfc_personality" if self.static else ""
        if personality:
            self.unit.declare("__bpfc_personality", "i32", "...")
        if function.info.is_global and not self.is_main:
            attributes += " noinline"
        scope = scope_of(self.unit.order.index(function.name)) if self.unit.options.lines else ""
        rest = f"{attributes}{prologue}{personality}{scope}"
        return f"define {linkage}i64 @{quote(function.name)}({', '.join(arguments)}) {rest} {{"

    def _linkage(self) -> tuple[str, str]:
        """Linkage and entry NOP. A weak definition may be replaced by another: LLVM concludes nothing from its body."""
        if not self.is_main and not self.function.info.is_global:
            return "internal ", ""
        prologue = self.unit.options.prologue
        is_weak = self.unit.is_replaceable(self.function.name)
        return "weak dso_local " if is_weak else "", f" {prologue}" if prologue else ""

    def _prologue(self) -> None:
        for position, param in enumerate(self.function.params if self.is_narrow else ()):
            if self.type_of(param) == "ptr":
                self.text.do(f"%a{position} = inttoptr i64 %w{position} to ptr")
        if self.function.of_types(Frame):
            self._frame()
        if self.module.reads_objects:
            self.text.do(f"{self.probed} = alloca i64, align 8")
        for offset in self.unit.origins.slots(self.function):
            self.text.do(f"{_kept(offset)} = alloca [2 x ptr]")
            self.text.do(f"store [2 x ptr] zeroinitializer, ptr {_kept(offset)}")
        if self.may_goto:
            self.text.do("%budget = alloca i64")
            self.text.do(f"store i64 {MAY_GOTO_BUDGET}, ptr %budget")
        if self.fueled:
            self.text.do("%fuel = alloca i64")
            self.reload_fuel()

    def _frame(self) -> None:
        """The BPF stack frame: native stack, or the run's own stack when a pointer to it may have to be checked elsewhere."""
        size = self.checker.frame_size
        if self.uses_run_stack:
            size = FRAME_SIZE
            top = self.text.emit(f"load ptr, ptr {self.run_field(abi.STACK)}, align 8")
            self.text.do(f"%stack = getelementptr i8, ptr {top}, i64 -{size}")
            self.text.do(f"store ptr %stack, ptr {self.run_field(abi.STACK)}, align 8")
        else:
            self.text.do(f"%stack = alloca [{size} x i8], align 16")
        self.text.do(f"call void @llvm.memset.p0.i64(ptr align 16 %stack, i8 0, i64 {size}, i1 false)")
        self.text.do(f"%frame = getelementptr i8, ptr %stack, i64 {size}")
        self.unit.declare("llvm.memset.p0.i64", "void", "ptr, i8, i64, i1")
        self.has_frame = True

    def leave_frame(self) -> None:
        """Before leaving the function: give its frame back to the run's stack."""
        if self.has_frame and self.uses_run_stack:
            self.text.do(f"store ptr %frame, ptr {self.run_field(abi.STACK)}, align 8")

    @staticmethod
    def quoted(name: str) -> str:
        """`name` as an LLVM identifier without its sigil."""
        return quote(name)

    def _count(self, block: Block) -> None:
        number = len({inst.at for inst in block.insts}) + 1
        place = self.run_field(abi.INSNS)
        before = self.text.emit(f"load i64, ptr {place}, align 8")
        self.text.do(f"store i64 {self.text.add(64, before, str(number))}, ptr {place}, align 8")

    def _phis(self, block: Block) -> list[str]:
        lines = []
        entering = self.incoming[block]
        for position, (operand, kind) in enumerate(self.entered_with(block)):
            arms = ", ".join(f"[ {args[position]}, %{label} ]" for label, args in entering)
            lines.append(f"  {operand} = phi {kind} {arms}")
        return lines

    def entered_with(self, block: Block) -> list[tuple[str, str]]:
        """What each way into a block gives it: operands of its parameters with their types, then those of their origins."""
        params = [(self.operands[param], self.type_of(param)) for param in block.params]
        return params + [(self._origins[param], "ptr") for param in block.params if param in self._origins]

    def _trap_blocks(self) -> list[str]:
        lines = []
        for number, start in enumerate(range(0, len(self.trap_arms), TRAP_ARMS)):
            trap, arms = _trap_label(number), self.trap_arms[start : start + TRAP_ARMS]
            codes = ", ".join(f"[ {code}, %{label} ]" for label, _, code in arms)
            slots = ", ".join(f"[ {slot}, %{label} ]" for label, slot, _ in arms)
            lines += [
                f"{trap}:",
                f"  %{trap}.slot = phi i32 {slots}",
                f"  %{trap}.code = phi i32 {codes}",
                f"  %{trap}.p0 = getelementptr i8, ptr %run, i64 {abi.TRAP_INSN}",
                f"  store i32 %{trap}.slot, ptr %{trap}.p0, align 4",
                f"  %{trap}.p1 = getelementptr i8, ptr %run, i64 {abi.TRAP_CODE}",
                f"  store i32 %{trap}.code, ptr %{trap}.p1, align 4",
                "  ret i64 0",
            ]
        return lines

    # pieces that instructions are made of

    def type_of(self, value: Value) -> str:
        """`ptr` or `i64`."""
        return "ptr" if self.regions.is_pointer(value) else "i64"

    def as_int(self, value: Value) -> str:
        """`value` as an i64 operand."""
        if type(value) is Const:
            return self.text.const(64, value.value)
        operand = self.operands[value]
        return self.text.to_int(operand) if self.regions.is_pointer(value) else operand

    def as_ptr(self, value: Value) -> str:
        """`value` as a ptr operand."""
        if isinstance(value, Const):
            return "null" if value.value == 0 else f"inttoptr (i64 {value.value} to ptr)"
        operand = self.operands[value]
        return operand if self.regions.is_pointer(value) else self.text.emit(f"inttoptr i64 {operand} to ptr")

    def origin(self, value: Value) -> str:
        """The origin of `value` as a ptr operand (backends/origins)."""
        root = self.unit.origins.root(value)
        if root in self._origins:
            return self._origins[root]
        if isinstance(root, Address) and root.reference.kind is ReferenceKind.MAP_VALUE:
            return self.unit.symbol(f"value.{root.reference.name}")
        return self.as_ptr(root)

    def origins_of(self, params: Sequence[Param], args: Sequence[Value]) -> list[str]:
        """The origins of what is passed for those of `params` that have one."""
        pairs = zip(params, args, strict=True)
        return [self.origin(arg) for param, arg in pairs if self.unit.origins.is_followed(param)]

    def argument(self, value: Value, kind: str) -> str:
        """`value` with its type, as an argument of a program's function that takes `kind`."""
        kind = "i64" if self.is_narrow else kind
        return f"{kind} {self.as_own(value, kind)}"

    def as_own(self, value: Value, kind: str) -> str:
        """`value` as an operand of type `kind`."""
        return self.as_ptr(value) if kind == "ptr" else self.as_int(value)

    def run_field(self, offset: int) -> str:
        """The address of a field of the run state."""
        return self.text.step("%run", offset)

    def start_block(self, label: str) -> None:
        """End the LLVM block being written (its terminator is emitted) and start another."""
        self.text.lines.append(f"{label}:")
        self.text.start_block()
        self.label = label

    def trap_unless(self, condition: str, code: abi.Trap, slot: int) -> None:
        """Leave through the trap block unless the i1 `condition` holds."""
        self._leave_unless(condition, slot, str(int(code)))
        self.unit.checks += 1

    def propagate_trap(self) -> None:
        """After a call that may have trapped: leave too (keeping what it noted)."""
        code = self.text.emit(f"load i32, ptr {self.run_field(abi.TRAP_CODE)}, align 4")
        slot = self.text.emit(f"load i32, ptr {self.run_field(abi.TRAP_INSN)}, align 4")
        ok = self.text.emit(f"icmp eq i32 {code}, 0")
        self._leave_unless(ok, slot, code)

    def _leave_unless(self, condition: str, slot: int | str, code: str) -> None:
        following = self.text.name(self.label.split(".")[0] + ".")
        trap = _trap_label(len(self.trap_arms) // TRAP_ARMS)
        self.text.do(f"br i1 {condition}, label %{following}, label %{trap}, !prof !1")
        self.trap_arms.append((self.label, slot, code))
        self.text.lines.append(f"{following}:")
        self.label = following

    def spill_fuel(self) -> None:
        """Before a call or return: give the fuel left back to the run."""
        if self.fueled:
            left = self.text.emit("load i64, ptr %fuel")
            self.text.do(f"store i64 {left}, ptr {self.run_field(abi.FUEL)}, align 8")

    def reload_fuel(self) -> None:
        """After a call, or at entry: take the run's fuel."""
        if self.fueled:
            given = self.text.emit(f"load i64, ptr {self.run_field(abi.FUEL)}, align 8")
            self.text.do(f"store i64 {given}, ptr %fuel")

    def is_back(self, block: Block, edge: Edge) -> bool:
        """Whether `edge` of `block` is a back-edge."""
        return self.order[edge.block] <= self.order[block]

    def is_fueled(self, block: Block, edge: Edge) -> bool:
        """Whether going along `edge` spends fuel: a back-edge of a loop without a proved bound."""
        if not self.is_back(block, edge):
            return False
        bound = self.facts.trip_bound(edge.block)
        return bound is None or bound > FUEL_BOUND

    def problem(self, code: str, message: str, at: int, errno: int = EACCES) -> None:
        """Note that the program cannot be right at slot `at`."""
        self.refuse(Diagnostic(code, message, self.function.location(at), errno=errno), at)

    def refuse(self, problem: Diagnostic, at: int) -> None:
        """Refuse the program, or trap at slot `at` where it is proved that nobody gets there."""
        if self.unit.options.proved:
            self.trap_unless("false", abi.Trap.MEMORY, at)
        else:
            self.unit.problems.append(problem)

    # instructions

    def lower_inst(self, inst: Inst) -> None:
        """Append the LLVM form of `inst`."""
        match inst:
            case Alu():
                self.operands[inst] = self._alu(inst)
            case Const():
                pass
            case Frame():
                self.operands[inst] = "%frame"
            case Address():
                self.operands[inst] = self._address(inst)
            case Load():
                self.operands[inst] = lower_load(self, inst)
                if self.unit.origins.is_followed(inst):
                    self._find_origin(inst)
            case Store():
                lower_store(self, inst)
                self._keep_origin(inst)
            case Atomic():
                self.operands[inst] = lower_atomic(self, inst)
            case PacketLoad():
                self.operands[inst] = lower_packet_load(self, inst)
            case Call():
                self.operands[inst] = emit_call(self, inst)
            case _:
                assert_never(inst)

    def _keep_origin(self, inst: Store) -> None:
        """Beside a slot: what is stored there, and its origin."""
        place = self.regions.frame_offset(inst.base)
        if place is None or not self.unit.origins.is_kept(self.function, place[1] + inst.offset):
            return
        kept = _kept(place[1] + inst.offset)
        if inst.row.size == WORD:
            self.text.do(f"store ptr {self.as_ptr(inst.value)}, ptr {kept}")
            self.text.do(
                f"store ptr {self.origin(inst.value)}, ptr {self.text.step(kept, self.unit.options.word)}"
            )

    def _find_origin(self, inst: Load) -> None:
        """The origin of what a slot holds, if it is what was stored there last as far as that was seen."""
        place = self.regions.frame_offset(inst.base)
        assert place is not None, "a slot"
        kept = _kept(place[1] + inst.offset)
        stored = self.text.emit(f"load ptr, ptr {kept}")
        origin = self.text.emit(f"load ptr, ptr {self.text.step(kept, self.unit.options.word)}")
        same = self.text.emit(f"icmp eq ptr {stored}, {self.operands[inst]}")
        self._origins[inst] = self.text.emit(f"select i1 {same}, ptr {origin}, ptr null")

    def _address(self, inst: Address) -> str:
        reference = inst.reference
        match reference.kind:
            case ReferenceKind.FUNCTION:
                return f"@{quote(reference.name)}"
            case ReferenceKind.MAP:
                return self.unit.symbol(f"map.{reference.name}")
            case ReferenceKind.MAP_VALUE:
                base = self.unit.symbol(f"value.{reference.name}")
                return self.text.step(base, reference.offset)
            case ReferenceKind.KSYM | ReferenceKind.KFUNC:
                return self.unit.symbol(f"ksym.{reference.name}")
            case _:
                assert_never(reference.kind)

    def _alu(self, inst: Alu) -> str:
        if self.regions.is_pointer(inst):
            return self._address_arithmetic(inst)
        row, x, y = inst.row, inst.x, inst.y
        if row.name in _DIVISIONS and self.facts.is_never_zero(y, row.bits):
            divisor = self.as_int(y)
            self.text.note_nonzero(divisor if row.bits == 64 else self.text.trunc(64, divisor, 32))
        elif row.name in _SWAPS:
            self.unit.declare(f"llvm.bswap.i{row.imm}", f"i{row.imm}", f"i{row.imm}")
        elif self.reads and self.reads[y] == 1 < self.reads[x] and laws_of(row, False).is_commutative:
            x, y = y, x  # the machine overwrites the first: better one that nobody else reads
        result: str = compute(row, self.text, self.as_int(x), self.as_int(y))
        return result

    def _address_arithmetic(self, inst: Alu) -> str:
        pointer, other = (inst.x, inst.y) if self.regions.is_pointer(inst.x) else (inst.y, inst.x)
        one = self.regions.is_pointer(pointer) and not self.regions.is_pointer(other)
        if one and inst.row.name.startswith("add64"):
            return self.text.emit(f"getelementptr i8, ptr {self.operands[pointer]}, i64 {self.as_int(other)}")
        if one and inst.row.name.startswith("sub64") and pointer is inst.x:
            negated = self.text.sub(64, "0", self.as_int(other))
            return self.text.emit(f"getelementptr i8, ptr {self.operands[pointer]}, i64 {negated}")
        number: str = compute(inst.row, self.text, self.as_int(inst.x), self.as_int(inst.y))
        return self.text.emit(f"inttoptr i64 {number} to ptr")


def _kept(offset: int) -> str:
    """What is known of the origin of the slot at `offset` of the frame: [what was stored, its origin]."""
    return f"%kept{-offset}"


def _trap_label(number: int) -> str:
    return f"trap{number}" if number else "trap"
