"""The cases of isa/*.txt: programs in our syntax and the r0, or the trap, they end with.

A case is `insn | insn -> result`, or lines of assembly up to a line `-> result`; an exit follows it.
`memory:` gives the bytes that r1 points at, r2 of them, for the cases after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from bpfc.conformance import interpret
from ir.asm import assemble
from ir.diagnostics import TrapError
from ir.isa import ROWS, Insn, Kind, Row, row_of
from tests.engines import ENGINES, LITTLE_ENDIAN, Engine

FOLDER = Path(__file__).parent / "isa"
NEEDS_MORE = frozenset({"addr_space_cast", "call kfunc"})  # an arena, a kernel's types


@dataclass(frozen=True, slots=True)
class Case:
    """One program; `result` is r0 or the code of a trap."""

    place: str
    insns: tuple[Insn, ...]
    memory: bytes
    result: int | str


def read_cases(path: Path) -> Iterator[Case]:
    """The cases of a file, in order."""
    memory, text = b"", ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        code = line.partition("#")[0]
        if code.startswith("memory:"):
            memory = bytes.fromhex(code.removeprefix("memory:"))
            continue
        insns, arrow, result = code.partition("->")
        text += insns.replace(" | ", "\n") + "\n"
        if arrow:
            value = result.strip()
            expected = int(value, 0) if value[0].isdigit() else value
            yield Case(f"{path.stem}:{number}", assemble(text + "exit"), memory, expected)
            text = ""
    assert not text.strip(), f"{path.name} ends in the middle of a case"


CASES = [case for path in sorted(FOLDER.glob("*.txt")) for case in read_cases(path)]


def is_raw(row: Row) -> bool:
    """Whether a row means anything without an object, a packet or a kernel around the program."""
    names_something = row.kind is Kind.WIDE and row.name not in ("lddw plain", "lddw func")
    return not names_something and row.kind is not Kind.PACKET and row.name not in NEEDS_MORE


@pytest.mark.parametrize("engine", LITTLE_ENDIAN)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.place)
def test_a_program_ends_as_written(case: Case, engine: str) -> None:
    try:
        result: int | str = ENGINES[engine](case.insns, bytearray(case.memory))
    except TrapError as error:
        result = error.diagnostics[0].code
    assert result == case.result


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.place)
def test_a_big_endian_program_ends_as_the_interpreter_says(case: Case) -> None:
    def run(engine: Engine) -> int | str:
        try:
            return engine(case.insns, bytearray(case.memory))
        except TrapError as error:
            return error.diagnostics[0].code

    assert run(ENGINES["emulated-s390x"]) == run(partial(interpret, big_endian=True))


def test_every_row_is_in_a_case() -> None:
    used = {row_of(insn).name for case in CASES for insn in case.insns}
    assert {row.name for row in ROWS if is_raw(row)} - used == set()
