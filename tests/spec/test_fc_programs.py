"""Acceptance cases of 64-bit calls that take whole programs: FC-01 to FC-03, FC-10 to FC-16."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import bpfc
from bpfc import Loaded, Options, RejectedError
from bpfc.symbols import call_index, call_table, list_calls, name_for_perf, program_info, symbols_of, tag_of
from ir.diagnostics import DiagnosticError
from ir.encoding import encode
from ir.functions import discover_functions
from ir.isa import Insn
from ir.object import Program

OBJECT = Path(__file__).parent.parent / "objects" / "static_keys.o"
CALL = "r1 = 7\ncall pc+1\nexit\nr0 = r1\nr0 += 35\nexit"
THREE = "r1 = 7\ncall pc+2\ncall pc+3\nexit\nr0 = 1\nexit\nr0 = 2\nexit"
FAST = Options(level="O0")


def fan_out(functions: int) -> str:
    """Main calls each of the others."""
    others = functions - 1
    calls = [f"call pc+{others + number}" for number in range(others)]
    return "\n".join(["r0 = 0", *calls, "exit", *[f"r0 = {number}\nexit" for number in range(others)]])


def chain(functions: int) -> str:
    """Each function calls the next."""
    return "call pc+1\nexit\n" * (functions - 1) + "r0 = 42\nexit"


def refusal(loaded: Loaded) -> RejectedError:
    with loaded.start(FAST) as runtime, pytest.raises(RejectedError) as caught:
        assert runtime["main"]
    return caught.value


def test_fc_01_main_calls_a_subprogram_and_is_the_first_of_two() -> None:
    with bpfc.assemble(CALL).start(FAST) as runtime:
        assert runtime["main"].run(b"").ret == 42
        symbols = symbols_of(runtime["main"])
        assert [symbol.name.split("_", 3)[3] for symbol in symbols] == ["main", "subprog_1"]
        with call_table(runtime["main"]) as table:
            assert table.names == ("main", "subprog_1")
            assert [table[0], table[1]] == [symbol.address for symbol in symbols]


def test_fc_02_256_functions_are_accepted_and_257_are_not() -> None:
    with bpfc.assemble(fan_out(256)).start(FAST) as runtime:
        assert runtime["main"].run(b"").ret == 254
    assert refusal(bpfc.assemble(fan_out(257))).errno == errno.E2BIG


def test_fc_03_calls_nest_8_deep_and_not_9() -> None:
    with bpfc.assemble(chain(8)).start(FAST) as runtime:
        assert runtime["main"].run(b"").ret == 42
    error = refusal(bpfc.assemble(chain(9)))
    assert (error.errno, "9" in error.diagnostics[0].message) == (errno.E2BIG, True)


@pytest.mark.parametrize("call", ["call pc+5", "call pc-3", "call pc+1"])
def test_fc_10_a_call_to_no_function_is_refused_before_anything_is_compiled(call: str) -> None:
    text = f"{call}\nexit\nr0 = 0 ll\nexit" if call != "call pc+1" else "call pc+2\nexit\nr0 = 0 ll\nexit"
    loaded = bpfc.assemble(text)
    with loaded.start(FAST) as runtime:
        before = executable_memory()
        with pytest.raises(RejectedError) as caught:
            assert runtime["main"]
        assert caught.value.errno == errno.EINVAL
        assert executable_memory() == before
    assert loaded.verify()["main"].diagnostics[0].errno == errno.EINVAL


EXIT, ZERO = Insn(0x95), Insn(0xB7, 0, 0, 0, 0)
BAD_CALLS = {
    **{f"source {source}": Insn(0x85, 0, source, 0, 1) for source in range(3, 16)},
    "a destination": Insn(0x85, 1, 1, 0, 1),
    "an offset": Insn(0x85, 0, 1, 1, 1),
    "callx with a source": Insn(0x8D, 1, 1, 0, 0),
    "callx with an offset": Insn(0x8D, 1, 0, 1, 0),
    "callx with an immediate": Insn(0x8D, 1, 0, 0, 1),
    "callx of the 32-bit class": Insn(0x8E, 1, 0, 0, 0),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_fields_that_a_call_does_not_have_are_einval(name: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        bpfc.from_bytes(encode((BAD_CALLS[name], EXIT, ZERO, EXIT)))
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("distances", [(-1,), (1, -3), (1, 1, -5)])
def test_recursion_is_e2big(distances: tuple[int, ...]) -> None:
    insns = [insn for distance in distances for insn in (Insn(0x85, 0, 1, 0, distance), EXIT)]
    loaded = bpfc.from_bytes(encode(tuple(insns)))
    assert loaded.verify()["main"].diagnostics[0].errno == errno.E2BIG
    assert refusal(loaded).errno == errno.E2BIG


def executable_memory() -> list[str]:
    """The mappings of this process that can be executed."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.split()[0] for line in lines if "x" in line.split()[1]]


