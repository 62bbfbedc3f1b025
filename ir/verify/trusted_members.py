"""Members of kernel structures whose pointers may be relied on (kernel/bpf/verifier.c, BTF_TYPE_SAFE_*)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ir.verify.members import PointerMember
from ir.verify.values import Trust

# struct.member: alive as long as the RCU section, or as its owner; `?`: may be NULL.
_SAFE: Final[Mapping[str, tuple[Trust, bool]]] = {
    **dict.fromkeys(
        (
            *("task_struct.cpus_ptr", "task_struct.cgroups", "task_struct.real_parent", "cgroup.kn"),
            *("task_struct.group_leader", "css_set.dfl_cgrp", "cgroup_subsys_state.cgroup"),
        ),
        (Trust.RCU, False),
    ),
    **dict.fromkeys(("mm_struct.exe_file", "sk_buff.sk", "request_sock.sk"), (Trust.RCU, True)),
    **dict.fromkeys(
        (
            "bpf_iter_meta.seq",
            "bpf_iter__task.meta",
            "bpf_iter__task.task",
            "linux_binprm.file",
            "file.f_inode",
        ),
        (Trust.TRUSTED, False),
    ),
    **dict.fromkeys(
        ("dentry.d_inode", "socket.sk", "vm_area_struct.vm_mm", "vm_area_struct.vm_file"),
        (Trust.TRUSTED, True),
    ),
}


def trust_of(member: PointerMember, holder: Trust, is_held: bool, in_rcu: bool) -> tuple[Trust, bool]:
    """How far a pointer loaded from a member may be relied on, and whether it may be NULL.

    `holder` is the trust in what it was loaded from, `is_held` whether that is a reference of the program's.
    """
    if holder is Trust.UNTRUSTED:
        return Trust.UNTRUSTED, False
    is_relied_on = is_held or holder is Trust.TRUSTED or (holder is Trust.RCU and in_rcu)
    if not is_relied_on:
        return Trust.PLAIN, False
    trust, nullable = _SAFE.get(f"{member.struct}.{member.name}", (Trust.PLAIN, False))
    if trust is Trust.TRUSTED:
        return trust, nullable
    if not in_rcu:
        return Trust.UNTRUSTED, False
    if trust is Trust.RCU:
        return trust, nullable
    if member.tag == "rcu":
        return Trust.RCU, True
    return Trust.UNTRUSTED if member.in_union else Trust.PLAIN, False
