"""Native code knows which instruction it is for, on every target."""

from __future__ import annotations

import pytest

import bpfc
from backends.native_code import NativeCode, from_bytes
from backends.registry import NAMES, target_named
from bpfc import Options
from bpfc.compile import compile_program
from ir.object import Program

STORES = """
r0 = 0
if r2 >= 32 goto +1
exit
*(u32 *)(r1 + 0) = 0x11223344
*(u32 *)(r1 + 8) = 0x22334455
r6 = r1
call sub
*(u32 *)(r6 + 20) = 0x33445566
exit
sub: r3 = 0x44556677
r0 = r3
exit
"""


def compiled(text: str, name: str, level: str, lines: bool = True) -> tuple[Program, NativeCode]:
    target = target_named(name)
    big = target.byte_order == "big"
    program = bpfc.assemble(text, big_endian=big).program("main")
    options = Options(level=level, lines=lines, cache=False)
    return program, compile_program(program, {}, options, target=target).code


def slot_at(code: NativeCode, section: int, offset: int) -> int:
    """The slot of the last mark before a place."""
    return [mark.slot for mark in code.lines if mark.section == section and mark.offset <= offset][-1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", ["O0", "O2"])
def test_every_instruction_that_stores_has_native_code(name: str, level: str) -> None:
    program, code = compiled(STORES, name, level)
    marked = {mark.slot for mark in code.lines}
    assert {3, 4, 7} <= marked
    assert marked <= {*program.starts[:-1], -1}
    assert [mark[:2] for mark in code.lines] == sorted({mark[:2] for mark in code.lines})
    assert from_bytes(code.to_bytes()) == code


@pytest.mark.parametrize("level", ["O0", "O1", "O2"])
def test_code_that_has_a_constant_is_for_the_instruction_that_has_it(level: str) -> None:
    _, code = compiled(STORES, "x86_64", level)
    for slot, number in ((3, 0x11223344), (4, 0x22334455), (7, 0x33445566)):
        found = [
            (index, section.data.find(number.to_bytes(4, "little")))
            for index, section in enumerate(code.sections)
            if section.is_executable
        ]
        ((section, offset),) = [place for place in found if place[1] >= 0]
        assert slot_at(code, section, offset) == slot


def test_code_has_no_lines_unless_asked_for_and_is_the_same_then() -> None:
    _, plain = compiled(STORES, "x86_64", "O2", lines=False)
    _, marked = compiled(STORES, "x86_64", "O2")
    assert plain.lines == ()
    assert marked.lines
    code = [[section for section in one.sections if section.is_executable] for one in (plain, marked)]
    assert code[0] == code[1]
