"""What programs of each type and attach type may call, read, write and return is what the running kernel says.

Every helper, every place of the context in every size, and the results around those that are ever allowed are asked
of the kernel's verifier, one program for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from platform import release
from typing import NamedTuple

import pytest

from bpfc.kernel_types import running_kernel
from bpfc.testing.kernel import load_program
from bpfc.verification import verify_program
from ir.btf_types import BtfKind
from ir.functions import discover_functions
from ir.helper_sets import allowed_helpers
from ir.helpers import HELPERS
from ir.isa import Insn
from ir.kinds import AttachType, ProgramType
from ir.object import Object, Program
from ir.verify.contexts import rules_of
from ir.verify.kfuncs import KFUNCS
from ir.verify.prove import Report
from runtime.bpf_syscall import KernelError

LOCKED_DOWN = frozenset({36, 58})  # probe_write_user and override_return depend on how the kernel was built
FORBIDDEN = (
    "unknown func",
    "program of this type cannot use helper",
    "invalid func",
    "not supported for program type",
    "supported only for fentry",
)
CONTEXT_END = 232  # __sk_buff, the largest context with fields of its own, has 192 bytes
RESULTS = range(-2, 12)
LOADS = {1: 0x71, 2: 0x69, 4: 0x61, 8: 0x79}
STORES = {1: 0x73, 2: 0x6B, 4: 0x63, 8: 0x7B}
NARROWER = {"iterator", "session"}  # only for some programs of a type
SLEEPABLE = 1 << 4
EXIT = Insn(0x95)


class Variant(NamedTuple):
    """A program type, the attach type it is loaded with, and what it is attached to."""

    type: ProgramType
    attach_type: AttachType | None = None
    target: str = ""

    def __str__(self) -> str:
        names = [part.name.lower() for part in self[:2] if part is not None]
        return "-".join((*names, *([self.target] if self.target else ())))


def read_variants(text: str) -> list[Variant]:
    """`type: attach types`, a line each; `/` parts an attach type from its target, `none` is to name none."""
    found = []
    for line in text.strip().splitlines():
        type, _, attaches = line.partition(":")
        for word in attaches.split():
            attach, _, target = word.partition("/")
            attach_type = None if attach == "none" else AttachType[attach.upper()]
            found.append(Variant(ProgramType[type.strip().upper()], attach_type, target))
    return found


VARIANTS = read_variants(
    """
    socket_filter: none
    kprobe: none
    sched_cls: none
    sched_act: none
    tracepoint: none
    xdp: none xdp_devmap xdp_cpumap
    perf_event: none
    cgroup_skb: none cgroup_inet_egress
    cgroup_sock: cgroup_inet_sock_create cgroup_inet_sock_release cgroup_inet4_post_bind cgroup_inet6_post_bind
    lwt_in: none
    lwt_out: none
    lwt_xmit: none
    lwt_seg6local: none
    sock_ops: cgroup_sock_ops
    sk_skb: none sk_skb_stream_parser sk_skb_stream_verdict sk_skb_verdict
    cgroup_device: cgroup_device
    sk_msg: sk_msg_verdict
    raw_tracepoint: none
    raw_tracepoint_writable: none
    cgroup_sock_addr: cgroup_inet4_bind cgroup_inet6_bind cgroup_inet4_connect cgroup_inet6_connect
    cgroup_sock_addr: cgroup_udp4_sendmsg cgroup_udp6_sendmsg cgroup_udp4_recvmsg cgroup_udp6_recvmsg
    cgroup_sock_addr: cgroup_inet4_getpeername cgroup_inet6_getpeername
    cgroup_sock_addr: cgroup_inet4_getsockname cgroup_inet6_getsockname
    cgroup_sock_addr: cgroup_unix_connect cgroup_unix_sendmsg cgroup_unix_recvmsg
    cgroup_sock_addr: cgroup_unix_getpeername cgroup_unix_getsockname
    sk_reuseport: sk_reuseport_select sk_reuseport_select_or_migrate
    flow_dissector: flow_dissector
    cgroup_sysctl: cgroup_sysctl
    cgroup_sockopt: cgroup_getsockopt cgroup_setsockopt
    sk_lookup: sk_lookup
    syscall: none
    netfilter: netfilter
    tracing: trace_raw_tp/sched_switch trace_iter/task trace_iter/bpf_map_elem
    """
)


def exit_with(result: int) -> tuple[Insn, Insn]:
    """r0 = result; exit"""
    return Insn(0xB7, 0, 0, 0, result), EXIT


def verdict(variant: Variant, insns: Sequence[Insn]) -> Report:
    """Ours."""
    program = Program(
        "probe",
        "",
        variant.type,
        tuple(insns),
        discover_functions(insns, "probe"),
        attach_type=variant.attach_type,
        attach_target=variant.target,
        is_sleepable=variant.type is ProgramType.SYSCALL,
    )
    return verify_program(Object("probe", {"probe": program}, {}, "GPL"), program, running_kernel())


def refusal(variant: Variant, insns: Sequence[Insn], explains: bool = False) -> str | None:
    """Why the kernel refuses, None when it accepts."""
    flags = SLEEPABLE if variant.type is ProgramType.SYSCALL else 0
    attach_type, btf_id = int(variant.attach_type or 0), attach_id(variant.attach_type, variant.target)
    try:
        with load_program(insns, variant.type, flags, attach_type, attach_btf_id=btf_id, explains=explains):
            return None
    except KernelError as error:
        return error.log


@cache
def attach_id(attach_type: AttachType | None, target: str) -> int:
    """The kernel's type of what a program is attached to, 0 for none."""
    kernel = running_kernel()
    if not target or kernel is None:
        return 0
    if attach_type is AttachType.TRACE_RAW_TP:
        return next(iter(kernel.find(f"btf_trace_{target}", BtfKind.TYPEDEF)))
    return next(iter(kernel.find(f"bpf_iter_{target}", BtfKind.FUNC)))


