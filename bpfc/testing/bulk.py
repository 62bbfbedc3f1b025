"""Whole random programs, fast: from a seed, or from hypothesis' own source of chance, which then shrinks them.

main:      keep r6 (and the length in r7), leave early when there are fewer than ENOUGH bytes
           numbers from the packet, from global data, from constants; all of the stack written
           statements
           every number into global data, their mix into r0
callee:    the same start without the test, a few statements
callback:  a few operations on a number and a word of the caller's frame
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final, final

from bpfc.testing.author import COMMON, EDGES, NUMBERS, STACK_SIZE, WIDE_EDGES, Author, Repertoire, draw_bytes
from bpfc.testing.case import Case
from bpfc.testing.shapes.helpers import HASH, TABLE
from bpfc.testing.shapes.pointers import DATA_SIZE, ENOUGH, place_of
from bpfc.testing.shapes.table import PLAIN
from ir.isa import R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, slot_numbers
from ir.kinds import MapType, ProgramType
from ir.object import FunctionInfo, Map, Program

TYPES: Final = (
    ProgramType.UNSPEC,
    ProgramType.XDP,
    ProgramType.XDP,
    ProgramType.SCHED_CLS,
)
PRANDOM: Final = 7
SECTIONS: Final = {ProgramType.UNSPEC: "", ProgramType.XDP: "xdp", ProgramType.SCHED_CLS: "tc"}


@final
@dataclass(frozen=True, slots=True)
class Style:
    """What programs to write: about `size` statements, `inputs` to run them on; see Author for the others."""

    size: int = 8
    inputs: int = 8
    daring: float = 0.0
    filled: float = 1.0
    repertoire: Repertoire = PLAIN
    types: tuple[ProgramType, ...] = TYPES


def draw_case(random: Random, style: Style, seed: int = 0) -> Case:
    """A program and what to run it on."""
    program = draw_program(random, style)
    inputs = tuple(draw_input(random) for _ in range(style.inputs))
    maps = {"table": TABLE, "hash": HASH, "data": _content(random, "data", DATA_SIZE)}
    maps["fixed"] = replace(_content(random, "fixed", 32), is_read_only=True)
    return Case(program, maps, inputs, seed=seed)


def case_of(seed: int, style: Style) -> Case:
    """The case that `seed` stands for."""
    return draw_case(Random(seed), style, seed)


def draw_input(random: Random) -> bytes:
    """A packet or memory: mostly long enough, mostly made of words where operations change."""
    size = random.choice((ENOUGH, ENOUGH, ENOUGH + 1, ENOUGH + 14, 80, 96, 100, 128, 200, 14, 40, ENOUGH - 1))
    return draw_bytes(random, size)


def draw_program(random: Random, style: Style) -> Program:
    """A program of one to three functions."""
    type = random.choice(style.types)
    author = Author(random, type, style.repertoire, style.daring, style.filled)
    _start_main(author)
    author.statements(random.randint(max(style.size // 2, 1), style.size), 0)
    _end_main(author)
    functions = [FunctionInfo("main", 0, author.slots, is_global=True)]
    for name, write in _FUNCTIONS.items():
        if any(name == named for _, named in author.aims):
            functions.append(_function(author, name, write, style))
    _aim(author, {each.name: each.start for each in functions})
    return Program(
        "main", SECTIONS[type], type, tuple(author.insns), tuple(functions), references=author.references
    )


def _start_main(author: Author) -> None:
    random = author.random
    author.put("mov64 reg", R6, R1)
    if author.is_raw:
        author.put("mov64 reg", R7, R2)
        early = author.mark()
        author.put("jlt64 imm", R7, imm=ENOUGH)
        author.put("mov64 reg", R1, R6)
    else:
        data, end = place_of(author.type)
        author.put("ldx32", R1, R6, data)
        author.put("ldx32", R3, R6, end)
        author.put("mov64 reg", R2, R1)
        author.put("add64 imm", R2, imm=ENOUGH)
        early = author.mark()
        author.put("jgt64 reg", R2, R3)
        author.put("ldx64", R7, R1, 8 * random.randrange(8))
    author.put("mov64 imm", R0, imm=0)
    over = author.mark()
    author.put("ja")
    author.patch(early)
    author.put("mov64 imm", R0, imm=random.choice((0, 1, 2)))
    author.put("exit")
    author.patch(over)
    from_memory = random.sample((R0, R3, R4, R5), 3)
    for number, register in enumerate(from_memory):
        author.put(random.choice(("ldx64", "ldx64", "ldx32", "ldxs32")), register, R1, 8 * number)
    author.refer(R2, "data", 0)
    author.put("ldx64", R8, R2, 64)
    author.put("ldx64", R9, R2, 72)
    for register in (*({R0, R3, R4, R5} - set(from_memory)), R1, R2):
        author.put("mov64 imm", register, imm=random.choice(EDGES))
    if random.random() < 0.3:
        author.put("call helper", imm=PRANDOM)
        author.fill()
    _write_stack(author)


def _function(
    author: Author, name: str, write: Callable[[Author, Style], None], style: Style
) -> FunctionInfo:
    """Write a function after what is there."""
    start = author.slots
    author.in_main = False
    author.room += 40
    write(author, style)
    return FunctionInfo(name, start, author.slots - start, is_global=False)


def _callee(author: Author, style: Style) -> None:
    """A function of the context or memory, a number, a pointer into the caller's frame and another number."""
    _start_callee(author)
    author.statements(max(style.size // 3, 1), 1)
    author.put("mov64 reg", R0, author.random.choice(NUMBERS))
    author.put("exit")


def _callback(author: Author, style: Style) -> None:
    """A function of a number and a pointer to 8 bytes of the caller's frame: 0, or 1 to be called no more."""
    random = author.random
    author.put("mov64 reg", R7, R2)
    author.put("ldx64", R3, R7)
    for register in (R0, R2, R4, R5, R8, R9):
        author.put("mov64 imm", register, imm=random.choice(EDGES))
    for _ in range(random.randint(1, 3)):
        author.alu(random.choice(COMMON), random.choice((R0, R3, R4)), random.choice(NUMBERS))
    author.put("stx64", R7, R3)
    author.put("mov64 imm", R0, imm=0)
    mark = author.branch(R1, R4)
    author.put("mov64 imm", R0, imm=1)
    author.patch(mark)
    author.put("exit")


_FUNCTIONS: Final = {"callee": _callee, "callback": _callback}  # the callee may name the callback


def _start_callee(author: Author) -> None:
    random = author.random
    author.put("mov64 reg", R6, R1)
    author.put("mov64 reg", R7, R2)
    author.put(random.choice(("ldx64", "ldx32", "ldx8")), R8, R3)
    author.put(random.choice(("stx64", "stx32", "stx8")), R3, R4)
    for register in (R0, R1, R2, R3, R5, R9):
        author.put("mov64 imm", register, imm=random.choice(EDGES))
    _write_stack(author)


def _write_stack(author: Author) -> None:
    for offset in range(-STACK_SIZE, 0, 8):
        if author.filled < 1 and author.random.random() >= author.filled:
            continue
        if author.random.random() < 0.5:
            author.put("stx64", R10, author.number(), offset)
        else:
            author.put("st64", R10, offset=offset, imm=author.random.choice(EDGES))


def _end_main(author: Author) -> None:
    """Show every number: in global data, and mixed in r0."""
    shown = author.random.sample(NUMBERS, 4)
    scratch = next(each for each in (R1, R2, R3, R4, R5) if each not in shown)
    author.refer(scratch, "data", 96)
    for number, register in enumerate(shown):
        author.put("stx64", scratch, register, 8 * number)
    author.put("mov64 imm", scratch, imm=0)
    for register in (R1, R2, R3, R4, R5, R8, R9):
        author.put(author.random.choice(("xor64 reg", "add64 reg")), R0, register)
    author.put("exit")


def _aim(author: Author, starts: Mapping[str, int]) -> None:
    """Fill in where functions are, as distances in slots from the slot after the first of an instruction."""
    slots = slot_numbers(author.insns)
    for number, name in author.aims:
        author.insns[number] = author.insns[number]._replace(imm=starts[name] - slots[number] - 1)


def _content(random: Random, name: str, size: int) -> Map:
    words = [random.choice(WIDE_EDGES) for _ in range(size // 8)]
    return Map(name, MapType.ARRAY, 4, size, 1, initial=struct.pack(f"<{len(words)}Q", *words))
