"""The SSA form of a program: functions of blocks of instructions, values passed to blocks as parameters.

Registers are gone: a copy is the same Value, so what is learned about a value holds for each register and
spill slot that carried it. Every value has 64 bits. Terminators own the edges; nothing else records who
follows whom.

    block 3 (v7, v9):                       v7, v9: Params
      v10 = add64 v7, v9                    Alu
      v11 = ldx32 [v10 + 4]                 Load
      if jeq64 v11, 0: block 5 (v10) else block 4
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, assert_never, final

from ir.context import ContextLayout
from ir.diagnostics import Location
from ir.isa import Callee, Row
from ir.object import FunctionInfo, Map, Program, Reference
from ir.probing import reads_objects

if TYPE_CHECKING:
    import networkx


@final
@dataclass(eq=False, slots=True)
class Param:
    """A parameter of a block, or of a function; `register` is the one it stood in, for names and messages."""

    register: int


@final
@dataclass(eq=False, slots=True)
class Const:
    """A 64-bit constant, unsigned."""

    value: int
    at: int = -1


@final
@dataclass(eq=False, slots=True)
class Frame:
    """The address just above this function's stack frame (r10)."""

    at: int = -1


@final
@dataclass(eq=False, slots=True)
class Address:
    """The address of a map, a global variable (a direct map value), a function or a kernel symbol."""

    reference: Reference
    at: int = -1


@final
@dataclass(eq=False, slots=True)
class Alu:
    """`compute(row, x, y)`; a row of one operand has x = y."""

    row: Row
    x: Value
    y: Value
    at: int = -1


@final
@dataclass(eq=False, slots=True)
class Load:
    """`row.size` bytes at base + offset, sign- or zero-extended."""

    row: Row
    base: Value
    offset: int
    at: int = -1


@final
@dataclass(eq=False, slots=True)
class Store:
    """The low `row.size` bytes of `value` to base + offset. No result."""

    row: Row
    base: Value
    offset: int
    value: Value
    at: int = -1


@final
@dataclass(eq=False, slots=True)
class Atomic:
    """memory = meaning(memory, value), indivisibly; the result is the old memory, zero-extended (if the row fetches).

    A compare-and-exchange stores `value` only if memory equals `expected`.
    """

    row: Row
    base: Value
    offset: int
    value: Value
    expected: Value | None
    at: int = -1


@final
@dataclass(eq=False, slots=True)
class PacketLoad:
    """The legacy packet load: `row.size` big-endian bytes at packet offset index + imm.

    Out of bounds, the function returns 0.
    """

    row: Row
    context: Value
    index: Value | None
    imm: int
    at: int = -1


@final
@dataclass(eq=False, slots=True)
class Call:
    """A call of a helper (by id), a subprogram or kfunc (by name) or through a value; the result is r0."""

    callee: Callee
    target: int | str | Value
    args: tuple[Value, ...]
    at: int = -1


Inst = Const | Frame | Address | Alu | Load | Store | Atomic | PacketLoad | Call
Value = Param | Inst


@final
@dataclass(eq=False, slots=True)
class Edge:
    """A way to `block`, with a value for each of its parameters."""

    block: Block
    args: list[Value] = field(default_factory=list)


@final
@dataclass(eq=False, slots=True)
class Jump:
    """Go there."""

    edge: Edge
    at: int = -1


@final
@dataclass(eq=False, slots=True)
class Branch:
    """Take `taken` when `compute(row, x, y)`, else `other`."""

    row: Row
    x: Value
    y: Value
    taken: Edge
    other: Edge
    at: int = -1


@final
@dataclass(eq=False, slots=True)
class StaticBranch:
    """A branch that is a nop (`other`) or a jump (`taken`), flipped from outside; `starts_taken`: a jump first."""

    row: Row
    taken: Edge
    other: Edge
    starts_taken: bool
    at: int = -1


@final
@dataclass(eq=False, slots=True)
class MayGoto:
    """Take `taken` once this run's loop budget is used up, else `other`."""

    taken: Edge
    other: Edge
    at: int = -1


@final
@dataclass(eq=False, slots=True)
class Return:
    """Leave the function with `value` as r0."""

    value: Value
    at: int = -1


Terminator = Jump | Branch | StaticBranch | MayGoto | Return


@final
@dataclass(eq=False, slots=True)
class Block:
    """Straight-line code lifted from slot `start`: instructions run in order, then the terminator."""

    start: int
    params: list[Param] = field(default_factory=list)
    insts: list[Inst] = field(default_factory=list)
    terminator: Terminator = field(init=False)

    def edges(self) -> tuple[Edge, ...]:
        """The ways out, taken before not taken."""
        return edges_of(self.terminator)

    def successors(self) -> tuple[Block, ...]:
        """Where the ways out lead; a block may stand twice."""
        terminator = self.terminator
        if type(terminator) is Branch:  # as in `edges_of`
            return (terminator.taken.block, terminator.other.block)
        if type(terminator) is Jump:
            return (terminator.edge.block,)
        return tuple([edge.block for edge in edges_of(terminator)])


