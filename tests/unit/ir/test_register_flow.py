"""Which registers instructions are found to read and write."""

from __future__ import annotations

import pytest

from bpfc.testing.observed import observe_insns, observe_module
from bpfc.testing.programs import MEMORY_SIZE, Sample
from ir.asm import assemble
from ir.kinds import ProgramType
from ir.lift import lift
from ir.object import FunctionInfo, Program
from ir.pipeline import DEFAULT
from ir.structure import analyze_structure
from ir.validate import validate


def program_of(text: str) -> Program:
    """A program over raw memory."""
    insns = assemble(text)
    info = FunctionInfo("p", 0, sum(insn.slots for insn in insns), is_global=True)
    return Program("p", "", ProgramType.UNSPEC, insns, (info,))


def forbidden(text: str) -> dict[int, list[int]]:
    """The registers that insns of a program read uninitialised, by number. It is lifted, too."""
    program = program_of(text)
    validate(lift(program, {}))
    found = analyze_structure(program, 0b110).forbidden
    return {i: [r for r in range(11) if mask >> r & 1] for i, (mask, _) in found.items()}


def test_an_exchange_reads_r0_where_a_release_of_the_same_fields_does_not() -> None:
    text = "store_release((u32 *)(r1 + 0), w2)\nw0 = cmpxchg32_32(r1 + 0, w0, w2)\nexit"
    assert forbidden(text) == {1: [0]}


def test_a_call_leaves_the_argument_registers_unusable_until_they_are_written() -> None:
    assert forbidden("r6 = r1\ncall 5\nr1 = 0\nr0 += r1\nr0 += r2\nexit") == {4: [2]}


def test_a_register_written_on_one_way_only_is_not_initialised_after_it() -> None:
    assert forbidden("if r2 == 0 goto +1\nr3 = 1\nr0 = r3\nexit") == {2: [3]}


def test_only_the_first_read_of_an_uninitialised_register_is_forbidden() -> None:
    assert forbidden("if r2 == 0 goto +0\nr0 = r3\nr0 += r3\nif r2 == 1 goto +0\nr0 += r3\nexit") == {1: [3]}
    assert forbidden("call 5\nr0 += r1\nr0 += r1\nexit") == {1: [1]}


def test_a_call_that_declares_nothing_reads_the_argument_registers_that_are_initialised() -> None:
    assert forbidden("r3 = 1\ncall 65000\nr0 = r1\nexit") == {2: [1]}


def test_a_write_of_the_frame_pointer_is_forbidden_whatever_it_reads() -> None:
    assert forbidden("r10 += r7\nr0 = 0\nexit") == {0: []}


def test_a_helper_that_takes_any_number_of_arguments_reads_those_that_it_declares() -> None:
    assert forbidden("r6 = r1\nr2 = 4\ncall 6\nr1 = r10\nr2 = 4\ncall 6\nexit") == {}
    assert forbidden("call 6\ncall 6\nexit") == {1: [1, 2]}


WRITTEN_ON_ONE_WAY = """
    r2 = *(u8 *)(r1 + 0)
    r6 = 9
    if r2 > 9 goto other
    r5 = r2
other:
    r5 += 1
    r0 = r5
    r6 += -1
    if r6 != 0 goto again
    exit
again:
    if r6 s> 3 goto other
    r5 = 0
    goto other
"""
TAKEN_BY_A_CALL = """
    r7 = *(u8 *)(r1 + 0)
    r6 = 3
    r3 = 4
again:
    if r7 > 9 goto past
    r1 = r10
    r2 = 0
    call 16
    r3 = r7
past:
    r0 = r3
    r0 += r6
    r6 += -1
    if r6 == 0 goto out
    if r7 < 90 goto again
    r1 = r10
    r2 = 0
    call 16
    goto past
out:
    exit
"""


@pytest.mark.parametrize("text", [WRITTEN_ON_ONE_WAY, TAKEN_BY_A_CALL])
@pytest.mark.parametrize("first", [0, 9, 10, 89, 90, 255])
def test_the_ssa_form_traps_exactly_where_a_register_is_read_that_was_not_written(
    text: str, first: int
) -> None:
    sample = Sample(program_of(text), {}, bytes([first] * MEMORY_SIZE))
    wanted = observe_insns(sample)
    module = lift(sample.program, {})
    validate(module)
    assert observe_module(sample, module) == wanted
    DEFAULT.run(module)
    assert observe_module(sample, module) == wanted
    fails = first > 9 if text is WRITTEN_ON_ONE_WAY else first > 89
    assert isinstance(wanted.result, tuple) == fails


@pytest.mark.parametrize(("typed", "forbidden_insns"), [(True, set()), (False, {2})])
def test_a_function_whose_type_takes_nothing_passes_on_nothing_that_its_caller_left(
    typed: bool, forbidden_insns: set[int]
) -> None:
    insns = assemble("r6 = r1\ncall 5\ncall f\nexit\nf: r1 = 4\nr2 = 4\ncall 6\nexit")
    main = FunctionInfo("p", 0, 4, is_global=True)
    called = FunctionInfo("f", 4, 4, is_global=False, btf_id=7 if typed else 0)
    program = Program("p", "", ProgramType.UNSPEC, insns, (main, called))
    assert set(analyze_structure(program, 0b110).forbidden) == forbidden_insns
    validate(lift(program, {}))
