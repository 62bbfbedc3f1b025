"""The bpf_conformance plugin protocol: hexadecimal in, r0 out, problems on stderr."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest

from bpfc.conformance import ENGINES, Engine, interpret, run_plugin
from ir.asm import assemble
from ir.encoding import encode
from ir.isa import Insn
from tests.conformance import wrap_in_elf

ANSWER = encode(assemble("r0 = 42\nexit"))


def serve(program: str, *argv: str, engines: dict[str, Engine] | None = None) -> tuple[int, str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    engines = engines or {"interpreter": interpret}
    code = run_plugin(argv, io.StringIO(program), stdout, stderr, engines)
    return code, stdout.getvalue(), stderr.getvalue()


def test_r0_is_printed_in_hexadecimal() -> None:
    assert serve(ANSWER.hex(" ")) == (0, "2a\n", "")


def test_the_program_may_be_an_argument() -> None:
    assert serve("", "--program", ANSWER.hex()) == (0, "2a\n", "")


def test_an_elf_object_is_read_when_asked_to() -> None:
    elf = wrap_in_elf(assemble("call f\nexit\nf: r0 = 7\nexit"))
    assert serve(elf.hex(" "), "--elf") == (0, "7\n", "")


@pytest.mark.parametrize("memory", ["01 02 03", "  01  02  3 ", "010203", "1\n2\t3"])
def test_memory_comes_with_spaces_anywhere(memory: str) -> None:
    text = "r0 = *(u8 *)(r1 + 2)\nr2 <<= 8\nr0 |= r2\nexit"
    assert serve(encode(assemble(text)).hex(), memory) == (0, "303\n", "")


@pytest.mark.parametrize("argv", [(), ("",)])
def test_without_memory_both_arguments_are_zero(argv: Sequence[str]) -> None:
    assert serve(encode(assemble("r0 = r1\nr0 |= r2\nexit")).hex(), *argv) == (0, "0\n", "")


def test_the_program_may_write_to_its_memory() -> None:
    text = "*(u8 *)(r1 + 1) = 9\nr0 = *(u16 *)(r1 + 0)\nr0 = be16 r0\nexit"
    assert serve(encode(assemble(text)).hex(), "01 02") == (0, "109\n", "")


def test_a_call_through_a_register_can_reach_a_helper() -> None:
    assert serve(encode(assemble("r2 = 5\ncallx r2\nr0 = 2\nexit")).hex()) == (0, "2\n", "")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_leaves_memory_as_the_program_did(engine: str) -> None:
    memory = bytearray(b"abcd")
    assert ENGINES[engine](assemble("*(u16 *)(r1 + 1) = 0x5a5a\nr0 = r2\nexit"), memory) == 4
    assert memory == b"aZZd"


def test_an_engine_is_chosen_by_name() -> None:
    def count(insns: tuple[Insn, ...], memory: bytearray) -> int:
        return len(insns) * 16 + len(memory)

    engines: dict[str, Engine] = {"one": lambda insns, memory: 1, "count": count}
    assert serve(ANSWER.hex(), "00 00 00", "--engine", "count", engines=engines) == (0, "23\n", "")
    assert serve(ANSWER.hex(), "00 00 00", "--engine=count", engines=engines) == (0, "23\n", "")
    assert serve(ANSWER.hex(), "00 00 00", engines=engines) == (0, "1\n", "")


@pytest.mark.parametrize(
    ("program", "argv", "code", "message"),
    [
        ("zz", (), 3, "the program is not hexadecimal"),
        (ANSWER.hex(), ("0g",), 3, "the memory is not hexadecimal"),
        (ANSWER.hex()[:-2], (), 3, "[truncated-program]"),
        ("ff" + "00" * 7, (), 1, "[unknown-opcode]"),
        ("b7010000000000009500000000000000", (), 1, "[uninitialized-register]"),
        ("61100000000000009500000000000000", (), 1, "[out-of-bounds]"),
        ("7f454c46", ("--elf",), 3, "stdin"),
        (ANSWER.hex(), ("--fast",), 2, "unexpected argument '--fast'"),
        (ANSWER.hex(), ("--engine", "gpu"), 2, "no engine 'gpu', only interpreter"),
        (ANSWER.hex(), ("--program",), 2, "--program needs the program"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else None,
)
def test_a_problem_is_told_on_stderr(program: str, argv: Sequence[str], code: int, message: str) -> None:
    found, out, problem = serve(program, *argv)
    assert (found, out) == (code, "")
    assert message in problem
