"""`obj.verify()`: verdicts as values, raised only on request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import bpfc
from bpfc.verification import verify_program
from ir.btf import read_btf
from ir.btf_encode import encode_btf
from ir.btf_types import Function, Prototype
from ir.isa import Insn
from ir.kinds import MapType, ProgramType
from ir.object import Map

ROOT = Path(__file__).parents[3]


def test_a_safe_object_is_ok() -> None:
    report = bpfc.load(ROOT / "tests/objects/xdp_stats.o").verify()
    assert report.ok
    assert list(report) == ["xdp_stats"]
    assert report["xdp_stats"].diagnostics == ()
    report.raise_for_status()


@pytest.mark.parametrize("text", ["r0 = *(u64 *)(r10 - 520)\nexit", "r0 = r3\nexit", "l: goto l"])
def test_an_unsafe_program_is_reported_and_raised_on_request(text: str) -> None:
    report = bpfc.assemble(text).verify()
    assert not report.ok
    assert report["main"].diagnostics[0].at.insn == 0
    with pytest.raises(bpfc.RejectedError):
        report.raise_for_status()


def test_without_hardening_only_proved_programs_run() -> None:
    strict = bpfc.Options(hardened=False)
    with bpfc.assemble("r0 = 7\nexit").start(strict) as runtime:
        assert runtime["main"].run(b"").ret == 7
    unproved = bpfc.assemble("r0 = *(u8 *)(r1 + 0)\nexit")
    with unproved.start(strict) as runtime, pytest.raises(bpfc.RejectedError):
        runtime["main"]
    with unproved.start() as runtime:
        assert runtime["main"].run(b"\x05").ret == 5


@pytest.mark.parametrize("level", ["O0", "O1", "O2"])
@pytest.mark.parametrize("hardened", [True, False])
def test_what_a_proof_shows_is_never_run_need_not_be_right(level: str, hardened: bool) -> None:
    text = """
        r1 = 0
        r3 = 5
        r0 = 0
        r0 = cmpxchg_64(r10 - 48, r0, r3)
        *(u64 *)(r10 - 8) = r1
        r4 = *(u16 *)(r10 - 8)
        r0 = 7
        if r4 == 0 goto out
        r0 = *(u64 *)(r10 - 520)
    out:
        exit
    """
    loaded = bpfc.assemble(text)
    assert loaded.verify().ok
    with loaded.start(bpfc.Options(level=level, hardened=hardened, cache=False)) as runtime:
        assert runtime["main"].run(b"").ret == 7


def test_what_may_be_run_has_to_be_right() -> None:
    text = "r4 = *(u8 *)(r1 + 0)\nr0 = 7\nif r4 == 0 goto out\nr0 = *(u64 *)(r10 - 520)\nout:\nexit"
    with bpfc.assemble(text).start() as runtime, pytest.raises(bpfc.RejectedError):
        runtime["main"]


def test_an_infrared_program_reads_its_sample_whole() -> None:
    reads = {size: f"r0 = *(u{size} *)(r1 + 0)\nr0 = 0\nexit" for size in (8, 32, 64)}
    verdicts = {
        size: bpfc.assemble(text, type=ProgramType.LIRC_MODE2).verify().ok for size, text in reads.items()
    }
    assert verdicts == {8: False, 32: True, 64: False}


def test_a_global_function_has_to_return_a_number() -> None:
    source = bpfc.load(ROOT / "tests/objects/extended.o").object
    assert source.btf is not None
    program = source.programs["adds_value"]
    called = next(function for function in program.functions if function.name == "adds")
    types = [source.btf.type(id) for id in source.btf.ids() if id]
    type = types[called.btf_id - 1]
    assert isinstance(type, Function)
    prototype = types[type.type_id - 1]
    assert isinstance(prototype, Prototype)
    types[type.type_id - 1] = replace(prototype, returns=0)
    assert verify_program(source, program).is_accepted
    report = verify_program(replace(source, btf=read_btf(encode_btf(types))), program)
    assert [found.code for found in report.diagnostics] == ["global-function"]
    assert "'adds' does not return a number" in report.diagnostics[0].message


def test_a_wide_load_that_nobody_bound_is_refused() -> None:
    source = bpfc.assemble("r1 = 0 ll\nr0 = 0\nexit").object
    program = source.programs["main"]
    insns = (Insn(0x18, 1, 1, 0, 7), *program.insns[1:])
    report = verify_program(source, replace(program, insns=insns))
    assert [found.code for found in report.diagnostics] == ["bad-map-descriptor"]


STALE = """
    r6 = r1
    r7 = *(u32 *)(r1 + 0)
    r3 = *(u32 *)(r1 + 4)
    r4 = r7
    r4 += 14
    if r4 > r3 goto out
    r1 = r6
    r2 = -4
    call 44
    r0 = *(u8 *)(r7 + 12)
out:
    r0 = 2
    exit
