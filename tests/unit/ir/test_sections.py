"""Section names of programs."""

from __future__ import annotations

import pytest

from ir.kinds import AttachType, ProgramType
from ir.sections import SECTION_ROWS, section_meaning


@pytest.mark.parametrize(
    ("name", "type", "attach_type", "target"),
    [
        ("xdp", ProgramType.XDP, AttachType.XDP, ""),
        ("xdp/devmap", ProgramType.XDP, AttachType.XDP_DEVMAP, ""),
        ("xdp.frags/cpumap", ProgramType.XDP, AttachType.XDP_CPUMAP, ""),
        ("kprobe/do_sys_open+0x8", ProgramType.KPROBE, None, "do_sys_open+0x8"),
        ("kprobe", ProgramType.KPROBE, None, ""),
        ("kprobe.multi/tcp_*", ProgramType.KPROBE, AttachType.TRACE_KPROBE_MULTI, "tcp_*"),
        ("tp/syscalls/sys_enter_open", ProgramType.TRACEPOINT, None, "syscalls/sys_enter_open"),
        ("fentry.s/do_unlinkat", ProgramType.TRACING, AttachType.TRACE_FENTRY, "do_unlinkat"),
        ("fmod_ret/x", ProgramType.TRACING, AttachType.MODIFY_RETURN, "x"),
        ("uprobe//bin/sh:main", ProgramType.KPROBE, None, "/bin/sh:main"),
        ("cgroup/connect4", ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT, ""),
        ("cgroup_skb/egress", ProgramType.CGROUP_SKB, AttachType.CGROUP_INET_EGRESS, ""),
        ("tcx/ingress", ProgramType.SCHED_CLS, AttachType.TCX_INGRESS, ""),
        ("struct_ops/init", ProgramType.STRUCT_OPS, None, "init"),
        ("lsm.s/bpf", ProgramType.LSM, AttachType.LSM_MAC, "bpf"),
        ("netfilter", ProgramType.NETFILTER, AttachType.NETFILTER, ""),
    ],
)
def test_a_name_says_what_is_in_the_section(
    name: str, type: ProgramType, attach_type: AttachType | None, target: str
) -> None:
    meaning = section_meaning(name)
    assert (meaning.row.type, meaning.row.attach_type, meaning.target) == (type, attach_type, target)
    assert meaning.is_exact
    assert meaning.autoload


@pytest.mark.parametrize("row", SECTION_ROWS, ids=lambda row: row.pattern)
def test_every_row_is_found_by_its_own_name(row: object) -> None:
    assert any(section_meaning(found.stem).row is row for found in SECTION_ROWS)


def test_a_question_mark_asks_not_to_load() -> None:
    meaning = section_meaning("?tc")
    assert (meaning.row.type, meaning.autoload) == (ProgramType.SCHED_CLS, False)


@pytest.mark.parametrize(
    ("name", "sleepable"),
    [("fentry/f", False), ("fentry.s/f", True), ("lsm.s/f", True), ("syscall", True), ("iter.s/task", True)],
)
def test_dot_s_may_sleep(name: str, sleepable: bool) -> None:
    assert section_meaning(name).row.is_sleepable is sleepable


@pytest.mark.parametrize(
    ("name", "type", "target"),
    [
        ("xdp_filter", ProgramType.XDP, ""),
        ("socket1", ProgramType.SOCKET_FILTER, ""),
        ("lirc_mode2/raw", ProgramType.LIRC_MODE2, "raw"),
        ("xdp/some", ProgramType.XDP, "some"),
        ("tc_in", ProgramType.SCHED_CLS, ""),
    ],
)
def test_old_names_are_taken_by_how_they_begin(name: str, type: ProgramType, target: str) -> None:
    meaning = section_meaning(name)
    assert (meaning.row.type, meaning.target, meaning.is_exact) == (type, target, False)


@pytest.mark.parametrize("name", [".text", "", "?", "mine", "license"])
def test_other_names_say_nothing(name: str) -> None:
    assert section_meaning(name).row.type is ProgramType.UNSPEC
