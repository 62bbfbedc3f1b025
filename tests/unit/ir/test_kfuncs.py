"""The table of kernel functions beside the running kernel's own types of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

import bpfc
from bpfc.kernel_types import running_kernel
from bpfc.verification import verify_program
from ir.btf_types import BtfKind, Function, Pointer, Prototype
from ir.kinds import ProgramType
from ir.object import Reference, ReferenceKind
from ir.verify.kfuncs import _SETS, KFUNCS, Kfunc

CALL = 0x85
_NUMBERS = ("any", "size", "size0", "type")


def prototype(name: str) -> Prototype | None:
    """The kernel's prototype of a function, None when this kernel has none."""
    kernel = running_kernel()
    if kernel is None:
        pytest.skip("the running kernel has no BTF")
    for id in kernel.find(name, BtfKind.FUNC):
        function = kernel.type(id)
        assert isinstance(function, Function)
        found = kernel.type(function.type_id)
        return found if isinstance(found, Prototype) else None
    return None


def test_every_kernel_function_has_one_row() -> None:
    assert len(KFUNCS) == sum(len(text.strip().split("\n")) for text, _ in _SETS)


@pytest.mark.parametrize("kfunc", KFUNCS.values(), ids=lambda kfunc: kfunc.name)
def test_numbers_are_asked_for_where_the_kernel_takes_numbers(kfunc: Kfunc) -> None:
    found = prototype(kfunc.name)
    if found is None:
        pytest.skip("this kernel lacks it")
    kernel = running_kernel()
    assert kernel is not None
    pointers = [
        isinstance(kernel.type(kernel.strip(parameter.type_id)), Pointer) for parameter in found.parameters
    ]
    assert [parameter.kind not in _NUMBERS for parameter in kfunc.parameters] == pointers[
        : len(kfunc.parameters)
    ]


@pytest.mark.parametrize(("argument", "code"), [("7", ""), ("r10", "bad-argument")])
def test_a_number_is_not_an_address(argument: str, code: str) -> None:
    text = f"r1 = {argument}\ncall 0\nif r0 == 0 goto out\nr1 = r0\ncall 0\nout: r0 = 0\nexit"
    source = bpfc.assemble(text, type=ProgramType.SCHED_CLS).object
    program = source.programs["main"]
    insns = [insn._replace(src=2) if insn.opcode == CALL else insn for insn in program.insns]
    names = {1: "bpf_cgroup_from_id", 4: "bpf_cgroup_release"}
    references = {slot: Reference(ReferenceKind.KFUNC, name) for slot, name in names.items()}
    program = replace(program, insns=tuple(insns), references=references)
    report = verify_program(replace(source, license="GPL"), program)
    assert [found.code for found in report.diagnostics] == ([code] if code else [])