@final
@dataclass(eq=False)
class Function:
    """A function: `params` are r1.. as far as it reads them; the entry block is first and has no parameters."""

    info: FunctionInfo
    params: list[Param]
    blocks: list[Block]
    program: Program

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def entry(self) -> Block:
        return self.blocks[0]

    def location(self, at: int) -> Location:
        """Where the instruction lifted from slot `at` stands in the input."""
        return self.program.location(at)

    def cfg(self) -> networkx.DiGraph[Block]:
        """The control-flow graph, derived from the terminators; for dominators, loops and drawings."""
        from ir.graph import control_flow

        return control_flow(self)

    def predecessors(self) -> dict[Block, list[tuple[Block, Edge]]]:
        """For each block the edges that enter it, in block order."""
        found: dict[Block, list[tuple[Block, Edge]]] = {block: [] for block in self.blocks}
        for block in self.blocks:
            for edge in block.edges():
                found[edge.block].append((block, edge))
        return found

    def insts(self) -> Iterator[Inst]:
        """Every instruction, in block order."""
        for block in self.blocks:
            yield from block.insts

    def of_types(self, *types: type[Inst]) -> list[Inst]:
        """The instructions of these kinds, in block order: quicker than asking each one."""
        return [inst for block in self.blocks for inst in block.insts if type(inst) in types]

    def reverse_postorder(self) -> list[Block]:
        """The reachable blocks, each before its successors except along back-edges."""
        seen: set[Block] = set()
        order: list[Block] = []
        stack: list[Block | None] = [self.entry]
        while stack:
            block = stack.pop()
            if block is None:  # all that is behind the block below has been seen
                done = stack.pop()
                assert done is not None
                order.append(done)
            elif block not in seen:
                seen.add(block)
                stack += (block, None)
                stack += [after for after in block.successors()[::-1] if after not in seen]
        order.reverse()
        return order


@final
@dataclass(eq=False)
class Module:
    """A program ready to verify, optimize and lower: its functions (main first), its maps and its context."""

    program: Program
    functions: dict[str, Function]
    maps: Mapping[str, Map]
    context: ContextLayout

    @property
    def main(self) -> Function:
        return next(iter(self.functions.values()))

    @cached_property
    def reads_objects(self) -> bool:
        """Whether loads from where nothing is give 0: see ir/probing."""
        return reads_objects(self.program)


def edges_of(terminator: Terminator) -> tuple[Edge, ...]:
    """The ways out of a terminator, taken before not taken."""
    if type(terminator) is Branch:  # the two that passes meet most; a comparison of types is 5 times faster
        return (terminator.taken, terminator.other)
    if type(terminator) is Jump:
        return (terminator.edge,)
    match terminator:
        case StaticBranch() | MayGoto():
            return (terminator.taken, terminator.other)
        case Return():
            return ()
        case _:
            assert_never(terminator)


def operands(inst: Inst | Terminator) -> tuple[Value, ...]:
    """The values an instruction or terminator reads, edge arguments included."""
    if type(inst) is Alu:
        return (inst.x, inst.y)
    if type(inst) is Load:
        return (inst.base,)
    if type(inst) is Branch:
        return (inst.x, inst.y, *inst.taken.args, *inst.other.args)
    match inst:
        case Const() | Frame() | Address():
            return ()
        case Store(_, base, _, value):
            return (base, value)
        case Atomic(_, base, _, value, expected):
            return (base, value) if expected is None else (base, value, expected)
        case PacketLoad(_, context, index):
            return (context,) if index is None else (context, index)
        case Call(_, target, args):
            return args if isinstance(target, int | str) else (target, *args)
        case Jump(edge):
            return tuple(edge.args)
        case StaticBranch() | MayGoto():
            return (*inst.taken.args, *inst.other.args)
        case Return(value):
            return (value,)
        case _:
            assert_never(inst)


def substitute(inst: Inst | Terminator, replaced: Mapping[Value, Value]) -> None:
    """Make `inst` read `replaced[v]` wherever it read v."""
    if type(inst) is Alu:
        if inst.x in replaced:
            inst.x = replaced[inst.x]
        if inst.y in replaced:
            inst.y = replaced[inst.y]
        return
    get = replaced.get
    if type(inst) is Load:
        inst.base = get(inst.base, inst.base)
        return
    match inst:
        case Const() | Frame() | Address():
            return
        case Store(_, base, _, value):
            inst.base, inst.value = get(base, base), get(value, value)
        case Atomic(_, base, _, value, expected):
            inst.base, inst.value = get(base, base), get(value, value)
            inst.expected = expected if expected is None else get(expected, expected)
        case PacketLoad(_, context, index):
            inst.context = get(context, context)
            inst.index = index if index is None else get(index, index)
        case Call(_, target, args):
            inst.target = target if isinstance(target, int | str) else get(target, target)
            inst.args = tuple(get(arg, arg) for arg in args)
        case Branch(_, x, y):
            inst.x, inst.y = get(x, x), get(y, y)
        case Return(value):
            inst.value = get(value, value)
        case Jump() | StaticBranch() | MayGoto():
            pass
        case _:
            assert_never(inst)
    if isinstance(inst, Branch | Jump | StaticBranch | MayGoto):
        for edge in edges_of(inst):
            if not replaced.keys().isdisjoint(edge.args):
                edge.args = [get(arg, arg) for arg in edge.args]


def has_effect(inst: Inst) -> bool:
    """Whether an instruction must stay even when nobody reads its result."""
    match inst:
        case Const() | Frame() | Address() | Alu():
            return False
        case Load():
            return False
        case Store() | Atomic() | PacketLoad() | Call():
            return True
        case _:
            assert_never(inst)