"""


def test_a_pointer_from_before_the_packet_moved_is_told_from_a_number() -> None:
    (found,) = bpfc.assemble(STALE, type=ProgramType.XDP).verify()["main"].diagnostics
    assert found.code == "not-a-pointer"
    assert "through a pointer that 'call bpf_xdp_adjust_head' at insn 8 made invalid" in found.message
    assert found.why is not None
    assert [cause.assembly for cause in found.why.causes if cause.remark == "made invalid here"] == [
        "call bpf_xdp_adjust_head"
    ]


def test_a_register_that_a_call_took_is_told_from_one_never_written() -> None:
    (found,) = (
        bpfc.assemble("r2 = 1\ncall 5\nr0 = r2\nexit", type=ProgramType.XDP).verify()["main"].diagnostics
    )
    assert found.message == "register r2 is read after the call at insn 1, which keeps r6 to r9 only"
    (found,) = bpfc.assemble("call 5\nr0 = r7\nexit", type=ProgramType.XDP).verify()["main"].diagnostics
    assert found.message == "register r7 is read before it is written"


def test_a_refused_call_of_a_kernel_function_names_it() -> None:
    report = bpfc.load(ROOT / "tests/objects/own_kfuncs.o").verify()
    (found,) = next(one.diagnostics for one in report.values() if one.diagnostics)
    assert found.why is not None
    assert found.why.assembly.startswith("call ")
    assert "kfunc(" not in found.why.assembly


@pytest.mark.parametrize(("sets", "code"), [("r0 = 0", ""), ("r1 = 0", "uninitialized-register")])
def test_a_callback_has_to_return_something(sets: str, code: str) -> None:
    text = f"r1 = 3\nr2 = func(body)\nr3 = 0\nr4 = 0\ncall 181\nr0 = 0\nexit\nbody:\n{sets}\nexit"
    report = bpfc.assemble(text, type=ProgramType.XDP).verify()["main"]
    assert [found.code for found in report.diagnostics] == ([code] if code else [])


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_a_register_that_one_way_leaves_unwritten_is_read_on_the_other(level: str) -> None:
    text = """
        r2 = *(u32 *)(r1 + 0)
        r3 = *(u32 *)(r1 + 4)
        r4 = r2
        r4 += 14
        r6 = 0
        if r4 > r3 goto short
        r5 = *(u8 *)(r2 + 12)
        r6 = 1
    short:
        r0 = 2
        if r6 == 0 goto out
        r0 = r5
    out:
        exit
    """
    with bpfc.assemble(text, type=ProgramType.XDP).start(bpfc.Options(level=level, cache=False)) as runtime:
        assert [runtime["main"].run(data).ret for data in (bytes(range(20)), bytes(3))] == [12, 2]


@pytest.mark.parametrize(("index", "code"), [(63, ""), (64, "map-value-out-of-bounds")])
def test_what_a_callback_leaves_together_is_known_together(index: int, code: str) -> None:
    text = f"""
        *(u64 *)(r10 - 8) = 0
        *(u64 *)(r10 - 16) = 1000
        r1 = 4
        r2 = func(body)
        r3 = r10
        r3 += -16
        r4 = 0
        call 181
        r2 = *(u64 *)(r10 - 8)
        if r2 == 0 goto out
        r3 = *(u64 *)(r10 - 16)
        r4 = map_value(4, 0)
        r4 += r3
        r2 = *(u8 *)(r4 + 0)
    out:
        r0 = 0
        exit
    body:
        r0 = 0
        if r1 == 2 goto skip
        *(u64 *)(r2 + 8) = 1
        *(u64 *)(r2 + 0) = {index}
        r0 = 1
    skip:
        exit
    """
    maps = {4: Map("m", MapType.ARRAY, 4, 64, 1)}
    report = bpfc.assemble(text, type=ProgramType.XDP, maps=maps).verify()["main"]
    assert [found.code for found in report.diagnostics] == ([code] if code else [])


def test_a_read_of_a_register_that_was_not_written_names_the_branches_that_led_there() -> None:
    text = """
        r2 = *(u32 *)(r1 + 0)
        r3 = *(u32 *)(r1 + 4)
        r2 += 14
        if r2 > r3 goto other
        r5 = 1
    other:
        r0 = r5
        exit
    """
    (found,) = bpfc.assemble(text, type=ProgramType.XDP).verify()["main"].diagnostics
    assert found.at.insn == 5
    assert found.why is not None
    assert [(cause.at.insn, cause.remark) for cause in found.why.causes] == [(3, "taken")]


def test_of_many_loops_that_may_never_end_it_is_always_the_same_that_is_named() -> None:
    """Whatever was in memory before."""
    count = 20
    tests = "".join(f"if r0 == {i} goto l{i}\n" for i in range(count))
    loops = "".join(f"l{i}:\ncall 7\nif r0 == {i} goto l{i}\nr0 = 0\nexit\n" for i in range(count))
    loaded = bpfc.assemble(f"call 7\n{tests}r0 = 0\nexit\n{loops}", type=ProgramType.XDP)
    named: set[tuple[str, int | None]] = set()
    kept: list[list[object]] = []
    for size in range(12):
        (found,) = loaded.verify()["main"].diagnostics
        named.add((found.code, found.at.insn))
        kept.append([object() for _ in range(1000 * size)][::3])
    assert named == {("unbounded-loop", 24)}


@pytest.mark.parametrize(
    ("store", "said", "hint"),
    [
        ("*(u16 *)(r1 + 8) = 1", "which write other widths there", "the width that it has"),
        ("*(u32 *)(r1 + 0) = 1", "which may only read what is there", "leave the field as it is"),
        ("*(u32 *)(r1 + 1000) = 1", "in SCHED_CLS programs", "no field that may be written is there"),
    ],
)
def test_a_refused_store_to_the_context_says_what_may_be_written_there(
    store: str, said: str, hint: str
) -> None:
    (found,) = (
        bpfc.assemble(f"{store}\nr0 = 0\nexit", type=ProgramType.SCHED_CLS).verify()["main"].diagnostics
    )
    assert (found.code, found.message.endswith(said)) == ("context-access", True)
    assert found.why is not None
    assert hint in found.why.hint
