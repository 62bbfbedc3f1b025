"""Why helpers without an implementation have none: what they work on exists in a kernel only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_BY_REASON: Final = {
    "no kernel translates packets between versions of IP here": "skb_change_proto",
    "kernel functions are not failed on purpose here": "override_return",
    "there are no messages of sockets": "msg_pull_data msg_push_data msg_pop_data",
    "there is no segment routing": "lwt_seg6_store_bytes lwt_seg6_adjust_srh lwt_seg6_action",
    "no sysctl is being read or written": "sysctl_get_name sysctl_get_current_value sysctl_get_new_value sysctl_set_new_value",
    "there is no seq_file to print to": "seq_printf seq_write seq_printf_btf",
    "there are no kernel objects to print by the kernel's types": "snprintf_btf",
    "there are no paths of a kernel": "d_path",
    "there are no per-cpu variables of a kernel": "per_cpu_ptr this_cpu_ptr",
    "no program is being executed": "bprm_opts_set",
    "nothing measures files": "ima_inode_hash ima_file_hash",
    "programs that load others make real system calls": "sys_bpf btf_find_by_name_kind sys_close",
    "there are no tasks of a kernel": "task_pt_regs find_vma copy_from_user_task",
    "there are no kernel objects to own": "kptr_xchg",
    "only the kernel knows the secret of its cookies": (
        "tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6 "
        "tcp_raw_check_syncookie_ipv4 tcp_raw_check_syncookie_ipv6"
    ),
}
ABSENT: Final[Mapping[str, str]] = {
    name: reason for reason, names in _BY_REASON.items() for name in names.split()
}
