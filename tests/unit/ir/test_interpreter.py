"""The reference interpreter: calls, contexts, control by fuel and budgets, and what traps."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import pytest

from ir.asm import assemble
from ir.context import HEADER, XDP_MD, Pointer
from ir.diagnostics import TrapError
from ir.encoding import decode, encode
from ir.environment import FUNCTION_BASE, STACK_BASE, Environment, TailCall
from ir.interpreter import Machine, Outcome
from ir.kinds import ProgramType
from ir.object import FunctionInfo, Program, Reference, ReferenceKind
from ir.segments import Memory, Segment, make_segment

PACKET = 0x20_0000
CONTEXT = 0x10_0000


def make_program(
    text: str,
    type: ProgramType = ProgramType.UNSPEC,
    references: Mapping[int, Reference] | None = None,
    big_endian: bool = False,
) -> Program:
    insns = assemble(text)
    slots = sum(insn.slots for insn in insns)
    functions = (FunctionInfo("main", 0, slots, True),)
    return Program("main", "", type, insns, functions, references=references or {}, big_endian=big_endian)


def run(
    text: str, *arguments: int, environment: Environment | None = None, memory: Memory | None = None
) -> Outcome:
    return Machine(make_program(text), memory, environment).run(*arguments)


def code_of_trap(action: Callable[[], object]) -> tuple[str, int | None]:
    with pytest.raises(TrapError) as caught:
        action()
    (problem,) = caught.value.diagnostics
    return problem.code, problem.at.insn


def make_xdp(packet: bytes) -> tuple[Memory, Segment]:
    """An XDP context at CONTEXT and its packet at PACKET, both writable."""
    image = bytearray(HEADER + XDP_MD.size)
    for pointer, address in ((Pointer.DATA, PACKET), (Pointer.DATA_END, PACKET + len(packet))):
        struct.pack_into("<Q", image, pointer.value, address)
    struct.pack_into("<I", image, HEADER + XDP_MD.fields["ingress_ifindex"][0], 77)
    context = make_segment(CONTEXT, image, "the context")
    return Memory([context, make_segment(PACKET, bytearray(packet), "the packet")]), context


def run_xdp(text: str, packet: bytes = b"\x11\x22\x33\x44") -> Outcome:
    memory, context = make_xdp(packet)
    return Machine(make_program(text, ProgramType.XDP), memory, context=context).run()


def test_a_run_tells_r0_its_length_and_its_registers() -> None:
    outcome = run("r6 = 2\nr0 = r6\nr0 += 3\nexit")
    assert (outcome.ret, outcome.insns) == (5, 4)
    assert outcome.registers == (5, *[None] * 5, 2, *[None] * 3, STACK_BASE + 512)


def test_arguments_arrive_in_registers() -> None:
    assert run("r0 = r1\nr0 -= r2\nexit", 50, 8).ret == 42


def test_every_step_is_traced() -> None:
    seen: list[tuple[int, int | None]] = []
    trace = Environment(trace=lambda slot, registers: seen.append((slot, registers[0])))
    run("r0 = 1 ll\nr0 += 1\nexit", environment=trace)
    assert seen == [(0, None), (2, 1), (3, 2)]


@pytest.mark.parametrize(
    ("text", "insn"),
    [
        ("r0 = r3\nexit", 0),
        ("r3 += 1\nexit", 0),
        ("r0 = 0\n*(u64 *)(r10 - 8) = r4\nexit", 1),
        ("if r2 == 0 goto +0\nexit", 0),
        ("exit", 0),
        ("r0 = 0\ncall f\nr0 += r1\nexit\nf: r0 = 0\nexit", 2),
        ("r6 = 1\ncall f\nexit\nf: r0 = r6\nexit", 3),
        ("r0 = 1\ncall f\nexit\nf: exit", 3),
    ],
)
def test_a_register_without_a_value_is_not_read(text: str, insn: int) -> None:
    assert code_of_trap(lambda: run(text, 0)) == ("uninitialized-register", insn)


def test_registers_are_zero_when_not_strict() -> None:
    assert run("r0 += r3\nexit", environment=Environment(strict=False)).ret == 0


def test_r10_is_not_written() -> None:
    assert code_of_trap(lambda: run("r10 = 0\nexit")) == ("frame-pointer-write", 0)


@pytest.mark.parametrize(
    "text", ["*(u64 *)(r10 + 0) = 0", "*(u64 *)(r10 - 513) = 0", "*(u8 *)(r10 - 513) = 0"]
)
def test_the_stack_has_512_bytes(text: str) -> None:
    assert code_of_trap(lambda: run(f"{text}\nexit")) == ("out-of-bounds", 0)
    assert run("*(u64 *)(r10 - 512) = 5\nr0 = *(u64 *)(r10 - 512)\nexit").ret == 5


def test_a_call_passes_arguments_and_keeps_r6_to_r9() -> None:
    text = """
        r6 = 6
        r9 = 9
        r1 = 30
        r2 = 5
        call f
        r0 += r6
        r0 -= r9
        exit
    f:  r6 = r1
        r9 = r2
        r0 = r6
        r0 += r9
        exit
    """
    assert run(text).ret == 32


def test_each_call_has_a_frame_and_sees_its_callers() -> None:
    text = """
        *(u64 *)(r10 - 8) = 7
        r1 = r10
        r1 += -8
        call f
        r1 = *(u64 *)(r10 - 8)
        r0 += r1
        exit
    f:  *(u64 *)(r10 - 8) = 100
        *(u64 *)(r1 + 0) = 1
        r0 = *(u64 *)(r10 - 8)
        exit
    """
    assert run(text).ret == 101


def test_a_frame_is_gone_when_its_function_has_returned() -> None:
    assert code_of_trap(lambda: run("call f\nr0 = *(u8 *)(r0 - 8)\nexit\nf: r0 = r10\nexit")) == (
        "out-of-bounds",
        1,
    )


def test_calls_nest_eight_frames_deep() -> None:
    text = "r0 = 0\nr1 = {}\ncall f\nexit\nf: if r1 == 0 goto out\nr1 += -1\ncall f\nout: r0 = 1\nexit"
    assert run(text.format(6)).ret == 1
    assert code_of_trap(lambda: run(text.format(7))) == ("call-depth", 6)


def test_a_function_is_called_by_its_address() -> None:
    text = "r2 = func(f)\nr1 = 4\ncallx r2\nexit\nf: r0 = r1\nr0 *= 10\nexit"
    assert run(text).ret == 40
    assert run("r0 = func(f)\nexit\nf: exit").ret == FUNCTION_BASE + 8 * 3


def test_a_small_number_called_is_a_helper() -> None:
    helpers = {5: lambda machine, a, b, c, d, e: a * 2}
    assert run("r1 = 21\nr2 = 5\ncallx r2\nexit", environment=Environment(helpers)).ret == 42


@pytest.mark.parametrize("target", [6, FUNCTION_BASE + 4, FUNCTION_BASE + 8, FUNCTION_BASE + 8 * 99])
def test_nothing_else_is_called(target: int) -> None:
    text = f"r2 = {target} ll\ncallx r2\nexit"
    assert code_of_trap(lambda: run(text)) == ("bad-call", 2)


def test_a_helper_gets_five_arguments_and_clobbers_them() -> None:
    seen: list[tuple[int, ...]] = []

    def helper(machine: Machine, *arguments: int) -> int:
        seen.append(arguments)
        return -1

    text = "r1 = 1\nr2 = -1\ncall 9\nr0 += r{}\nexit"
    assert code_of_trap(lambda: run(text.format(1), environment=Environment({9: helper})))[0] == (
        "uninitialized-register"
    )
    assert seen == [(1, (1 << 64) - 1, 0, 0, 0)]
    assert run(text.format(0), environment=Environment({9: helper})).ret == (1 << 64) - 2


def test_a_missing_helper_or_kfunc_traps() -> None:
    assert code_of_trap(lambda: run("call 9\nexit")) == ("missing-helper", 0)
    assert code_of_trap(lambda: run("call kfunc(3, 0)\nexit")) == ("missing-helper", 0)


def test_a_kfunc_is_called_by_the_name_its_reference_gives() -> None:
    program = make_program(
        "r1 = 3\ncall kfunc(0, 0)\nexit", references={1: Reference(ReferenceKind.KFUNC, "triple")}
    )
    environment = Environment(kfuncs={"triple": lambda machine, a, b, c, d, e: a * 3})
    assert Machine(program, environment=environment).run().ret == 9


def test_a_helper_calls_back_into_the_program() -> None:
    def loop(machine: Machine, count: int, callback: int, context: int, d: int, e: int) -> int:
        return sum(machine.call(callback, index, context) for index in range(count))

    text = """
        r6 = 1000
        r1 = 4
        r2 = func(body)
        r3 = 10
        call 181
        r0 += r6
        exit
    body:
        r0 = r1
        r0 *= r2
        r6 = 0
        exit
    """
    assert run(text, environment=Environment({181: loop})).ret == 1060


def test_a_helper_that_leaves_memory_traps_at_the_call() -> None:
    helpers = {1: lambda machine, a, b, c, d, e: machine.memory.read(a, 8)}
    assert code_of_trap(lambda: run("r1 = 3\ncall 1\nexit", environment=Environment(helpers))) == (
        "out-of-bounds",
        1,
    )


def test_a_tail_call_goes_on_in_the_other_program_with_the_context() -> None:
    other = make_program("r0 = r1\nr0 += 1\nexit")

    def tail_call(machine: Machine, context: int, *rest: int) -> int:
        raise TailCall(other)

    text = "r6 = r1\ncall f\nr0 += 100\nr0 += r6\nexit\nf: call 12\nr0 = 0\nexit"
    assert run(text, 5, environment=Environment({12: tail_call})).ret == 111


def test_tail_calls_end_after_33() -> None:
    calls: list[int] = []
    program = make_program("call 12\nr0 = 3\nexit")

    def tail_call(machine: Machine, *rest: int) -> int:
        calls.append(1)
        raise TailCall(program)

    assert Machine(program, environment=Environment({12: tail_call})).run(0).ret == 3
    assert len(calls) == 34


def test_a_reference_is_resolved_by_the_caller() -> None:
    map_, value = Reference(ReferenceKind.MAP, "counters"), Reference(ReferenceKind.MAP_VALUE, ".data", 16)
    program = make_program(
        "r0 = map_fd(0)\nr1 = map_value(0, 16)\nr0 += r1\nexit", references={0: map_, 2: value}
    )
    values = {map_: 0x7000, value: 0x20}
    assert Machine(program, environment=Environment(resolve=values.__getitem__)).run().ret == 0x7020
    assert code_of_trap(Machine(program).run) == ("unresolved-reference", 0)
    assert code_of_trap(lambda: run("r0 = map_fd(3)\nexit")) == ("unresolved-reference", 0)


def test_a_function_reference_is_the_functions_address() -> None:
    program = make_program(
        "r2 = func(pc+0)\ncallx r2\nexit\nr0 = 8\nexit",
        references={0: Reference(ReferenceKind.FUNCTION, "f", 4)},
    )
    assert Machine(program).run().ret == 8


def test_a_packet_pointer_is_loaded_whole_and_other_fields_as_they_stand() -> None:
    assert run_xdp("r0 = *(u32 *)(r1 + 0)\nexit").ret == PACKET
    assert run_xdp("r0 = *(u32 *)(r1 + 4)\nexit").ret == PACKET + 4
    assert run_xdp("r0 = *(u32 *)(r1 + 12)\nexit").ret == 77
    assert run_xdp("r0 = *(u8 *)(r1 + 12)\nexit").ret == 77
    assert run_xdp("r2 = *(u32 *)(r1 + 0)\nr0 = *(u16 *)(r2 + 1)\nexit").ret == 0x3322


@pytest.mark.parametrize(
    "access",
    [
        "r0 = *(u8 *)(r1 + 0)",
        "r0 = *(u16 *)(r1 + 2)",
        "r0 = *(u64 *)(r1 + 0)",
        "r0 = *(u64 *)(r1 + 8)",
        "r0 = *(u32 *)(r1 + 2)",
        "r0 = *(u32 *)(r1 + 24)",
        "r0 = *(u64 *)(r1 + 20)",
        "*(u32 *)(r1 + 12) = 1",
        "lock *(u32 *)(r1 + 12) += r1",
        "*(u32 *)(r1 + 0) = 1",
    ],
)
def test_the_context_is_accessed_by_its_fields_only(access: str) -> None:
    assert code_of_trap(lambda: run_xdp(f"{access}\nr0 = 0\nexit")) == ("bad-context-access", 0)


def test_the_packet_ends_where_it_ends() -> None:
    assert code_of_trap(lambda: run_xdp("r2 = *(u32 *)(r1 + 4)\nr0 = *(u8 *)(r2 + 0)\nexit")) == (
        "out-of-bounds",
        1,
    )


def test_legacy_loads_are_big_endian_and_leave_outside_of_the_packet() -> None:
    memory = Memory([make_segment(PACKET, b"\x01\x02\x03\x04\x05", "the packet")])
    for text, ret in (
        ("r0 = *(u32 *)skb[1]", 0x02030405),
        ("r0 = *(u16 *)skb[0]", 0x0102),
        ("r7 = 3\nr0 = *(u16 *)skb[r7 + 0]", 0x0405),
        ("r7 = 3\nr0 = *(u8 *)skb[r7 - 1]", 0x03),
        ("r7 = 3 ll\nr0 = *(u8 *)skb[-0x200000]", 0x01),
    ):
        assert run(f"{text}\nexit", PACKET, 5, memory=memory).ret == ret
    for text in (
        "r0 = *(u32 *)skb[2]",
        "r0 = *(u8 *)skb[5]",
        "r0 = *(u8 *)skb[-1]",
        "r0 = *(u8 *)skb[-0x200001]",
    ):
        assert run(f"{text}\nr0 = 1\nexit", PACKET, 5, memory=memory).ret == 0
    assert code_of_trap(lambda: run("r0 = *(u8 *)skb[0]\nr0 = r1\nexit", PACKET, 5, memory=memory)) == (
        "uninitialized-register",
        1,
    )


def test_a_legacy_load_out_of_the_packet_ends_only_its_function() -> None:
    memory = Memory([make_segment(PACKET, b"\x01", "the packet")])
    assert (
        run("call f\nr0 += 5\nexit\nf: r0 = *(u8 *)skb[9]\nr0 = 1\nexit", PACKET, 1, memory=memory).ret == 5
    )


def test_fuel_counts_jumps_back() -> None:
    text = "r0 = 10\nl: r0 += -1\nif r0 != 0 goto l\nexit"
    assert run(text, environment=Environment(fuel=9)).ret == 0
    assert code_of_trap(lambda: run(text, environment=Environment(fuel=8))) == ("out-of-fuel", 2)


def test_may_goto_lets_a_frame_loop_a_bounded_number_of_times() -> None:
    text = "r0 = 0\nl: may_goto out\nr0 += 1\ngoto l\nout: exit"
    program = make_program(text)
    machine = Machine(program, environment=Environment(trace=lambda slot, registers: limit(machine)))

    def limit(machine: Machine) -> None:
        machine.frames[-1].may_goto_left = min(machine.frames[-1].may_goto_left, 3)

    assert machine.run().ret == 3


def test_static_branches_take_their_first_form_until_flipped() -> None:
    for name, plain, flipped in (("goto_or_nop", 1, 2), ("nop_or_goto", 2, 1), ("gotol_or_nop", 1, 2)):
        text = f"r0 = 1\n{name} out\nr0 = 2\nout: exit"
        assert run(text).ret == plain
        assert run(text, environment=Environment(flipped=frozenset({1}))).ret == flipped


@pytest.mark.parametrize(("text", "insn"), [("r0 = 0", 0), ("goto +1\nr0 = 1 ll\nexit", 0), ("goto -2", 0)])
def test_control_reaches_only_instructions(text: str, insn: int) -> None:
    assert code_of_trap(lambda: run(text)) == ("bad-jump", insn)


def test_a_trap_names_the_program_and_the_instruction() -> None:
    with pytest.raises(
        TrapError, match=r"main: insn 2: error: access of 8 bytes at 0x8 is outside every segment"
    ):
        run("r1 = 8 ll\nr0 = *(u64 *)(r1 + 0)\nexit")


def test_a_big_endian_program_sees_big_endian_memory() -> None:
    text = "*(u32 *)(r10 - 4) = 0x01020304\nr0 = *(u8 *)(r10 - 4)\nr1 = 0x1122\nr1 = be16 r1\nr0 += r1\nexit"
    program = make_program(text, big_endian=True)
    assert decode(encode(program.insns, big_endian=True), big_endian=True) == program.insns
    assert Machine(program).run().ret == 0x1123
