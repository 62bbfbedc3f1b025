"""Programs that read kernel objects: through a pointer to one, reading where nothing is gives 0 (kernel: BPF_PROBE_MEM).

    task = bpf_get_current_task_btf()
    parent = task->real_parent          may be anything by now
    pid = parent->tgid                  0 when `parent` leads nowhere; never a fault

Which pointers these are only BTF can tell; here it is every load, in such a program, of whose address nothing is known.
"""

from __future__ import annotations

from typing import Final

from ir.helpers import ResultKind, helper_by_id
from ir.isa import Callee, Kind
from ir.kinds import ProgramType
from ir.object import Program

_TYPES: Final = frozenset(
    {ProgramType.TRACING, ProgramType.LSM, ProgramType.STRUCT_OPS, ProgramType.NETFILTER}
)
_KFUNCS: Final = frozenset({"bpf_rdonly_cast"})


def reads_objects(program: Program) -> bool:
    """Whether a program can have pointers to kernel objects: its type gives it some, or something that it calls does."""
    if program.type in _TYPES:
        return True
    for slot, insn, row in zip(program.starts, program.insns, program.rows, strict=False):
        if row.kind is not Kind.CALL:
            continue
        if row.callee is Callee.HELPER:
            helper = helper_by_id(insn.imm, program.type)
            if helper is not None and helper.result.kind is ResultKind.BTF_POINTER:
                return True
        elif row.callee is Callee.KFUNC:
            reference = program.references.get(slot)
            if reference is not None and reference.name in _KFUNCS:
                return True
    return False
