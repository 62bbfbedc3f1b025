"""Hypothesis strategy for whole programs: structured, terminating, over every row, right by construction.

r1 points at MEMORY_SIZE bytes, r2 is their number. Programs keep that pointer in r6, loop counters in the
stack below what they use else, read `.rodata` and `.data`, call a few helpers and maybe a subprogram that writes to
their frame. They seldom trap (when a pointer was spilled and its slot overwritten), but they may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

from hypothesis import strategies as st

from bpfc.testing.strategies import edge_values, values
from ir.functions import discover_functions
from ir.isa import (
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
    ROW_BY_NAME,
    ROWS,
    S32,
    WIDE_OPCODE,
    Insn,
    Kind,
    Row,
    Wide,
)
from ir.kinds import MapType, ProgramType
from ir.object import Map, Program, Reference, ReferenceKind

MEMORY_SIZE: Final = 64
GLOBAL_SIZE: Final = 32
RODATA: Final = ".rodata"
DATA: Final = ".data"
GLOBALS: Final = (RODATA, DATA)

GET_COMM: Final = 16
HELPERS: Final = {5: (), 23: (R3, R4), GET_COMM: (R1, R2)}
"""Helpers that are called, and what is passed: ktime_get_ns, redirect, get_current_comm (writes memory)."""

_SCALARS: Final = (R0, R3, R4, R5, R7, R8, R9)
_STACK_USED: Final = 48  # few bytes, so that accesses meet
_COUNTERS: Final = -112  # below those, and little enough for a subprogram with loops in a program with loops


@final
@dataclass(frozen=True)
class Sample:
    """A program, the maps it refers to, and what r1 points at."""

    program: Program
    maps: Mapping[str, Map]
    memory: bytes


@st.composite
def samples(draw: st.DrawFn, big_endian: bool = False) -> Sample:
    """Programs and what they need to run."""
    author = _Author(draw)
    main = [*author.prologue(), *author.body(3)]
    inner: list[Insn] = []
    if draw(st.booleans()):
        reach = _insn("stx64", R2, R2, -8 * draw(st.integers(1, _STACK_USED // 8)))
        inner = [reach, *author.prologue(), *author.body(1), *author.epilogue()]
        rest = [*author.lost(), *author.body(1), *author.epilogue()]
        passed = [_insn("mov64 reg", R1, R6), _insn("mov64 reg", R2, R10)]
        main += [*passed, _insn("call subprogram", imm=_slots(rest)), *rest]
    else:
        main += author.epilogue()
    insns = (*main, *inner)
    program = Program(
        "main",
        "",
        ProgramType.UNSPEC,
        insns,
        discover_functions(insns, "main"),
        references=_references(insns),
        big_endian=big_endian,
    )
    contents = st.binary(min_size=GLOBAL_SIZE, max_size=GLOBAL_SIZE)
    maps = {
        name: Map(name, MapType.ARRAY, 4, GLOBAL_SIZE, 1, initial=draw(contents), is_read_only=name == RODATA)
        for name in GLOBALS
    }
    return Sample(program, maps, draw(st.binary(min_size=MEMORY_SIZE, max_size=MEMORY_SIZE)))


def rows_of(kind: Kind) -> tuple[Row, ...]:
    """The rows of one kind that any program may use."""
    return tuple(row for row in ROWS if row.kind is kind and row.name != "addr_space_cast")


def _references(insns: tuple[Insn, ...]) -> dict[int, Reference]:
    """What the direct map values refer to; the low half of their immediate numbers GLOBALS."""
    found: dict[int, Reference] = {}
    slot = 0
    for insn in insns:
        if insn.opcode == WIDE_OPCODE and insn.src == Wide.MAP_VALUE.value:
            name = GLOBALS[insn.imm & 0xFFFF_FFFF]
            found[slot] = Reference(ReferenceKind.MAP_VALUE, name, insn.imm >> 32)
        slot += insn.slots
    return found


def _insn(name: str, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> Insn:
    """An instruction of a row by name; fields that the row fixes need not be given."""
    row = ROW_BY_NAME[name]
    return Insn(
        row.opcode,
        dst,
        row.src if isinstance(row.src, int) else src,
        row.offset if isinstance(row.offset, int) else offset,
        row.imm if isinstance(row.imm, int) else imm,
    )


def _slots(insns: list[Insn]) -> int:
    return sum(insn.slots for insn in insns)


@final
class _Author:
    """Writes programs statement by statement; each leaves every scalar register initialised."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        edges = sorted({value - (1 << 32) if value >> 31 else value for value in edge_values(32)})
        self.immediates = st.one_of(
            st.sampled_from(edges), st.integers(-4, 40), st.integers(S32.start, S32.stop - 1)
        )

    def prologue(self) -> list[Insn]:
        """Keep r1, initialise the scalars."""
        start = self.draw(st.lists(self.immediates, min_size=len(_SCALARS), max_size=len(_SCALARS)))
        sets = [_insn("mov64 imm", register, imm=imm) for register, imm in zip(_SCALARS, start, strict=True)]
        return [_insn("mov64 reg", R6, R1), *sets]

    def epilogue(self) -> list[Insn]:
        """Show every scalar in memory, and leave."""
        shown = [_insn("stx64", R6, register, 8 * number) for number, register in enumerate(_SCALARS)]
        return [*shown, _insn("exit")]

    def lost(self) -> list[Insn]:
        """Give values to the scalars that a call loses."""
        return [_insn("mov64 imm", register, imm=self.draw(self.immediates)) for register in (R3, R4, R5)]

    def body(self, depth: int) -> list[Insn]:
        """A few statements that nest at most `depth` deep."""
        kinds: list[Callable[[int], list[Insn]]] = [
            self._alu,
            self._alu,
            self._wide,
            self._memory,
            self._stack,
            self._stack,
            self._global,
            self._call,
            self._spill,
        ]
        if depth:
            kinds += [self._if, self._if, self._if, self._loop, self._static_branch]
        code: list[Insn] = []
        for kind in self.draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6)):
            code += kind(depth)
        return code

    def _scalar(self) -> int:
        return self.draw(st.sampled_from(_SCALARS))

    def _with_operands(self, row: Row, offset: int = 0) -> Insn:
        """An instruction of `row` on scalar registers, its second operand drawn."""
        imm = row.imm if isinstance(row.imm, int) else self.draw(self.immediates) if not row.uses_src else 0
        src = self._scalar() if row.uses_src else 0
        return Insn(
            row.opcode, self._scalar(), src, row.offset if isinstance(row.offset, int) else offset, imm
        )

    def _alu(self, depth: int) -> list[Insn]:
        return [self._with_operands(self.draw(st.sampled_from(rows_of(Kind.ALU))))]

    def _wide(self, depth: int) -> list[Insn]:
        return [Insn(WIDE_OPCODE, self._scalar(), 0, 0, self.draw(values()))]

    def _memory(self, depth: int) -> list[Insn]:
        return [self._access(R6, 0, MEMORY_SIZE, (Kind.LOAD, Kind.STORE, Kind.ATOMIC))]

    def _stack(self, depth: int) -> list[Insn]:
        """An access to the stack, sometimes through a copy of its address."""
        access = self._access(R10, -_STACK_USED, 0, (Kind.LOAD, Kind.STORE, Kind.STORE, Kind.ATOMIC))
        if self.draw(st.booleans()):
            return [access]
        moved = access._replace(src=R2) if access.src == R10 else access._replace(dst=R2)
        step = self.draw(st.sampled_from((0, 8, -8)))
        return [
            _insn("mov64 reg", R2, R10),
            _insn("add64 imm", R2, imm=step),
            moved._replace(offset=access.offset - step),
        ]

    def _access(self, base: int, start: int, end: int, kinds: tuple[Kind, ...]) -> Insn:
        """An aligned access to base + [start, end)."""
        row = self.draw(st.sampled_from(rows_of(self.draw(st.sampled_from(kinds)))))
        offset = self.draw(st.integers(start // row.size, end // row.size - 1)) * row.size
        imm = row.imm if isinstance(row.imm, int) else self.draw(self.immediates)
        if row.kind is Kind.LOAD:
            return Insn(row.opcode, self._scalar(), base, offset, imm)
        return Insn(row.opcode, base, self._scalar() if row.uses_src else 0, offset, imm)

    def _global(self, depth: int) -> list[Insn]:
        """Load from global data, or store to the writable part; then often decide something."""
        number = self.draw(st.integers(0, 1))
        offset = self.draw(st.integers(0, GLOBAL_SIZE // 8 - 1)) * 8
        address = Insn(WIDE_OPCODE, R2, Wide.MAP_VALUE.value, 0, offset << 32 | number)
        kinds = (Kind.LOAD,) if GLOBALS[number] == RODATA else (Kind.LOAD, Kind.STORE, Kind.ATOMIC)
        return [address, self._access(R2, 0, 8, kinds)]

    def _call(self, depth: int) -> list[Insn]:
        """A helper call; the argument registers are scalars again afterwards."""
        helper = self.draw(st.sampled_from((*HELPERS, *HELPERS, GET_COMM, GET_COMM)))
        size = self.draw(st.sampled_from((1, 4, 8, 12, 16)))
        place = -8 * self.draw(st.integers(2, _STACK_USED // 8))
        passed = {
            (): [],
            (R3, R4): [_insn("mov64 reg", R1, R3), _insn("mov64 reg", R2, R4)],
            (R1, R2): [
                _insn("mov64 reg", R1, R10),
                _insn("add64 imm", R1, imm=place),
                _insn("mov64 imm", R2, imm=size),
            ],
        }[HELPERS[helper]]
        after = [self._access(R10, place, place + 16, (Kind.LOAD,))] if helper == GET_COMM else []
        return [*passed, _insn("call helper", imm=helper), *self.lost(), *after]

    def _spill(self, depth: int) -> list[Insn]:
        """Keep r6 on the stack while something else happens."""
        offset = -8 * self.draw(st.integers(1, _STACK_USED // 8))
        inner = self.body(0)
        return [_insn("stx64", R10, R6, offset), *inner, _insn("ldx64", R6, R10, offset)]

    def _if(self, depth: int) -> list[Insn]:
        row = self.draw(st.sampled_from(rows_of(Kind.BRANCH)))
        first, second = self.body(depth - 1), self.body(depth - 1) if self.draw(st.booleans()) else []
        branch = self._with_operands(row, _slots(second) + 1)
        return [branch, *second, _insn("ja", offset=_slots(first)), *first]

    def _static_branch(self, depth: int) -> list[Insn]:
        row = self.draw(st.sampled_from((*rows_of(Kind.STATIC_BRANCH), *rows_of(Kind.MAY_GOTO))))
        body = self.body(depth - 1)
        return [_insn(row.name, offset=_slots(body), imm=_slots(body)), *body]

    def _loop(self, depth: int) -> list[Insn]:
        """Up to 3 rounds, counted below the rest of the stack."""
        counter = _COUNTERS + 8 * depth
        body = self.body(depth - 1)
        count = [
            _insn("ldx64", R0, R10, counter),
            _insn("add64 imm", R0, imm=-1),
            _insn("stx64", R10, R0, counter),
        ]
        back = _insn("jne64 imm", R0, offset=-(_slots(body) + len(count) + 1))
        start = _insn("st64", R10, offset=counter, imm=self.draw(st.integers(1, 3)))
        return [start, *body, *count, back]
