"""The helper tables say what the running kernel's verifier says, where bpf(2) may be asked."""

from __future__ import annotations

import pytest

from bpfc.testing.kernel import load_program
from ir.helper_sets import allowed_helpers
from ir.helpers import HELPERS, ArgumentKind, Helper
from ir.isa import Insn
from ir.kinds import ProgramType
from runtime.bpf_syscall import KernelError

LOCKED_DOWN = frozenset({36, 58})  # probe_write_user and override_return depend on how the kernel was built
NEWEST = 211


def verdict(helper: int, type: ProgramType, license: str) -> str:
    """What the verifier says of a program that only calls `helper`; empty when it accepts."""
    insns = (Insn(0x85, 0, 0, 0, helper), Insn(0xB7), Insn(0x95))
    try:
        with load_program(insns, type, license=license):
            return ""
    except KernelError as error:
        return error.log or str(error)


def some_type(helper: Helper) -> ProgramType | None:
    """A program type that can be loaded without an attach target and has the helper."""
    for type in (ProgramType.SCHED_CLS, ProgramType.XDP, ProgramType.KPROBE, ProgramType.PERF_EVENT):
        if helper.id in allowed_helpers(type):
            return type
    return None


@pytest.mark.kernel
def test_the_helpers_for_gpl_programs_are_those_that_the_kernel_refuses_others() -> None:
    wrong = []
    for helper in HELPERS.values():
        type = some_type(helper)
        if type is None or helper.id in LOCKED_DOWN:
            continue
        refused = "GPL" in verdict(helper.id, type, "Proprietary")
        if refused != helper.gpl_only:
            wrong.append((helper.name, refused))
    assert wrong == []


def test_every_helper_of_linux_6_18_has_one_row() -> None:
    assert list(HELPERS) == list(range(1, NEWEST + 1))
    assert len({helper.name for helper in HELPERS.values()}) == NEWEST


def test_a_size_follows_the_memory_it_is_the_size_of() -> None:
    for helper in HELPERS.values():
        for before, argument in zip(helper.arguments, helper.arguments[1:], strict=False):
            if argument.kind is ArgumentKind.SIZE:
                assert before.kind is ArgumentKind.MEMORY, helper.name
                assert before.size == 0, helper.name
