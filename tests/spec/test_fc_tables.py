"""Pointers to functions, loaded and called: FC-15 and FC-19."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

import bpfc
from bpfc import Options, RejectedError, TrapError
from bpfc.symbols import call_table, list_calls, program_info
from bpfc.testing.kernel import load_program, run_program
from ir.asm import assemble as parse
from ir.environment import Environment
from ir.evaluate import Evaluator
from ir.functions import function_table
from ir.interpreter import Machine
from ir.isa import WIDE_OPCODE, slot_numbers
from ir.kinds import ProgramType
from ir.lift import lift
from ir.pipeline import DEFAULT
from ir.segments import Memory, make_segment
from runtime.bpf_syscall import KernelError

OBJECT = Path(__file__).parent.parent / "objects" / "tables.o"
PACKET = bytes(64)
RODATA = 0x2_0000_0000
CONTEXT = 0x1_0000_0000
FAST = Options(level="O0")

CALLBACK = """
r1 = 5
r2 = func(sum)
r3 = r10
r3 += -8
*(u64 *)(r10 - 8) = 100
r4 = 0
call 181
r0 = func(sum)
exit
sum:
r3 = *(u64 *)(r2 + 0)
r3 += r1
*(u64 *)(r2 + 0) = r3
r0 = 0
exit
"""
BY_INDEX = """
r0 = 99
if r2 >= 8 goto +1
exit
r2 = *(u64 *)(r1 + 0)
{bound}
r2 <<= 3
r3 = map_value(3, 0)
r3 += r2
r4 = *(u64 *)(r3 + 0)
{change}
r1 = 17
r2 = 5
callx r4
exit
first: r0 = r1
r0 += r2
exit
second: r0 = r1
r0 -= r2
exit
third: r0 = r1
r0 *= r2
exit
fourth: r0 = r1
r0 %= r2
exit
"""
UP_TO_3 = "if r2 <= 3 goto +1\nexit"
UP_TO_4 = "if r2 <= 4 goto +1\nexit"
ANSWERS = (22, 12, 85, 2)
PROVED = {
    "proved": [*ANSWERS, 99, 99],
    "masked": [*ANSWERS, 22, 12],
    "optional": [22, 99, 85, 99, 22, 99],
    "nested": [12, 24, 12, 24, 12, 24],
    "deep": [34, 274, 34, 274, 34, 274],
    "strided": [22085, 12002, 85022, 99, 99, 99],
    "handed_on": [*ANSWERS, 22, 12],
    "pointers": [6435, 101730, 6435, 101730, 6435, 101730],
    "returned": [7, 8, 7, 8, 7, 8],
}
REFUSED = {
    "too_far": "indirect-call",
    "modified": "pointer-arithmetic",
    "recursive": "recursion",
    "half": "indirect-call",
    "unaligned": "indirect-call",
    "from_map": "indirect-call",
    "tail_calls": "indirect-call",
    "takes_global": "indirect-call",
    "too_deep": "combined-stack",
    "unset": "uninitialized-register",
}


def is_big_here() -> bool:
    """Whether programs are big-endian on the machine that the case runs on."""
    return bpfc.assemble("exit").program("main").big_endian


def by_index(
    bound: str = UP_TO_3, change: str = "r5 = 0", holes: int = 0, big_endian: bool | None = None
) -> bpfc.Loaded:
    """A program on raw memory that calls the function of a table whose index is the first word, else returns 99."""
    big_endian = is_big_here() if big_endian is None else big_endian
    text = BY_INDEX.format(bound=bound, change=change)
    slots = [slot_of(text, name) for name in ("first", "second", "third", "fourth")]
    table = function_table("table", [*slots, *[None] * holes], big_endian)
    return bpfc.assemble(text, maps={3: table}, big_endian=big_endian)


def slot_of(text: str, label: str) -> int:
    """The slot of the instruction behind a label."""
    return slot_numbers(parse(text[: text.index(f"{label}:")]))[-1]


def index(number: int, order: Literal["little", "big"] | None = None) -> bytes:
    return number.to_bytes(8, order or ("big" if is_big_here() else "little"))


def interpret(loaded: bpfc.Loaded, data: bytes, as_ssa: bool = False) -> int:
    """r0 by the interpreter, of the instructions or of the SSA form after the passes."""
    program = loaded.program("main")
    table = loaded.maps["table"]
    segments = (
        make_segment(CONTEXT, bytearray(data), "memory"),
        make_segment(RODATA, bytearray(table.initial or b""), "table", writable=False),
    )
    memory = Memory(segments, program.big_endian)
    environment = Environment(resolve=lambda reference: RODATA + reference.offset)
    if not as_ssa:
        return Machine(program, memory, environment).run(CONTEXT, len(data)).ret
    module = lift(program, loaded.maps)
    DEFAULT.run(module)
    return Evaluator(module, memory, environment).run(CONTEXT, len(data))


def xdp_result(runtime: bpfc.Runtime, name: str, number: int) -> int:
    return runtime[name].run(PACKET, {"ingress_ifindex": number, "rx_queue_index": 17}).ret


def test_fc_15_a_function_pointer_equals_its_table_entry_and_is_shown_as_a_distance() -> None:
    loaded = bpfc.assemble(CALLBACK)
    with loaded.start(FAST) as runtime:
        program = runtime["main"]
        with call_table(program) as table:
            assert program.run(b"").ret == table["subprog_1"] == table[1]
            assert table[0] == program.image.address_of("main")
            assert program_info(program, 2).jited_ksyms == (table[0], table[1])
        shown = list(list_calls(program.program))
        assert (shown[1], shown[7]) == ("   1: r2 = func(pc+9)", "   8: r0 = func(pc+2)")
        loads = [insn.imm for insn in program.program.insns if insn.opcode == WIDE_OPCODE]
        assert loads == [9, 2]
    called = CALLBACK.replace("r0 = func(sum)", "r0 = *(u64 *)(r10 - 8)")
    with bpfc.assemble(called).start(FAST) as runtime:
        assert runtime["main"].run(b"").ret == 100 + 0 + 1 + 2 + 3 + 4


@pytest.mark.parametrize("level", ["O0", "O1", "O2"])
def test_fc_19_a_proved_index_calls_the_right_function(level: str) -> None:
    loaded = by_index()
    assert loaded.verify().ok
    with loaded.start(Options(level=level, hardened=False)) as runtime:
        seen = [runtime["main"].run(index(number)).ret for number in (0, 1, 2, 3, 4, 1 << 63)]
    assert seen == [*ANSWERS, 99, 99]


@pytest.mark.parametrize(("bound", "holes"), [(UP_TO_4, 0), (UP_TO_4, 1), ("r2 &= 7", 4)])
def test_fc_19_an_index_that_may_be_4_is_refused(bound: str, holes: int) -> None:
    loaded = by_index(bound, holes=holes)
    (problem,) = loaded.verify()["main"].diagnostics
    assert problem.code == ("indirect-call" if holes else "map-value-out-of-bounds")
    with loaded.start(Options(hardened=False)) as runtime, pytest.raises(RejectedError):
        assert runtime["main"]
    with loaded.start() as runtime:
        assert runtime["main"].run(index(3)).ret == 2
        with pytest.raises(TrapError):
            runtime["main"].run(index(4))


def test_fc_19_an_index_is_known_in_the_blocks_after_it() -> None:
    """A stride of 24 is no mask: only the index, of another block, tells the four places that are loaded from."""
    apart = "r5 = *(u64 *)(r1 + 0)\nif r5 == 7 goto +1\nr0 = 98\nr4 = *(u64 *)(r3 + 0)"
    text = BY_INDEX.replace("r2 <<= 3", "r2 *= 24").replace("r4 = *(u64 *)(r3 + 0)", apart)
    text = text.format(bound=UP_TO_3, change="r5 = 0")
    slots = [slot_of(text, name) for name in ("first", "second", "third", "fourth")]
    table = function_table("table", [word for slot in slots for word in (slot, None, None)], is_big_here())
    loaded = bpfc.assemble(text, maps={3: table})
    assert loaded.verify().ok
    with loaded.start(Options(hardened=False)) as runtime:
        assert [runtime["main"].run(index(number)).ret for number in range(4)] == [*ANSWERS]


@pytest.mark.parametrize(
    "change", ["r4 += 8", "r4 |= 8", "r4 += r2", "w4 = w4", "r4 = -r4", "r4 = be64 r4", "r4 -= r2"]
)
def test_fc_19_a_modified_pointer_is_refused(change: str) -> None:
    assert not by_index(change=change).verify().ok


@pytest.mark.parametrize(
    ("load", "code"),
    [
        ("r4 = *(u32 *)(r3 + 0)", "indirect-call"),
        ("r4 = *(u64 *)(r3 + 4)", "map-value-out-of-bounds"),
        ("r4 = *(u64 *)(r10 - 8)", "indirect-call"),
    ],
)
def test_fc_19_only_whole_aligned_words_of_read_only_data_are_functions(load: str, code: str) -> None:
    text = BY_INDEX.replace("r4 = *(u64 *)(r3 + 0)", load)
    text = text.format(bound=UP_TO_3, change="*(u64 *)(r10 - 8) = 0")
    slots = [slot_of(text, name) for name in ("first", "second", "third", "fourth")]
    table = function_table("table", slots, is_big_here())
    (problem,) = bpfc.assemble(text, maps={3: table}).verify()["main"].diagnostics
    assert problem.code == code
    writable = replace(table, is_read_only=False, flags=0)
    proved = BY_INDEX.format(bound=UP_TO_3, change="r5 = 0")
    (problem,) = bpfc.assemble(proved, maps={3: writable}).verify()["main"].diagnostics
    assert problem.code == "indirect-call"


def test_fc_19_a_spilled_pointer_may_be_called() -> None:
    change = "*(u64 *)(r10 - 8) = r4\nr4 = *(u64 *)(r10 - 8)"
    loaded = by_index(UP_TO_3, change)
    assert loaded.verify().ok
    with loaded.start(Options(hardened=False)) as runtime:
        assert [runtime["main"].run(index(number)).ret for number in range(4)] == [*ANSWERS]


def test_fc_19_a_function_pointer_of_the_program_itself_may_be_called_with_the_context() -> None:
    text = "r2 = func(sub)\ncallx r2\nr0 += 1\nexit\nsub:\nr0 = *(u32 *)(r1 + 12)\nexit"
    loaded = bpfc.assemble(text, type=ProgramType.XDP)
    assert loaded.verify().ok
    with loaded.start(Options(hardened=False)) as runtime:
        assert runtime["main"].run(PACKET, {"ingress_ifindex": 41}).ret == 42


@pytest.mark.parametrize("name", PROVED)
def test_fc_19_tables_that_clang_made_are_proved_and_called(name: str) -> None:
    loaded = bpfc.load(OBJECT)
    assert loaded.verify(name).ok
    with loaded.start(Options(hardened=False)) as runtime:
        assert [xdp_result(runtime, name, number) for number in range(6)] == PROVED[name]


def test_fc_19_a_function_of_a_struct_is_found_by_its_number() -> None:
    with bpfc.load(OBJECT).start(Options(hardened=False)) as runtime:
        assert [xdp_result(runtime, "by_name", number) for number in (7, 9, 11, 8)] == [22, 85, 2, 99]


@pytest.mark.parametrize("name", REFUSED)
def test_fc_19_what_cannot_be_proved_of_clangs_tables_is_refused(name: str) -> None:
    (problem,) = bpfc.load(OBJECT).verify(name)[name].diagnostics
    numbers = {"recursion": errno.E2BIG, "indirect-call": errno.EINVAL}
    assert (problem.code, problem.errno) == (REFUSED[name], numbers.get(REFUSED[name], errno.EACCES))


def test_fc_19_a_program_has_the_functions_of_the_tables_it_uses_and_no_others() -> None:
    programs = bpfc.load(OBJECT).programs
    assert [info.name for info in programs["optional"].functions] == ["optional", "add", "multiply"]
    assert [info.name for info in programs["from_map"].functions] == ["from_map"]
    assert len({*programs["proved"].tokens.values()}) == 4


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 77])
@pytest.mark.parametrize("as_ssa", [False, True], ids=["insns", "ssa"])
def test_fc_19_the_interpreters_agree_with_native_code(number: int, as_ssa: bool) -> None:
    with by_index().start() as runtime:
        expected = runtime["main"].run(index(number)).ret
    assert interpret(by_index(), index(number), as_ssa) == expected == (*ANSWERS, 99, 99)[min(number, 4)]


@pytest.mark.kernel
def test_fc_19_the_kernel_agrees_or_does_not_know_the_form() -> None:
    """Linux 6.18 refuses opcode 0x8d; one that takes it must say what bpfc says."""
    insns = parse("r1 = 17\nr2 = 5\nr3 = func(sum)\ncallx r3\nexit\nsum: r0 = r1\nr0 += r2\nexit")
    answer: object
    try:
        with load_program(insns) as program:
            answer = run_program(program).ret
    except KernelError as error:
        answer = (error.errno, "unknown opcode 8d" in error.log)
    assert answer in (22, (errno.EINVAL, True))
