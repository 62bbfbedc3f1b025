"""Lowering: a module of SSA functions to LLVM IR text.

Each Value becomes an LLVM `ptr` when it is an address (ir/regions.py) and an `i64` otherwise. Every load and store that was not
proved safe is preceded by a compare that leaves through the function's one trap block; every back-edge without a proved
bound spends fuel. What the program may not do at all (store to a read-only context field, say) is a Diagnostic.

    block 3 (v7):                        b3:
      v10 = load u16 [v7 + 12]    ->       %p3 = phi ptr [ %v2, %b0 ], [ %v9, %b2 ]
                                           %v10 = getelementptr i8, ptr %p3, i64 12
                                           %v11 = icmp ...                       ; the check
                                           br i1 %v11, label %b3.1, label %trap
                                         b3.1:
                                           %v12 = load i16, ptr %v10, align 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, assert_never, final

from backends import abi
from backends.batch import batch_symbol, batch_text
from backends.calls import Natives, NoNatives, emit_call
from backends.checks import IN_SEGMENT, Checker
from backends.text import Text
from ir.context import HEADER
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
from ir.diagnostics import Diagnostic, RejectedError
from ir.isa import Kind, Row, compute
from ir.object import ReferenceKind
from ir.regions import RegionKind, Regions

EACCES = 13
FRAME_SIZE = 512
MAY_GOTO_BUDGET = 8_388_608
FUEL_BOUND = 1 << 32
_RMW = ("add", "or", "and", "xor", "xchg")


class Facts(Protocol):
    """What verification proved: accesses that need no check, loops that need no fuel."""

    def is_proved(self, inst: Inst) -> bool: ...

    def trip_bound(self, block: Block) -> int | None: ...


@final
class NothingProved:
    """No facts: every access is checked, every loop spends fuel."""

    def is_proved(self, inst: Inst) -> bool:
        return False

    def trip_bound(self, block: Block) -> int | None:
        return None


@final
@dataclass(frozen=True, slots=True)
class LowerOptions:
    """How to lower. `count_insns` adds up executed instructions; `site_bytes` is the target's static-branch region."""

    big_endian: bool = False
    count_insns: bool = False
    site_bytes: int = 9
    callx_helpers: frozenset[int] = frozenset()


@final
@dataclass(frozen=True, slots=True)
class Lowered:
    """LLVM IR text, the external symbols it needs, and how many run-time checks and fueled loops are left in it."""

    text: str
    externals: tuple[str, ...]
    checks: int
    fueled_loops: int


def lower(
    module: Module, regions: Regions, facts: Facts, options: LowerOptions, natives: Natives | None = None
) -> Lowered:
    """The LLVM IR of `module`. Raises RejectedError for accesses that can never be right."""
    unit = Unit(module, regions, facts, options, natives or NoNatives())
    bodies = [FunctionLowering(unit, module.functions[name]).run() for name in unit.order]
    if unit.problems:
        raise RejectedError(unit.problems)
    declarations = [f"declare {signature}" for _, signature in sorted(unit.declared.items())]
    globals_ = [f"@{quote(name)} = external global i8" for name in sorted(unit.globals)]
    main = module.main.name
    loop = batch_symbol(main)
    bodies.append(batch_text(quote(loop), quote(main), module.context, main in unit.may_trap))
    if unit.needs_segments:
        bodies.append(IN_SEGMENT)
    metadata = ['!1 = !{!"branch_weights", i32 1048575, i32 1}']
    text = "\n".join([*globals_, *declarations, *bodies, *metadata, ""])
    return Lowered(text, (*sorted(unit.declared), *sorted(unit.globals)), unit.checks, unit.fueled)


def quote(name: str) -> str:
    """An LLVM identifier for any symbol name, without its sigil."""
    escaped = "".join(
        c
        if c.isprintable() and c not in '"\\' and ord(c) < 127
        else "".join(f"\\{b:02X}" for b in c.encode())
        for c in name
    )
    return f'"{escaped}"'


