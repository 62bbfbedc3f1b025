"""Programs made to be hard on the verifier: each gets a verdict within the budget of steps."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from time import process_time

import pytest

import bpfc
from bpfc.testing.hostile import SHAPES
from bpfc.verification import MOST_INSNS
from ir.diagnostics import RejectedError, UnreadableError
from ir.kinds import ProgramType
from ir.lift import lift
from ir.object import Reference, ReferenceKind
from ir.verify.arrivals import Effort
from ir.verify.prove import EFFORTS, Report, verify

OBJECTS = Path(__file__).parents[2] / "objects"
RANDOM = "call 7\n"
BUDGET = sum(effort.steps for effort in EFFORTS)


SHORT = Effort(width=1, steps=1000, clamps=True)
TOO_DEEP = ("chain", "callers")
SHORT_ROUNDS = Effort(width=8, steps=1000, clamps=False)


def verdict(text: str, efforts: tuple[Effort, ...] = EFFORTS) -> Report:
    return verify(lift(bpfc.assemble(text).programs["main"], {}), efforts=efforts)


def code(report: Report) -> str:
    return report.diagnostics[0].code if report.diagnostics else ""


def test_a_ladder_of_branches_with_2_to_the_64_paths_is_proved_in_one_pass() -> None:
    rungs = "".join(
        f"{RANDOM}if r0 s> 5 goto L{i}\n*(u64 *)(r10 - {8 * (i % 60 + 1)}) = {i}\nL{i}:\n" for i in range(64)
    )
    report = verdict(f"{rungs}r0 = 0\nexit\n")
    assert report.is_accepted
    assert report.tries == 1


def test_a_sum_over_a_ladder_that_reaches_past_the_stack_is_refused() -> None:
    rungs = "".join(f"{RANDOM}if r0 s> 5 goto L{i}\nr6 += {1 << i % 20}\nL{i}:\n" for i in range(100))
    report = verdict(f"r6 = 0\n{rungs}r1 = r10\nr1 += r6\nr0 = *(u8 *)(r1 - 1)\nr0 = 0\nexit\n")
    assert code(report) == "stack-out-of-bounds"
    assert report.steps <= BUDGET


def test_three_hundred_loops_with_no_head_in_common_are_refused_as_endless() -> None:
    blocks = "".join(
        f"L{i}:\n{RANDOM}if r0 s> {i} goto L{(i * 7919 + 13) % 300}\nif r0 s> 3 goto L{(i * 104729 + 7) % 300}\n"
        for i in range(300)
    )
    assert code(verdict(f"{blocks}r0 = 0\nexit\n")) == "unbounded-loop"


def test_sixty_nested_loops_over_one_counter_are_proved() -> None:
    heads = "".join(f"r6 = 0\nA{i}:\n" for i in range(60))
    ends = "".join(f"if r6 < 1000 goto A{i}\n" for i in reversed(range(60)))
    assert verdict(f"{heads}r6 += 1\n{ends}r0 = 0\nexit\n").is_accepted


@pytest.mark.parametrize(("calls", "wanted"), [(2, ""), (30, "too-complex")])
def test_calls_that_call_the_next_several_times_end_within_the_budget(calls: int, wanted: str) -> None:
    functions = "".join(f"G{i}:\nr0 = 0\n" + f"call G{i + 1}\n" * calls + "exit\n" for i in range(6))
    report = verdict(f"call G0\nr0 = 0\nexit\n{functions}G6:\nr0 = 0\nexit\n", (SHORT,))
    assert code(report) == wanted
    assert report.steps < 2 * SHORT.steps


def test_256_functions_are_verified_and_one_more_is_refused() -> None:
    def chain(count: int) -> str:
        calls = "".join(f"call F{i}\n" for i in range(count))
        return f"{calls}r0 = 0\nexit\n" + "".join(f"F{i}:\nr0 = {i}\nexit\n" for i in range(count))

    assert verdict(chain(255)).is_accepted
    with pytest.raises(RejectedError) as refusal:
        verdict(chain(256))
    assert refusal.value.diagnostics[0].code == "too-many-functions"


def test_a_program_longer_than_the_budget_of_steps_is_gone_through() -> None:
    assert verdict("r0 = 0\n" + "r0 += 1\n" * (2 * SHORT.steps) + "exit\n", (SHORT,)).is_accepted


@pytest.mark.parametrize("name", [name for name in SHAPES if name not in TOO_DEEP])
def test_objects_of_every_hostile_shape_get_a_verdict(name: str) -> None:
    loaded = bpfc.load(SHAPES[name](300))
    (program,) = loaded.programs.values()
    report = verify(lift(program, loaded.object.maps), efforts=(SHORT, SHORT_ROUNDS))
    assert report.is_accepted or report.diagnostics


@pytest.mark.parametrize("name", TOO_DEEP)
def test_calls_of_many_functions_in_each_other_are_refused_by_their_depth(name: str) -> None:
    (report,) = bpfc.load(SHAPES[name](100)).verify().values()
    assert code(report) == "call-depth"


@pytest.mark.parametrize("name", ["nest", "tangle"])
def test_loops_deep_in_each_other_are_refused_before_they_are_gone_through(name: str) -> None:
    (report,) = bpfc.load(SHAPES[name](4000)).verify().values()
    assert code(report) == "too-complex"
    assert "loops within loops" in report.diagnostics[0].message
    assert not report.steps


@pytest.mark.parametrize(("name", "wanted"), [("acquired", 1), ("calls", 1)])
def test_what_runs_out_of_steps_without_a_loop_is_not_tried_again(name: str, wanted: int) -> None:
    (report,) = bpfc.load(SHAPES[name](600)).verify().values()
    assert code(report) == "too-complex"
    assert report.tries == wanted


def test_a_program_of_more_instructions_than_are_verified_is_refused_by_their_number() -> None:
    (report,) = bpfc.load(SHAPES["straight"](MOST_INSNS)).verify().values()
    assert code(report) == "too-many-insns"
    assert str(MOST_INSNS) in report.diagnostics[0].message


@pytest.mark.parametrize("seed", range(25))
def test_objects_with_corrupt_types_get_a_verdict_or_a_diagnostic(seed: int) -> None:
    data = bytearray((OBJECTS / "kfuncs.o").read_bytes())
    magic = data.index(b"\x9f\xeb\x01\x00")
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(magic + 24, magic + 1500)] ^= 1 << chance.randrange(8)
    try:
        reports = bpfc.load(bytes(data)).verify()
    except (UnreadableError, RejectedError) as error:
        found = [str(diagnostic) for diagnostic in error.diagnostics]
    else:
        found = [report.name for report in reports.values() if report.is_accepted or report.diagnostics]
    assert found


def test_pointers_mixed_with_numbers_in_every_way_are_too_complex_for_those_without_capabilities() -> None:
    rungs = "".join(
        f"{RANDOM}r{6 + i % 4} = r10\nif r0 s> 5 goto L{i}\nr{6 + i % 4} = {i}\n"
        f"L{i}:\n*(u64 *)(r10 - {8 * (i + 1)}) = r{6 + i % 4}\n"
        for i in range(60)
    )
    module = lift(
        bpfc.assemble(f"{rungs}r0 = 0\nexit\n", type=ProgramType.SOCKET_FILTER).programs["main"], {}
    )
    assert code(verify(module)) == ""
    assert code(verify(module, unprivileged=True)) == "too-complex"


def test_a_loop_that_asks_an_iterator_thousands_of_times_is_judged_in_linear_time() -> None:
    def asking(count: int) -> Report:
        asks = "r1 = r10\nr1 += -8\ncall 1\nif r0 == 7 goto +0\n" * count
        text = f"r1 = r10\nr1 += -8\nr2 = 0\nr3 = 9\ncall 0\nl:\n{asks}call 7\nif r0 != 3 goto l\n"
        program = bpfc.assemble(
            f"{text}r1 = r10\nr1 += -8\ncall 2\nr0 = 0\nexit", type=ProgramType.XDP
        ).program("main")
        names = [f"bpf_iter_num_{name}" for name in ("new", "next", "destroy")]
        calls = {i: insn.imm for i, insn in enumerate(program.insns) if insn.opcode == 0x85 and insn.imm < 3}
        insns = [insn._replace(src=2) if i in calls else insn for i, insn in enumerate(program.insns)]
        references = {i: Reference(ReferenceKind.KFUNC, names[number]) for i, number in calls.items()}
        return verify(lift(replace(program, insns=tuple(insns), references=references), {}), "GPL")

    begin = process_time()
    assert code(asking(4000)) == "unbounded-loop"
    assert process_time() - begin < 6  # 0.9 where it was written, 12 when it took the square of time


def test_registers_that_may_be_unwritten_are_asked_about_in_linear_time() -> None:
    loaded = bpfc.load(SHAPES["unwritten"](64_000))
    (program,) = loaded.object.programs.values()
    begin = process_time()
    module = lift(program, loaded.object.maps)
    assert process_time() - begin < 5  # 1.1 where it was written, 11 when it took the square of time
    assert len(module.main.blocks) == 64_001
