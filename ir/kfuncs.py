"""The kernel functions that real programs call first, in the notation of the helper table (ir/helpers.py).

A kfunc has no number: programs name it, its BTF prototype says the rest. These are the ones with a meaning outside
of a kernel; `iter8` is the program's iterator on its stack, `newiter8` one that becomes initialized.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ir.helpers import Helper, parse_rows

_ROWS: Final = """
0 iter_num_new(newiter8, any, any) -> int
0 iter_num_next(iter8) -> mem?
0 iter_num_destroy(iter8) -> void
0 rcu_read_lock() -> void
0 rcu_read_unlock() -> void
0 preempt_disable() -> void
0 preempt_enable() -> void
0 local_irq_save(out8) -> void
0 local_irq_restore(mem8) -> void
0 dynptr_from_skb(ctx, any, newdynptr) -> int
0 dynptr_from_xdp(ctx, any, newdynptr) -> int
0 dynptr_slice(dynptr, any, mem?, size) -> mem?
0 dynptr_slice_rdwr(dynptr, any, rw?, size) -> mem?
0 dynptr_adjust(dynptr, any, any) -> int
0 dynptr_is_null(dynptr) -> int
0 dynptr_is_rdonly(dynptr) -> int
0 dynptr_size(dynptr) -> int
0 dynptr_clone(dynptr, newdynptr) -> int
0 rdonly_cast(any, any) -> mem
0 strcmp(any, any) -> int
0 strlen(any) -> int
0 strnlen(any, any) -> int
0 strchr(any, any) -> int
0 strchrnul(any, any) -> int
0 strnchr(any, any, any) -> int
0 strrchr(any, any) -> int
0 strspn(any, any) -> int
0 strcspn(any, any) -> int
0 strstr(any, any) -> int
0 strnstr(any, any, any) -> int
0 session_is_return(ctx) -> int
0 session_cookie(ctx) -> mem
0 xdp_metadata_rx_timestamp(ctx, out8) -> int
0 xdp_metadata_rx_hash(ctx, out4, out4) -> int
0 xdp_metadata_rx_vlan_tag(ctx, out2, out2) -> int
"""

KFUNCS: Final[Mapping[str, Helper]] = {helper.full_name: helper for helper in parse_rows(_ROWS)}