@final
class Unit:
    """What the functions of a module share while it is lowered."""

    def __init__(
        self, module: Module, regions: Regions, facts: Facts, options: LowerOptions, natives: Natives
    ) -> None:
        self.module, self.regions, self.facts, self.options = module, regions, facts, options
        self.natives = natives
        self.callx_helpers = options.callx_helpers
        self.needs_segments = False
        self.uses_run_stack = _needs_run_stack(module, regions, facts)
        self.declared: dict[str, str] = {}
        self.globals: set[str] = set()
        self.problems: list[Diagnostic] = []
        self.may_trap: set[str] = set()
        self.checks = 0
        self.fueled = 0
        self.order = _callees_first(module)
        self.entry_taken = sorted(
            {
                inst.reference.name
                for function in module.functions.values()
                for inst in function.insts()
                if isinstance(inst, Address) and inst.reference.kind is ReferenceKind.FUNCTION
            }
        )

    def declare(self, name: str, result: str, arguments: str, attributes: str = "") -> str:
        """Declare an external function once; its operand."""
        self.declared.setdefault(name, f"{result} @{quote(name)}({arguments}) {attributes}".rstrip())
        return f"@{quote(name)}"

    def symbol(self, name: str) -> str:
        """An external data symbol; its operand."""
        self.globals.add(name)
        return f"@{quote(name)}"


def _needs_run_stack(module: Module, regions: Regions, facts: Facts) -> bool:
    """Whether some unproved access may be through a pointer to another function's frame."""
    for name, function in module.functions.items():
        for inst in function.insts():
            if not isinstance(inst, Load | Store | Atomic) or facts.is_proved(inst):
                continue
            region = regions.of(inst.base)
            if region.kind is RegionKind.UNKNOWN or (region.kind is RegionKind.FRAME and region.name != name):
                return True
    return False


def _callees_first(module: Module) -> list[str]:
    called: dict[str, list[str]] = {name: [] for name in module.functions}
    for name, function in module.functions.items():
        for inst in function.insts():
            if isinstance(inst, Call) and isinstance(inst.target, str) and inst.target in called:
                called[name].append(inst.target)
            elif isinstance(inst, Address) and inst.reference.kind is ReferenceKind.FUNCTION:
                called[name].append(inst.reference.name)
    order: list[str] = []
    seen: set[str] = set()
    stack: list[tuple[str, bool]] = [(name, False) for name in reversed(list(module.functions))]
    while stack:
        name, done = stack.pop()
        if done:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            stack.append((name, True))
            stack += [(callee, False) for callee in called[name]]
    return order