@cache
def accepted_result(variant: Variant) -> int:
    """A number that the kernel lets such programs return."""
    return next(result for result in (1, 0) if refusal(variant, exit_with(result)) is None)


FIRST_VARIANTS = list({variant.type: variant for variant in reversed(VARIANTS)}.values())
each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not release().startswith("6.18."), reason="the tables are those of Linux 6.18"),
]


@each_variant
def test_results_are_those_that_the_kernel_takes(variant: Variant) -> None:
    given = [result for result in RESULTS if refusal(variant, exit_with(result)) is None]
    assert [result for result in RESULTS if verdict(variant, exit_with(result)).is_accepted] == given


@each_variant
def test_helpers_are_those_that_the_kernel_gives(variant: Variant) -> None:
    end = exit_with(accepted_result(variant))
    refusals = {id: refusal(variant, (Insn(0x85, 0, 0, 0, id), *end), explains=True) or "" for id in HELPERS}
    given = {id for id, said in refusals.items() if not any(words in said for words in FORBIDDEN)}
    allowed = allowed_helpers(variant.type, variant.attach_type, variant.target)
    assert allowed - LOCKED_DOWN == given - LOCKED_DOWN


@each_variant
def test_places_of_the_context_are_those_that_the_kernel_lets_programs_touch(variant: Variant) -> None:
    end = exit_with(accepted_result(variant))
    rules = rules_of(variant.type, variant.attach_type)
    wrong = []
    for size, writes in product(LOADS, (False, True)):
        for offset in range(0, CONTEXT_END, size):
            access = (
                (Insn(0xB7, 2, 0, 0, 0), Insn(STORES[size], 1, 2, offset))
                if writes
                else (Insn(LOADS[size], 2, 1, offset),)
            )
            theirs = refusal(variant, (*access, *end)) is None
            if rules is None:
                ours = verdict(variant, (*access, *end)).is_accepted
            else:
                ours = (rules.writable if writes else rules.readable).find(offset, size) is not None
            if ours != theirs:
                wrong.append(("write" if writes else "read", offset, size, theirs))
    assert wrong == []


@pytest.mark.parametrize("variant", FIRST_VARIANTS, ids=lambda variant: variant.type.name.lower())
def test_kernel_functions_are_those_that_the_kernel_gives(variant: Variant) -> None:
    kernel, end = running_kernel(), exit_with(accepted_result(variant))
    assert kernel is not None
    wrong = []
    for kfunc in (kfunc for kfunc in KFUNCS.values() if not kfunc.flags & NARROWER):
        for id in kernel.find(kfunc.name, BtfKind.FUNC):
            said = refusal(variant, (Insn(0x85, 0, 2, 0, id), *end), explains=True) or ""
            is_given = "is not allowed" not in said
            if is_given != (variant.type in kfunc.types):
                wrong.append((kfunc.name, is_given))
    assert wrong == []
