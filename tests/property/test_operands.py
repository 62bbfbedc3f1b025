"""Every operation on every pair of edge values: Linux, the interpreter and native code agree.

One program per row goes over a table of operands in memory (a map's value in the kernel) and leaves the
results there, so that a whole row is one load and one run:

    register forms    x  y  z | dst or memory  src  r0     a record for each pair (x, y); z is x or y
    immediate forms   x | result for imm 0, imm 1, ...     a record for each x
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import partial

import pytest

from bpfc.conformance import interpret
from bpfc.testing.kernel import create_map, load_program, read_map, run_program, write_map
from ir.asm import assemble
from ir.isa import ROWS, S32, Insn, Kind, Row
from ir.kinds import MapType
from ir.object import Map
from tests.engines import EMULATED, ENGINES, Engine

X = (
    0, 1, 2, 7, 8, 15, 16, 31, 32, 33, 63, 64, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF,
    0x8000_0000, 0xFFFF_FFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 2, (1 << 64) - 0x80,
    (1 << 64) - 0x8000_0000, 0x1234_5678_9ABC_DEF0,
)  # fmt: skip
IMMEDIATES: tuple[int, ...] = (
    0, 1, 2, 7, 8, 15, 16, 31, 32, 33, 63, 64, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x1_0000,
    0x1234_5678, 0x7FFF_FFFF, -1, -2, -0x80, -0x81, -0x8000, -0x8000_0000, -0x7FFF_FFFF,
)  # fmt: skip
PAIRS = tuple((x, y) for x in X for y in X)
OPERATIONS = tuple(
    row
    for row in ROWS
    if row.kind in (Kind.ALU, Kind.BRANCH, Kind.LOAD, Kind.STORE, Kind.ATOMIC)
    and row.name != "addr_space_cast"
)


def operate(row: Row, imm: int) -> Iterator[Insn]:
    """Perform `row` on r1 (x), r2 (y), r0 (z) and the x in memory at r6 + 24; a branch leaves r0 = 0 or 1."""
    offset = row.offset if isinstance(row.offset, int) else 24
    imm = row.imm if isinstance(row.imm, int) else imm
    match row.kind:
        case Kind.BRANCH:
            yield from assemble("r0 = 1")
            yield Insn(row.opcode, 1, 2 if row.uses_src else 0, 1, imm)
            yield from assemble("r0 = 0")
        case Kind.ALU:
            yield Insn(row.opcode, 1, 2 if row.uses_src else 0, offset, imm)
        case Kind.LOAD:
            yield Insn(row.opcode, 1, 6, offset, imm)
        case _:
            yield Insn(row.opcode, 6, 2 if row.uses_src else 0, offset, imm)


def register_program(row: Row) -> tuple[Insn, ...]:
    """Perform `row` on every record of the table at r6."""
    touches_memory = row.kind in (Kind.STORE, Kind.ATOMIC)
    head = "r1 = *(u64 *)(r6 + 0)\nr2 = *(u64 *)(r6 + 8)\nr0 = *(u64 *)(r6 + 16)\n*(u64 *)(r6 + 24) = r1"
    tail = "" if touches_memory else "*(u64 *)(r6 + 24) = r1\n"
    tail += "*(u64 *)(r6 + 32) = r2\n*(u64 *)(r6 + 40) = r0"
    body = (*assemble(head), *operate(row, 0), *assemble(tail))
    return looped(body, 48, len(PAIRS))


def immediate_program(row: Row, immediates: tuple[int, ...]) -> tuple[Insn, ...]:
    """Perform `row` with each immediate on every x of the table at r6."""
    body: list[Insn] = []
    for number, imm in enumerate(immediates):
        result = 8 * number + 8
        body += assemble("r0 = 0\nr1 = *(u64 *)(r6 + 0)")
        if row.kind is Kind.STORE:
            body += assemble(f"*(u64 *)(r6 + {result}) = r1")
            body += (insn._replace(offset=result) for insn in operate(row, imm))
        else:
            body += operate(row, imm)
            body += assemble(f"*(u64 *)(r6 + {result}) = r{0 if row.kind is Kind.BRANCH else 1}")
    return looped(tuple(body), 8 * len(immediates) + 8, len(X))


def looped(body: tuple[Insn, ...], size: int, count: int) -> tuple[Insn, ...]:
    """Run `body` for each of `count` records of `size` bytes at r6."""
    back = -sum(insn.slots for insn in body) - 3
    end = assemble(f"r6 += {size}\nr7 += 1\nif r7 != {count} goto {back:+}\nr0 = 0\nexit")
    return (*assemble("r7 = 0"), *body, *end)


def register_table() -> bytearray:
    records = (struct.pack("=6Q", x, y, (x, y)[i % 2], 0, 0, 0) for i, (x, y) in enumerate(PAIRS))
    return bytearray(b"".join(records))


def immediate_table(count: int) -> bytearray:
    return bytearray(b"".join(struct.pack("=Q", x) + bytes(8 * count) for x in X))


def case(row: Row, only_verified: bool) -> tuple[tuple[Insn, ...], bytearray]:
    """The program of `row`, lacking the start that sets r6, and its table; all of it or what Linux takes."""
    if row.imm is not S32:
        return register_program(row), register_table()
    immediates = IMMEDIATES
    if only_verified and row.name.startswith(("lsh", "rsh", "arsh")):
        immediates = tuple(imm for imm in immediates if 0 <= imm < row.bits)
    if only_verified and row.name.startswith(("div", "mod", "sdiv", "smod")):
        immediates = tuple(imm for imm in immediates if imm != 0)
    return immediate_program(row, immediates), immediate_table(len(immediates))


def run_in_linux(program: tuple[Insn, ...], table: bytearray) -> bytes:
    """The table after the kernel ran `program` on it."""
    with create_map(Map("table", MapType.ARRAY, 4, len(table), 1)) as map:
        write_map(map, bytes(4), bytes(table))
        with load_program((*assemble(f"r6 = map_value({map}, 0)"), *program)) as descriptor:
            assert run_program(descriptor).ret == 0
        return read_map(map, bytes(4), len(table))


def run_in_engine(engine: Engine, program: tuple[Insn, ...], table: bytearray) -> bytes:
    """The table after an engine ran `program` on it."""
    memory = bytearray(table)
    assert engine((*assemble("r6 = r1"), *program), memory) == 0
    return bytes(memory)


def first_difference(row: Row, found: bytes, wanted: bytes) -> str:
    """The first word that differs, and the operands of it."""
    words = list(zip(struct.iter_unpack("=Q", found), struct.iter_unpack("=Q", wanted), strict=True))
    at = next((number for number, (ours, theirs) in enumerate(words) if ours != theirs), None)
    if at is None:
        return ""
    record = len(words) // (len(X) if row.imm is S32 else len(PAIRS))
    inputs = [hex(words[at - at % record + i][1][0]) for i in range(1 if row.imm is S32 else 3)]
    ours, theirs = words[at]
    return f"{row.name} of {', '.join(inputs)}, word {at % record}: {ours[0]:#x} not {theirs[0]:#x}"


def test_there_are_enough_operands() -> None:
    assert len(X) >= 25
    assert len(IMMEDIATES) >= 25
    assert len(OPERATIONS) == 159


@pytest.mark.kernel
@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)
def test_the_interpreter_computes_what_linux_computes(row: Row) -> None:
    program, table = case(row, only_verified=True)
    found = run_in_engine(interpret, program, table)
    assert first_difference(row, found, run_in_linux(program, table)) == ""


SAMPLED = (
    1 if os.environ.get("BPFC_OPERANDS") == "all" else 10
)  # every how many rows a target computes, its own ones


@pytest.mark.parametrize(
    ("row", "target"),
    [
        pytest.param(row, target, id=f"{row.name}-{target}")
        for number, target in enumerate(EMULATED)
        for row in OPERATIONS[2 * number % SAMPLED :: SAMPLED]
    ],
)
def test_a_target_computes_what_the_interpreter_computes(row: Row, target: str) -> None:
    is_big = target == "s390x"
    program, table = case(row, only_verified=False)
    if is_big:
        words = struct.unpack(f"<{len(table) // 8}Q", table)
        table = bytearray(struct.pack(f">{len(words)}Q", *words))
    found = run_in_engine(ENGINES[f"emulated-{target}"], program, table)
    wanted = run_in_engine(partial(interpret, big_endian=is_big), program, table)
    assert first_difference(row, found, wanted) == ""


@pytest.mark.parametrize("engine", ["native"])
@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)
def test_an_engine_computes_what_the_interpreter_computes(row: Row, engine: str) -> None:
    program, table = case(row, only_verified=False)
    found = run_in_engine(ENGINES[engine], program, table)
    assert first_difference(row, found, run_in_engine(interpret, program, table)) == ""