@final
class FunctionLowering:
    """Lowers one function; `text` collects the lines of the LLVM block being written."""

    def __init__(self, unit: Unit, function: Function) -> None:
        self.unit, self.function = unit, function
        self.module, self.regions, self.facts = unit.module, unit.regions, unit.facts
        self.text = Text(unit.options.big_endian)
        self.labels = {block: f"b{number}" for number, block in enumerate(function.blocks)}
        self.label = "entry"
        self.operands: dict[Value, str] = {}
        self.incoming: dict[Block, list[tuple[str, list[str]]]] = {block: [] for block in function.blocks}
        self.order = {block: number for number, block in enumerate(function.reverse_postorder())}
        self.is_main = function is self.module.main
        self.fueled = False
        self.may_goto = any(isinstance(block.terminator, MayGoto) for block in function.blocks)
        self.static = any(isinstance(block.terminator, StaticBranch) for block in function.blocks)
        self.trap_arms: list[tuple[str, int | str, str]] = []
        self.has_frame = False
        self.uses_run_stack = unit.uses_run_stack
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
        self._prologue()
        entry_lines = self.text.lines
        blocks: list[tuple[Block, list[str]]] = []
        for block in sorted(self.order, key=lambda block: self.order[block]):
            for position, param in enumerate(block.params):
                self.operands[param] = f"%{self.labels[block]}p{position}"
        for block in sorted(self.order, key=lambda block: self.order[block]):
            self.text.lines = []
            self.label = self.labels[block]
            if self.unit.options.count_insns:
                self._count(block)
            for inst in block.insts:
                self.lower_inst(inst)
            self.lower_terminator(block)
            blocks.append((block, self.text.lines))
        if self.trap_arms:
            self.unit.may_trap.add(function.name)
        lines = [self._header(), "entry:", *entry_lines, f"  br label %{self.labels[function.entry]}"]
        for block, body in blocks:
            lines += [f"{self.labels[block]}:", *self._phis(block), *body]
        lines += [*self._trap_block(), "}"]
        return "\n".join(lines)

    def _header(self) -> str:
        function = self.function
        arguments = ["ptr noalias %run"]
        for position, param in enumerate(function.params):
            kind = self.type_of(param)
            noalias = " noalias" if self.is_main and kind == "ptr" and not self.module.context.is_raw else ""
            arguments.append(f"{kind}{noalias} %a{position}")
        linkage = "" if self.is_main or function.info.is_global else "internal "
        attributes = "nounwind" if not self.static else ""
        personality = " personality ptr @__bpfc_personality" if self.static else ""
        if personality:
            self.unit.declare("__bpfc_personality", "i32", "...")
        if function.info.is_global and not self.is_main:
            attributes += " noinline"
        return f"define {linkage}i64 @{quote(function.name)}({', '.join(arguments)}) {attributes}{personality} {{"

    def _prologue(self) -> None:
        if any(isinstance(inst, Frame) for inst in self.function.insts()):
            self._frame()
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
        for position, param in enumerate(block.params):
            arms = ", ".join(f"[ {args[position]}, %{label} ]" for label, args in entering)
            lines.append(f"  {self.operands[param]} = phi {self.type_of(param)} {arms}")
        return lines

    def _trap_block(self) -> list[str]:
        if not self.trap_arms:
            return []
        codes = ", ".join(f"[ {code}, %{label} ]" for label, _, code in self.trap_arms)
        slots = ", ".join(f"[ {slot}, %{label} ]" for label, slot, _ in self.trap_arms)
        return [
            "trap:",
            f"  %trap.slot = phi i32 {slots}",
            f"  %trap.code = phi i32 {codes}",
            f"  %trap.p0 = getelementptr i8, ptr %run, i64 {abi.TRAP_INSN}",
            "  store i32 %trap.slot, ptr %trap.p0, align 4",
            f"  %trap.p1 = getelementptr i8, ptr %run, i64 {abi.TRAP_CODE}",
            "  store i32 %trap.code, ptr %trap.p1, align 4",
            "  ret i64 0",
        ]

    # pieces that instructions are made of

    def type_of(self, value: Value) -> str:
        """`ptr` or `i64`."""
        return "ptr" if self.regions.is_pointer(value) else "i64"

    def as_int(self, value: Value) -> str:
        """`value` as an i64 operand."""
        if isinstance(value, Const):
            return self.text.const(64, value.value)
        operand = self.operands[value]
        return self.text.emit(f"ptrtoint ptr {operand} to i64") if self.regions.is_pointer(value) else operand

    def as_ptr(self, value: Value) -> str:
        """`value` as a ptr operand."""
        if isinstance(value, Const):
            return "null" if value.value == 0 else f"inttoptr (i64 {value.value} to ptr)"
        operand = self.operands[value]
        return operand if self.regions.is_pointer(value) else self.text.emit(f"inttoptr i64 {operand} to ptr")

    def as_own(self, value: Value, kind: str) -> str:
        """`value` as an operand of type `kind`."""
        return self.as_ptr(value) if kind == "ptr" else self.as_int(value)

    def run_field(self, offset: int) -> str:
        """The address of a field of the run state."""
        return self.text.emit(f"getelementptr i8, ptr %run, i64 {offset}") if offset else "%run"

    def start_block(self, label: str) -> None:
        """End the LLVM block being written (its terminator is emitted) and start another."""
        self.text.lines.append(f"{label}:")
        self.label = label

    def trap_unless(self, condition: str, code: abi.Trap, slot: int) -> None:
        """Leave through the trap block unless the i1 `condition` holds."""
        following = self.text.name(self.label.split(".")[0] + ".")
        self.text.do(f"br i1 {condition}, label %{following}, label %trap, !prof !1")
        self.trap_arms.append((self.label, slot, str(int(code))))
        self.start_block(following)
        self.unit.checks += 1

    def propagate_trap(self) -> None:
        """After a call that may have trapped: leave too (keeping what it noted)."""
        code = self.text.emit(f"load i32, ptr {self.run_field(abi.TRAP_CODE)}, align 4")
        slot = self.text.emit(f"load i32, ptr {self.run_field(abi.TRAP_INSN)}, align 4")
        ok = self.text.emit(f"icmp eq i32 {code}, 0")
        following = self.text.name(self.label.split(".")[0] + ".")
        self.text.do(f"br i1 {ok}, label %{following}, label %trap, !prof !1")
        self.trap_arms.append((self.label, slot, code))
        self.start_block(following)

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

    def is_fueled(self, block: Block, edge: Edge) -> bool:
        """Whether going along `edge` spends fuel: a back-edge of a loop without a proved bound."""
        back = self.order[edge.block] <= self.order[block]
        if not back:
            return False
        bound = self.facts.trip_bound(edge.block)
        return bound is None or bound > FUEL_BOUND

    def problem(self, code: str, message: str, at: int, errno: int = EACCES) -> None:
        """Note that the program cannot be right at slot `at`."""
        self.unit.problems.append(Diagnostic(code, message, self.function.location(at), errno=errno))

    # instructions

    def lower_inst(self, inst: Inst) -> None:
        """Append the LLVM form of `inst`."""
        match inst:
            case Const():
                pass
            case Frame():
                self.operands[inst] = "%frame"
            case Address():
                self.operands[inst] = self._address(inst)
            case Alu():
                self.operands[inst] = self._alu(inst)
            case Load():
                self.operands[inst] = self._load(inst)
            case Store():
                self._store(inst)
            case Atomic():
                self.operands[inst] = self._atomic(inst)
            case PacketLoad():
                self.operands[inst] = self._packet_load(inst)
            case Call():
                self.operands[inst] = emit_call(self, inst)
            case _:
                assert_never(inst)

    def _address(self, inst: Address) -> str:
        reference = inst.reference
        match reference.kind:
            case ReferenceKind.FUNCTION:
                return f"@{quote(reference.name)}"
            case ReferenceKind.MAP:
                return self.unit.symbol(f"map.{reference.name}")
            case ReferenceKind.MAP_VALUE:
                base = self.unit.symbol(f"value.{reference.name}")
                return self.text.emit(f"getelementptr i8, ptr {base}, i64 {reference.offset}")
            case ReferenceKind.KSYM | ReferenceKind.KFUNC:
                return self.unit.symbol(f"ksym.{reference.name}")
            case _:
                assert_never(reference.kind)

    def _alu(self, inst: Alu) -> str:
        if self.regions.is_pointer(inst):
            pointer, other = (inst.x, inst.y) if self.regions.is_pointer(inst.x) else (inst.y, inst.x)
            one = self.regions.is_pointer(pointer) and not self.regions.is_pointer(other)
            if one and inst.row.name.startswith("add64"):
                return self.text.emit(
                    f"getelementptr i8, ptr {self.operands[pointer]}, i64 {self.as_int(other)}"
                )
            if one and inst.row.name.startswith("sub64") and pointer is inst.x:
                negated = self.text.sub(64, "0", self.as_int(other))
                return self.text.emit(f"getelementptr i8, ptr {self.operands[pointer]}, i64 {negated}")
            number: str = compute(inst.row, self.text, self.as_int(inst.x), self.as_int(inst.y))
            return self.text.emit(f"inttoptr i64 {number} to ptr")
        self._declare_swap(inst.row)
        result: str = compute(inst.row, self.text, self.as_int(inst.x), self.as_int(inst.y))
        return result

    def _declare_swap(self, row: Row) -> None:
        if isinstance(row.imm, int) and row.imm in (16, 32, 64) and row.kind is Kind.ALU:
            bits = row.imm
            self.unit.declare(f"llvm.bswap.i{bits}", f"i{bits}", f"i{bits}")

    def _load(self, inst: Load) -> str:
        size = inst.row.size
        region = self.regions.of(inst.base)
        if region.kind is RegionKind.CONTEXT and not self.module.context.is_raw:
            return self._load_context(inst)
        address, align = self.checker.access(inst, inst.base, inst.offset, size, writes=False)
        if self.regions.is_pointer(inst):
            return self.text.emit(f"load ptr, ptr {address}, align {align}")
        if inst.row.imm:
            self.checker.require_alignment(address, align, size, inst.at)
            loaded = self.text.emit(f"load atomic i{size * 8}, ptr {address} acquire, align {size}")
        else:
            loaded = self.text.emit(f"load i{size * 8}, ptr {address}, align {align}")
        return self._widen(loaded, size, inst.row.signed)

    def _widen(self, operand: str, size: int, signed: bool) -> str:
        if size == 8:
            return operand
        extend = self.text.sext if signed else self.text.zext
        return extend(size * 8, operand, 64)

    def _load_context(self, inst: Load) -> str:
        root, offset = self._context_place(inst.base, inst.offset, inst.row.size, inst.at)
        pointer = self.module.context.pointers.get(offset)
        if pointer is None and any(
            offset < at + 4 and at < offset + inst.row.size for at in self.module.context.pointers
        ):
            self.problem(
                "context-access",
                f"packet pointer at context offset {offset} must be loaded whole, as 4 bytes",
                inst.at,
            )
        if pointer is not None and inst.row.size == 4 and not inst.row.signed:
            place = self.text.emit(f"getelementptr i8, ptr {root}, i64 {pointer.value}")
            return self.text.emit(f"load ptr, ptr {place}, align 8")
        place = self.text.emit(f"getelementptr i8, ptr {root}, i64 {HEADER + offset}")
        align = (offset & -offset or 8) if offset else 8
        if self.regions.is_pointer(inst):
            return self.text.emit(f"load ptr, ptr {place}, align {min(align, 8)}")
        loaded = self.text.emit(f"load i{inst.row.size * 8}, ptr {place}, align {min(align, inst.row.size)}")
        return self._widen(loaded, inst.row.size, inst.row.signed)

    def _context_place(self, base: Value, offset: int, size: int, at: int) -> tuple[str, int]:
        """The context pointer's operand and the constant offset of an access in the user's structure."""
        root, total = self.regions.offset(base)
        total += offset
        layout = self.module.context
        if not isinstance(root, Param):
            self.problem("context-access", f"{layout.name} must be accessed at a constant offset from r1", at)
        elif not 0 <= total <= layout.size - size:
            self.problem(
                "context-access",
                f"access of {size} bytes at {total} leaves {layout.name} ({layout.size} bytes)",
                at,
            )
        return self.operands.get(root, "null"), total

    def _store(self, inst: Store) -> None:
        size = inst.row.size
        region = self.regions.of(inst.base)
        if region.kind is RegionKind.CONTEXT and not self.module.context.is_raw:
            root, offset = self._context_place(inst.base, inst.offset, size, inst.at)
            if not self.module.context.is_writable(offset, size):
                said = f"{size} bytes at {offset} of {self.module.context.name} are read only"
                self.problem("context-write", said, inst.at)
            address, align = self.text.emit(f"getelementptr i8, ptr {root}, i64 {HEADER + offset}"), 1
        else:
            address, align = self.checker.access(inst, inst.base, inst.offset, size, writes=True)
        if size == 8 and self.regions.is_pointer(inst.value):
            self.text.do(f"store ptr {self.operands[inst.value]}, ptr {address}, align {align}")
            return
        value = self.as_int(inst.value)
        if size < 8:
            value = self.text.trunc(64, value, size * 8)
        if inst.row.imm == 0x110:
            self.checker.require_alignment(address, align, size, inst.at)
            self.text.do(f"store atomic i{size * 8} {value}, ptr {address} release, align {size}")
        else:
            self.text.do(f"store i{size * 8} {value}, ptr {address}, align {align}")

    def _atomic(self, inst: Atomic) -> str:
        row, size, bits = inst.row, inst.row.size, inst.row.size * 8
        if self.regions.of(inst.base).kind is RegionKind.CONTEXT and not self.module.context.is_raw:
            self.problem("context-access", "atomic operation on the context is not allowed", inst.at)
        address, align = self.checker.access(inst, inst.base, inst.offset, size, writes=True)
        self.checker.require_alignment(address, align, size, inst.at)
        value = self.as_int(inst.value)
        value = value if size == 8 else self.text.trunc(64, value, bits)
        if inst.expected is not None:
            expected = self.as_int(inst.expected)
            expected = expected if size == 8 else self.text.trunc(64, expected, bits)
            pair = self.text.emit(
                f"cmpxchg ptr {address}, i{bits} {expected}, i{bits} {value} seq_cst seq_cst, align {size}"
            )
            old = self.text.emit(f"extractvalue {{ i{bits}, i1 }} {pair}, 0")
        else:
            operation = row.name.removeprefix("lock_").removeprefix("fetch_").rstrip("0123456789")
            assert operation in _RMW, row.name
            ordering = "seq_cst" if row.fetches else "monotonic"
            old = self.text.emit(
                f"atomicrmw {operation} ptr {address}, i{bits} {value} {ordering}, align {size}"
            )
        old = old if size == 8 else self.text.zext(bits, old, 64)
        return self.text.emit(f"inttoptr i64 {old} to ptr") if self.regions.is_pointer(inst) else old

    def _packet_load(self, inst: PacketLoad) -> str:
        """Leave with 0 when the bytes are not all inside the packet; else load them big-endian."""
        size, text = inst.row.size, self.text
        if self.regions.of(inst.context).kind is not RegionKind.CONTEXT or not self.module.context.pointers:
            self.problem("packet-load", "legacy packet loads need the __sk_buff context in r6", inst.at)
            return "0"
        root = self.operands[inst.context]
        index = "0" if inst.index is None else text.trunc(64, self.as_int(inst.index), 32)
        offset = text.sext(32, text.add(32, index, str(inst.imm)), 64)
        start = text.emit(f"load ptr, ptr {root}, align 8")
        end = text.emit(f"load ptr, ptr {text.emit(f'getelementptr i8, ptr {root}, i64 8')}, align 8")
        length = text.sub(
            64, text.emit(f"ptrtoint ptr {end} to i64"), text.emit(f"ptrtoint ptr {start} to i64")
        )
        room = text.sub(64, length, str(size))
        inside = text.emit(f"icmp sle i64 {offset}, {room}")
        positive = text.emit(f"icmp sge i64 {offset}, 0")
        inside = text.and_(1, inside, positive)
        outside, following = text.name("outside"), text.name(self.label.split(".")[0] + ".")
        text.do(f"br i1 {inside}, label %{following}, label %{outside}")
        self.start_block(outside)
        self.spill_fuel()
        self.leave_frame()
        text.do("ret i64 0")
        self.start_block(following)
        loaded = text.emit(
            f"load i{size * 8}, ptr {text.emit(f'getelementptr i8, ptr {start}, i64 {offset}')}, align 1"
        )
        if size > 1 and not text.big_endian:
            self.unit.declare(f"llvm.bswap.i{size * 8}", f"i{size * 8}", f"i{size * 8}")
            loaded = text.bswap(size * 8, loaded)
        return self._widen(loaded, size, signed=False)

    # ways out

    def lower_terminator(self, block: Block) -> None:
        """Append the LLVM form of the block's terminator."""
        terminator = block.terminator
        match terminator:
            case Jump(edge):
                self._spend_fuel(block, (edge,), terminator.at)
                self.text.do(f"br label %{self._enter(edge)}")
            case Branch(row, x, y, taken, other):
                self._spend_fuel(block, (taken, other), terminator.at)
                condition = compute(row, self.text, self.as_int(x), self.as_int(y))
                self._branch(condition, taken, other)
            case StaticBranch():
                self._static_branch(block, terminator)
            case MayGoto(taken, other):
                self._spend_fuel(block, (taken, other), terminator.at)
                left = self.text.emit("load i64, ptr %budget")
                self.text.do(f"store i64 {self.text.sub(64, left, '1')}, ptr %budget")
                self._branch(self.text.eq(64, left, "0"), taken, other)
            case Return(value):
                self.spill_fuel()
                self.leave_frame()
                self.text.do(f"ret i64 {self.as_int(value)}")
            case _:
                assert_never(terminator)

    def _spend_fuel(self, block: Block, edges: tuple[Edge, ...], at: int) -> None:
        """One unit for a terminator with a fueled back-edge, whichever way it goes."""
        if not any(self.is_fueled(block, edge) for edge in edges):
            return
        left = self.text.emit("load i64, ptr %fuel")
        less = self.text.sub(64, left, "1")
        self.text.do(f"store i64 {less}, ptr %fuel")
        self.unit.fueled += 1
        self.trap_unless(self.text.emit(f"icmp ne i64 {less}, 0"), abi.Trap.FUEL, at)

    def _arguments(self, edge: Edge) -> list[str]:
        return [
            self.as_own(arg, self.type_of(param))
            for param, arg in zip(edge.block.params, edge.args, strict=True)
        ]

    def _enter(self, edge: Edge) -> str:
        """The label to branch to for `edge`, having noted what it passes."""
        self.incoming[edge.block].append((self.label, self._arguments(edge)))
        return self.labels[edge.block]

    def _branch(self, condition: str, taken: Edge, other: Edge) -> None:
        if taken.block is other.block:
            self._same_target(condition, taken, other)
            return
        first, second = self._enter(taken), self._enter(other)
        self.text.do(f"br i1 {condition}, label %{first}, label %{second}")

    def _same_target(self, condition: str, taken: Edge, other: Edge) -> None:
        chosen = []
        for param, a, b in zip(
            taken.block.params, self._arguments(taken), self._arguments(other), strict=True
        ):
            kind = self.type_of(param)
            chosen.append(self.text.emit(f"select i1 {condition}, {kind} {a}, {kind} {b}"))
        self.incoming[taken.block].append((self.label, chosen))
        self.text.do(f"br label %{self.labels[taken.block]}")

    def _static_branch(self, block: Block, terminator: StaticBranch) -> None:
        """An invoke of a patchpoint that preserves every register: its unwind edge is the taken side."""
        self._spend_fuel(block, (terminator.taken, terminator.other), terminator.at)
        patchpoint = self.unit.declare("llvm.experimental.patchpoint.void", "void", "i64, i32, ptr, i32, ...")
        other, taken = self.text.name("off"), self.text.name("on")
        call = f"invoke anyregcc void (i64, i32, ptr, i32, ...) {patchpoint}"
        key, size = terminator.at, self.unit.options.site_bytes
        arguments = f"(i64 {key}, i32 {size}, ptr null, i32 0) memory(inaccessiblemem: readwrite)"
        self.text.do(f"{call}{arguments} to label %{other} unwind label %{taken}")
        self.start_block(other)
        self.text.do(f"br label %{self._enter(terminator.other)}")
        self.start_block(taken)
        self.text.emit("landingpad { ptr, i32 } cleanup")
        self.text.do(f"br label %{self._enter(terminator.taken)}")
