"""Which functions may change where packet data is, so that callers must look for it anew.

    g: call bpf_xdp_adjust_head     f: call g     h: bpf_loop(n, f, ...)        g, f and h may

Tail calls count: whatever comes after may (kernel/bpf/verifier.c, visit_insn).
"""

from __future__ import annotations

from ir.core import Address, Call, Function, Module
from ir.helpers import helper_by_id
from ir.isa import Callee
from ir.object import ReferenceKind
from ir.verify.kfuncs import kfunc_named


def functions_that_change_packets(module: Module) -> frozenset[str]:
    """The functions of `module` that call, themselves or further down, what may move or change packet data."""
    users: dict[str, set[str]] = {}
    found: set[str] = set()
    for name, function in module.functions.items():
        for used in _functions_used(function):
            users.setdefault(used, set()).add(name)
        if any(_changes(module, inst) for inst in function.insts() if isinstance(inst, Call)):
            found.add(name)
    work = list(found)
    while work:
        fresh = users.get(work.pop(), set()) - found
        found |= fresh
        work += fresh
    return frozenset(found)


def _functions_used(function: Function) -> set[str]:
    """The functions that it calls, or gives to somebody who may."""
    found: set[str] = set()
    for inst in function.insts():
        if isinstance(inst, Call) and inst.callee is Callee.SUBPROGRAM and isinstance(inst.target, str):
            found.add(inst.target)
        elif isinstance(inst, Address) and inst.reference.kind is ReferenceKind.FUNCTION:
            found.add(inst.reference.name)
    return found


def _changes(module: Module, call: Call) -> bool:
    if call.callee is Callee.HELPER and isinstance(call.target, int):
        helper = helper_by_id(call.target, module.program.type)
        return helper is not None and helper.changes_packet
    kfunc = kfunc_named(call.target) if call.callee is Callee.KFUNC else None
    return kfunc is not None and "packet" in kfunc.flags
