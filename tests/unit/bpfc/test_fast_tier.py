"""Large programs, which the fast tier compiles in a hurry."""

from __future__ import annotations

import re
from random import Random

import pytest

import bpfc
from backends.function import TRAP_ARMS
from backends.registry import host
from bpfc.codegen import Form, emit
from bpfc.compile import effective_level
from bpfc.conformance import interpret
from bpfc.loaded import from_insns
from ir.isa import ROW_BY_NAME, ROWS, Insn, Kind, Row

ALU = [row for row in ROWS if row.kind is Kind.ALU and row.name != "addr_space_cast"]
BRANCHES = [row for row in ROWS if row.kind is Kind.BRANCH]
STACK = [row for row in ROWS if row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC)]
FREE = (0, 2, 3, 4, 5, 7, 8, 9)
EDGES = (0, 1, -1, 31, 32, 63, 64, 255, 256, 0x7FFF_FFFF, -0x8000_0000)


def put(name: str, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> Insn:
    return Insn(ROW_BY_NAME[name].opcode, dst, src, offset, imm)


def random_insn(random: Random) -> Insn:
    """An operation of any row on the free registers, the first 64 bytes at r6 or 40 bytes of stack; or a short branch."""
    row = random.choice(random.choice((ALU, ALU, ALU, STACK, BRANCHES)))
    imm = row.imm if isinstance(row.imm, int) else random.choice(EDGES)
    if row.kind in (Kind.ALU, Kind.BRANCH):
        offset = row.offset if isinstance(row.offset, int) else random.randrange(4)
        return Insn(row.opcode, random.choice(FREE), random.choice(FREE) * row.uses_src, offset, imm)
    base, start = random.choice(((6, 0), (10, -40)))
    offset = start + row.size * random.randrange(40 // row.size)
    dst, src = (random.choice(FREE), base) if row.kind is Kind.LOAD else (base, random.choice(FREE))
    return Insn(row.opcode, dst, src * row.uses_src, offset, imm)


def large_program(random: Random, count: int) -> tuple[Insn, ...]:
    insns = [put("mov64 reg", 6, 1)]
    insns += [put("ldx64", register, 6, 8 * number) for number, register in enumerate(FREE)]
    insns += [put("st64", 10, 0, -8 * number) for number in range(1, 6)]
    insns += [random_insn(random) for _ in range(count)]
    insns += [
        put("xor64 reg", 0, register) for register in (*FREE[1:], *FREE[1:4])
    ]  # where branches at the end lead
    return (*insns, put("exit"))


def rows(insns: tuple[Insn, ...]) -> set[Row]:
    return {row for insn in insns for row in ROWS if row.opcode == insn.opcode and row.accepts(insn)}


def test_large_functions_compiled_in_a_hurry_do_what_the_interpreter_says() -> None:
    seen: set[Row] = set()
    for seed in range(3):
        random = Random(seed)
        insns = large_program(random, 2500)
        seen |= rows(insns)
        with from_insns(insns).start(bpfc.Options(cache=False)) as runtime:
            program = runtime["main"]
            assert program.compiled.level == "O1"
            for _ in range(20):
                memory = random.randbytes(64)
                expected = bytearray(memory)
                ret = interpret(insns, expected)
                result = program.run(memory)
                assert (result.ret, result.data) == (ret, bytes(expected))
    assert seen >= {*ALU, *BRANCHES, *STACK}


@pytest.mark.unsprinkled
def test_only_large_functions_of_the_fast_tier_are_compiled_in_a_hurry() -> None:
    def optnone(count: int, level: str) -> bool:
        loaded = from_insns(large_program(Random(1), count))
        program, maps = loaded.object.programs["main"], loaded.object.maps
        options = bpfc.Options(level=level)
        options = bpfc.Options(level=effective_level(program, options))
        return b"optnone" in emit(program, maps, options, host(), Form.LLVM)

    assert [optnone(2500, "auto"), optnone(2500, "O2"), optnone(300, "O1")] == [True, False, False]


def many_loops(count: int) -> str:
    """Loops one after the other, over numbers and the memory at r1; leaving its bounds traps."""
    lines = ["r6 = r1", "r8 = *(u8 *)(r1 + 16)", "r7 = *(u64 *)(r1 + 0)", "r0 = 0"]
    for number in range(count):
        lines += ["r2 = 0", f"again{number}:", "r0 += r7", "r0 ^= r2", "r7 += 3", "r3 = r6", "r3 += r2"]
        lines += ["r4 = *(u8 *)(r3 + 0)", f"*(u16 *)(r6 + {number % 31}) = r4", "r0 *= 5", "r2 += 1"]
        lines.append(f"if r2 < {'r8' if number % 3 else number % 7 + 1} goto again{number}")
    return "\n".join([*lines, "exit"])


def test_many_loops_do_what_the_interpreter_says() -> None:
    loaded = bpfc.assemble(many_loops(300))
    insns = loaded.program("main").insns
    with loaded.start(bpfc.Options(cache=False)) as runtime:
        assert runtime["main"].compiled.level == "O1"
        for seed in range(3):
            memory = bytearray(Random(seed).randbytes(32))
            memory[16] %= 16
            expected = bytearray(memory)
            ret = interpret(insns, expected)
            result = runtime["main"].run(bytes(memory))
            assert (result.ret, result.data) == (ret, bytes(expected))
        with pytest.raises(bpfc.TrapError):
            runtime["main"].run(bytes(17))


@pytest.mark.unsprinkled
def test_llvm_is_given_nothing_that_it_takes_the_square_of_time_for() -> None:
    loaded = bpfc.assemble(many_loops(300))
    program = loaded.program("main")
    options = bpfc.Options(level=effective_level(program, bpfc.Options()))
    text = emit(program, loaded.maps, options, host(), Form.LOWERED).decode()
    headers = re.findall(r"^b\d+:.*\n((?:  %\S+ = phi .*\n)+)", text, re.MULTILINE)
    assert len(headers) >= 300
    frozen = set(re.findall(r"(%\S+) = freeze ", text))
    around = re.findall(r"\[ (%\S+), %b\d+", "".join(headers))
    assert len(frozen & set(around)) >= 600  # two values or three go around each loop
    traps = re.findall(r"^  %trap\d*\.slot = phi (.*)", text, re.MULTILINE)
    assert max(arms.count("[") for arms in traps) == TRAP_ARMS
    assert sum(arms.count("[") for arms in traps) > 300
