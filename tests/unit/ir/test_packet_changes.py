"""Which functions may change packet data."""

from __future__ import annotations

from dataclasses import replace

import pytest

import bpfc
from ir.kinds import ProgramType
from ir.lift import lift
from ir.object import Reference, ReferenceKind
from ir.packet_changes import functions_that_change_packets

CALL = 0x85


@pytest.mark.parametrize(
    ("kfunc", "changes"), [("bpf_xdp_pull_data", True), ("bpf_dynptr_from_xdp", False), ("unknown", False)]
)
def test_kernel_functions_count_as_helpers_do(kfunc: str, changes: bool) -> None:
    text = "r2 = 64\nr3 = r10\nr3 += -16\ncall 0\nr0 = 2\nexit"
    program = bpfc.assemble(text, type=ProgramType.XDP).object.programs["main"]
    insns = [insn._replace(src=2) if insn.opcode == CALL else insn for insn in program.insns]
    references = {3: Reference(ReferenceKind.KFUNC, kfunc)}
    module = lift(replace(program, insns=tuple(insns), references=references), {})
    assert functions_that_change_packets(module) == ({"main"} if changes else set())
