"""Legacy packet loads in and out of a small packet: Linux, the interpreter and native code agree."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from bpfc.loaded import from_insns
from bpfc.testing.kernel import load_program, run_program
from ir.asm import assemble
from ir.context import HEADER, SK_BUFF, Pointer
from ir.interpreter import Machine
from ir.isa import Insn
from ir.kinds import ProgramType
from ir.object import FunctionInfo, Program
from ir.segments import Memory, make_segment

PACKET = bytes(range(0x81, 0x99))
ETHERNET_HEADER = bytes(14)  # a test run takes it off before a socket filter sees the packet
OFFSETS = (-70000, -1, 0, 1, 20, 21, 22, 23, 24, 70000)
CONTEXT, DATA = 0x10_0000, 0x20_0000


def programs() -> Iterator[tuple[str, tuple[Insn, ...]]]:
    """Loads of each size at each offset, absolute and by a register; outside, the program ends."""
    for size in ("u8", "u16", "u32"):
        for offset in OFFSETS:
            for place in (f"{offset}", f"r7 {offset - 3:+}"):
                load = f"r0 = *({size} *)skb[{place}]"
                yield load, assemble(f"r6 = r1\nr7 = 3\n{load}\nr0 += 1\nexit")


def run_in_linux(insns: tuple[Insn, ...]) -> int:
    with load_program(insns) as program:
        return run_program(program, ETHERNET_HEADER + PACKET).ret


def run_in_interpreter(insns: tuple[Insn, ...]) -> int:
    image = bytearray(HEADER + SK_BUFF.size)
    struct.pack_into("=Q", image, Pointer.DATA.value, DATA)
    struct.pack_into("=Q", image, Pointer.DATA_END.value, DATA + len(PACKET))
    context = make_segment(CONTEXT, image, "the context")
    program = Program(
        "main", "", ProgramType.SOCKET_FILTER, insns, (FunctionInfo("main", 0, len(insns), True),)
    )
    memory = Memory([context, make_segment(DATA, PACKET, "the packet")])
    return Machine(program, memory, context=context).run().ret & 0xFFFF_FFFF


def run_natively(insns: tuple[Insn, ...]) -> int:
    with from_insns(insns, type=ProgramType.SOCKET_FILTER).start() as runtime:
        return runtime["main"].run(PACKET).verdict


RUNNERS: dict[str, Callable[[tuple[Insn, ...]], int]] = {
    "interpreter": run_in_interpreter,
    "native": run_natively,
}


@pytest.mark.kernel
@pytest.mark.parametrize("runner", RUNNERS)
def test_a_packet_load_reads_what_linux_reads(runner: str) -> None:
    for name, insns in programs():
        assert (name, RUNNERS[runner](insns)) == (name, run_in_linux(insns))