def test_fc_11_calls_are_shown_with_distance_and_symbol() -> None:
    program = bpfc.assemble(THREE).program("main")
    tags = [tag_of(program, info) for info in program.functions]
    lines = list(list_calls(program))
    assert lines[1] == f"   1: call pc+2#bpf_prog_{tags[1]}_subprog_1"
    assert lines[2] == f"   2: call pc+3#bpf_prog_{tags[2]}_subprog_2"
    assert [call_index(program, slot) for slot in (1, 2)] == [1, 2]
    assert len({*tags}) == 3


def test_fc_12_without_symbols_calls_show_addresses_or_the_distance_alone() -> None:
    program = bpfc.assemble(THREE).program("main")
    shown = list(list_calls(program, {"subprog_1": 0x7F00_0000_1000, "subprog_2": 0x10}))
    assert shown[1:3] == ["   1: call pc+2#0x7f0000001000", "   2: call pc+3#0x10"]
    assert list(list_calls(program, {}))[1:3] == ["   1: call pc+2", "   2: call pc+3"]


def test_fc_13_a_distance_beyond_16_bits_is_shown_whole() -> None:
    filler = (Insn(0xB7, 0, 0, 0, 1),) * 39_999
    end = Insn(0x95)
    insns = (Insn(0x85, 0, 1, 0, 40_000), *filler, end, Insn(0xB7, 0, 0, 0, 2), end)
    program = Program(
        "main", "", bpfc.assemble(CALL).program("main").type, insns, discover_functions(insns, "main")
    )
    assert next(iter(list_calls(program))).startswith("   0: call pc+40000#bpf_prog_")


@pytest.mark.parametrize("capacity", [0, 1, 3, 9])
def test_fc_14_info_counts_all_functions_and_copies_what_there_is_room_for(capacity: int) -> None:
    with bpfc.assemble(THREE).start(FAST) as runtime:
        running = runtime["main"]
        info = program_info(running, capacity)
        assert (info.nr_jited_ksyms, info.nr_jited_func_lens, info.nr_prog_tags) == (3, 3, 3)
        copied = min(capacity, 3)
        found = [len(part) for part in (info.jited_ksyms, info.jited_func_lens, info.prog_tags)]
        assert found == [copied] * 3
        assert list(info.jited_ksyms) == [
            running.image.address_of(name) for name in ("main", "subprog_1", "subprog_2")[:copied]
        ]


def test_fc_16_subprograms_that_a_program_does_not_call_are_not_in_it() -> None:
    with bpfc.load(OBJECT).start(FAST) as runtime:
        for name, functions in (("unlikely", ["unlikely"]), ("with_callee", ["with_callee", "callee"])):
            running = runtime[name]
            assert [info.name for info in running.program.functions] == functions
            assert [symbol.name[26:] for symbol in symbols_of(running)] == functions


def test_names_for_perf_are_those_of_the_symbols(tmp_path: Path) -> None:
    with bpfc.assemble(CALL).start(FAST) as runtime:
        name_for_perf(runtime["main"], tmp_path / "perf.map")
        lines = (tmp_path / "perf.map").read_text().splitlines()
        for symbol in symbols_of(runtime["main"]):
            assert f"{symbol.address:x} {symbol.length:x} {symbol.name}" in lines
