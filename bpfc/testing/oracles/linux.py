"""The running kernel: what it accepts is accepted, and both give the same results."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random
from typing import Final

from bpfc.options import Options
from bpfc.testing.bulk import Style, case_of
from bpfc.testing.case import LICENSE, Case
from bpfc.testing.kernel import loaded, run_program
from bpfc.testing.native import run_once, started
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally
from bpfc.testing.shapes.table import LINUX
from ir.kinds import ProgramType
from ir.lift import lift
from ir.verify.prove import verify
from runtime.bpf_syscall import KernelError
from runtime.kernel import bpf_refusal

TYPES: Final = (ProgramType.XDP, ProgramType.SCHED_CLS)
SAFE: Final = Style(size=4, inputs=6, types=TYPES, repertoire=LINUX)
DARING: Final = replace(SAFE, daring=0.1)
_LEAST: Final = 14
_NUMBER: Final = re.compile(r"-?(0x[0-9a-f]+|\d+)|R\d+")


def draw(seed: int) -> Case:
    """A program for the network, every other one with what may be unsafe."""
    return case_of(seed, Random(seed + 1).choice((DARING, SAFE)))


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """Compare the verdicts; where both accept, the results."""
    assert case.program is not None, "a case of instructions"
    report = verify(lift(case.program, case.maps), LICENSE)
    try:
        with loaded(case) as descriptor:
            if not report.is_accepted:
                first = report.diagnostics[0]
                return Finding(ORACLE.name, "linux accepts", first.code, str(first))
            tally.accepted += 1
            return None if _draws(case) else _compare(case, descriptor, tally)
    except KernelError as refusal:
        # Where only Linux refuses, it may see less; whether it is unsafe other oracles tell.
        if report.is_accepted:
            tally.outcomes[f"only linux refuses: {_NUMBER.sub('N', refusal.reason)[:90]}"] += 1
        else:
            tally.outcomes["linux refuses too"] += 1
        return None


def _draws(case: Case) -> bool:
    """Whether it asks for random numbers, which are not the kernel's."""
    assert case.program is not None, "a case of instructions"
    return any(
        insn.opcode == 0x85 and insn.src == 0 and insn.imm in (7, 44, 65) for insn in case.program.insns
    )


def _compare(case: Case, descriptor: int, tally: Tally) -> Finding | None:
    with started(case, Options(level="O1", cache=False)) as runtime:
        for number, data in enumerate(case.inputs):
            if len(data) < _LEAST:
                continue
            wanted, found = run_program(descriptor, data), run_once(runtime, data)
            tally.ran(case, 1)
            if isinstance(found.ret, str):
                return Finding(ORACLE.name, f"trap {found.ret}", "", f"run {number}")
            if found.ret & 0xFFFF_FFFF != wanted.ret:
                said = f"run {number}: r0 = {found.ret:#x}, the kernel's is {wanted.ret:#x}"
                return Finding(ORACLE.name, "result", "", said)
            if found.data != wanted.data:
                return Finding(ORACLE.name, "packet", "", f"run {number}: other packet data")
    return None


def lacks(surroundings: Surroundings) -> str:
    """bpf(2) must be permitted."""
    refusal = bpf_refusal()
    return f"bpf(2): {refusal}" if refusal else ""


ORACLE: Final = Oracle(
    "linux", "verdicts and results of the running kernel", draw, judge, 2, lacks, verifies=True
)
