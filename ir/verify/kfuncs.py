"""Kernel functions that programs may call: a prototype for each, and which program types have it.

A row reads `name(arguments) -> result flags`, spelled as in ir/helpers.py, with these besides:

    iter:T newiter:T  an open-coded iterator of that sort on the stack, started; to be started
    skb               the context of programs over socket buffers, or a kernel's struct sk_buff
    irq newirq        a saved interrupt state on the stack, restored; saved here
    opt               readable and writable memory of the size that follows, or NULL
    rom               a NUL-ended string in a read-only map
    type              the number of a structure of the program, a constant
    object counted    an object that the program allocated; any with a bpf_refcount
    root:K            a `list` or `tree` in a map value or object
    linked unlinked   a node that is in the root before; one that the program owns, to be put there
    func              a function that orders nodes, or is run later
    field:T           a `T` in a map's value
    reslock           a bpf_res_spin_lock in a map's value or an object
    any raw           a number; anything, which is not checked (Linux: a parameter called ...__ign, or a user's pointer)

Results besides: `slice` (as many bytes as the last size, read only; `slicerw` writable), `word` (4 bytes, read only;
`word8` 8 bytes, writable), `context` (the kernel's own structure behind the context), `cast` (an untrusted object of the
type whose number is the second argument), `object` (of the type that was named), `element` (a node of the root), `again`
(what was counted).
Flags: `acquire` (the result has to be released), `sleeps`, `rcu+` `rcu-` `preempt+` `preempt-` (sections), `start` `step`
`stop` (of iterators), `iterator` `session` (for programs of that sort), `throws` (does not return), `locked` (may be called
under a lock), `trusted` (objects that RCU keeps alive will not do), `rcu` (the result lives in an RCU section), `protected`
(is called in one), `trylock` `unlock` (of a reslock).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from ir.kinds import ProgramType
from ir.rows import Rows

_T = ProgramType

_EVERYWHERE: Final = """
bpf_iter_num_new(newiter:num, any, any) -> int start locked
bpf_iter_num_next(iter:num) -> word? step locked
bpf_iter_num_destroy(iter:num) -> void stop locked
bpf_iter_bits_new(newiter:bits, raw, any) -> int start
bpf_iter_bits_next(iter:bits) -> word? step
bpf_iter_bits_destroy(iter:bits) -> void stop
bpf_iter_task_new(newiter:task, btf:task_struct?, any) -> int start protected trusted
bpf_iter_task_next(iter:task) -> btf:task_struct? step rcu protected
bpf_iter_task_destroy(iter:task) -> void stop
bpf_iter_task_vma_new(newiter:task_vma, btf:task_struct, any) -> int start
bpf_iter_task_vma_next(iter:task_vma) -> btf:vm_area_struct? step
bpf_iter_task_vma_destroy(iter:task_vma) -> void stop
bpf_iter_css_new(newiter:css, btf:cgroup_subsys_state, any) -> int start protected trusted
bpf_iter_css_next(iter:css) -> btf:cgroup_subsys_state? step rcu protected
bpf_iter_css_destroy(iter:css) -> void stop
bpf_iter_css_task_new(newiter:css_task, btf:cgroup_subsys_state, any) -> int start trusted
bpf_iter_css_task_next(iter:css_task) -> btf:task_struct? step
bpf_iter_css_task_destroy(iter:css_task) -> void stop
bpf_iter_kmem_cache_new(newiter:kmem_cache) -> int start sleeps
bpf_iter_kmem_cache_next(iter:kmem_cache) -> btf:kmem_cache? step sleeps
bpf_iter_kmem_cache_destroy(iter:kmem_cache) -> void stop sleeps
bpf_iter_dmabuf_new(newiter:dmabuf) -> int start sleeps
bpf_iter_dmabuf_next(iter:dmabuf) -> btf:dma_buf? step sleeps
bpf_iter_dmabuf_destroy(iter:dmabuf) -> void stop sleeps
bpf_wq_init(field:bpf_wq, map, any) -> int
bpf_wq_set_callback_impl(field:bpf_wq, func, any, raw) -> int
bpf_wq_start(field:bpf_wq, any) -> int
bpf_task_work_schedule_signal_impl(btf:task_struct, field:bpf_task_work, map, func, raw) -> int
bpf_task_work_schedule_resume_impl(btf:task_struct, field:bpf_task_work, map, func, raw) -> int
bpf_res_spin_lock(reslock) -> int trylock locked
bpf_res_spin_unlock(reslock) -> void unlock locked
bpf_res_spin_lock_irqsave(reslock, newirq) -> int trylock locked
bpf_res_spin_unlock_irqrestore(reslock, irq) -> void unlock locked
bpf_cgroup_read_xattr(btf:cgroup, rom, dynptr) -> int
bpf_stream_vprintk_impl(any, rom, mem?, size0, raw) -> int
bpf_xdp_metadata_rx_vlan_tag(ctx, out2, out2) -> int
bpf_rcu_read_lock() -> void rcu+
bpf_rcu_read_unlock() -> void rcu-
bpf_preempt_disable() -> void preempt+
bpf_preempt_enable() -> void preempt-
bpf_local_irq_save(newirq) -> void
bpf_local_irq_restore(irq) -> void
bpf_dynptr_adjust(dynptr, any, any) -> int
bpf_dynptr_clone(dynptr, newdynptr) -> int
bpf_dynptr_copy(dynptr, any, dynptr, any, any) -> int
bpf_dynptr_is_null(dynptr) -> int
bpf_dynptr_is_rdonly(dynptr) -> int
bpf_dynptr_memset(dynptr, any, any, any) -> int
bpf_dynptr_size(dynptr) -> int
bpf_dynptr_slice(dynptr, any, opt, size) -> slice?
bpf_dynptr_slice_rdwr(dynptr, any, opt, size) -> slicerw?
bpf_copy_from_user_str(out, size0, raw, any) -> int sleeps
bpf_copy_from_user_task_str(out, size0, raw, btf:task_struct, any) -> int sleeps
bpf_copy_from_user_dynptr(dynptr, any, any, raw) -> int sleeps
bpf_copy_from_user_str_dynptr(dynptr, any, any, raw) -> int sleeps
bpf_copy_from_user_task_dynptr(dynptr, any, any, raw, btf:task_struct) -> int sleeps
bpf_copy_from_user_task_str_dynptr(dynptr, any, any, raw, btf:task_struct) -> int sleeps
bpf_probe_read_user_dynptr(dynptr, any, any, raw) -> int
bpf_probe_read_user_str_dynptr(dynptr, any, any, raw) -> int
bpf_probe_read_kernel_dynptr(dynptr, any, any, raw) -> int
bpf_probe_read_kernel_str_dynptr(dynptr, any, any, raw) -> int
bpf_map_sum_elem_count(map) -> int
bpf_get_kmem_cache(any) -> btf:kmem_cache?
bpf_arena_alloc_pages(map, raw, any, any, any) -> int sleeps
bpf_arena_free_pages(map, raw, any) -> void sleeps
bpf_arena_reserve_pages(map, raw, any) -> int sleeps
bpf_strcmp(raw, raw) -> int
bpf_strcasecmp(raw, raw) -> int
bpf_strchr(raw, any) -> int
bpf_strchrnul(raw, any) -> int
bpf_strnchr(raw, any, any) -> int
bpf_strrchr(raw, any) -> int
bpf_strlen(raw) -> int
bpf_strnlen(raw, any) -> int
bpf_strspn(raw, raw) -> int
bpf_strcspn(raw, raw) -> int
bpf_strstr(raw, raw) -> int
bpf_strnstr(raw, raw, any) -> int
bpf_cast_to_kern_ctx(ctx) -> context
bpf_rdonly_cast(raw, any) -> cast
bpf_xdp_metadata_rx_timestamp(ctx, out8) -> int
bpf_xdp_metadata_rx_hash(ctx, out4, out4) -> int
"""
_OBJECTS: Final = """
bpf_throw(any) -> void throws
bpf_percpu_obj_new_impl(type, raw) -> percpuobject? acquire
bpf_percpu_obj_drop_impl(-percpuobject, raw) -> void
bpf_obj_new_impl(type, raw) -> object? acquire
bpf_obj_drop_impl(-object, raw) -> void
bpf_refcount_acquire_impl(counted, raw) -> again acquire locked
bpf_list_push_front_impl(root:list, unlinked, raw, any) -> int locked
bpf_list_push_back_impl(root:list, unlinked, raw, any) -> int locked
bpf_list_pop_front(root:list) -> element? acquire locked
bpf_list_pop_back(root:list) -> element? acquire locked
bpf_list_front(root:list) -> element? locked
bpf_list_back(root:list) -> element? locked
bpf_rbtree_add_impl(root:tree, unlinked, func, raw, any) -> int locked
bpf_rbtree_remove(root:tree, linked) -> element? acquire locked
bpf_rbtree_first(root:tree) -> element? locked
bpf_rbtree_root(root:tree) -> element? locked
bpf_rbtree_left(root:tree, linked) -> element? locked
bpf_rbtree_right(root:tree, linked) -> element? locked
bpf_task_acquire(btf:task_struct) -> btf:task_struct? acquire
bpf_task_release(-btf:task_struct) -> void
bpf_task_from_pid(any) -> btf:task_struct? acquire
bpf_task_from_vpid(any) -> btf:task_struct? acquire
bpf_task_under_cgroup(btf:task_struct, btf:cgroup) -> int
bpf_task_get_cgroup1(btf:task_struct, any) -> btf:cgroup? acquire
bpf_cgroup_acquire(btf:cgroup) -> btf:cgroup? acquire
bpf_cgroup_release(-btf:cgroup) -> void
bpf_cgroup_ancestor(btf:cgroup, any) -> btf:cgroup? acquire
bpf_cgroup_from_id(any) -> btf:cgroup? acquire
bpf_key_put(-btf:bpf_key) -> void
bpf_lookup_user_key(any, any) -> btf:bpf_key? acquire sleeps
bpf_lookup_system_key(any) -> btf:bpf_key? acquire
bpf_send_signal_task(btf:task_struct, any, any, any) -> int
"""
_CPUMASKS: Final = """
bpf_cpumask_create() -> btf:bpf_cpumask? acquire
bpf_cpumask_acquire(btf:bpf_cpumask) -> btf:bpf_cpumask acquire trusted
bpf_cpumask_release(-btf:bpf_cpumask) -> void
bpf_cpumask_first(btf:cpumask) -> int
bpf_cpumask_first_zero(btf:cpumask) -> int
bpf_cpumask_first_and(btf:cpumask, btf:cpumask) -> int
bpf_cpumask_set_cpu(any, btf:bpf_cpumask) -> void
bpf_cpumask_clear_cpu(any, btf:bpf_cpumask) -> void
bpf_cpumask_test_cpu(any, btf:cpumask) -> int
bpf_cpumask_test_and_set_cpu(any, btf:bpf_cpumask) -> int
bpf_cpumask_test_and_clear_cpu(any, btf:bpf_cpumask) -> int
bpf_cpumask_setall(btf:bpf_cpumask) -> void
bpf_cpumask_clear(btf:bpf_cpumask) -> void
bpf_cpumask_and(btf:bpf_cpumask, btf:cpumask, btf:cpumask) -> int
bpf_cpumask_or(btf:bpf_cpumask, btf:cpumask, btf:cpumask) -> void
bpf_cpumask_xor(btf:bpf_cpumask, btf:cpumask, btf:cpumask) -> void
bpf_cpumask_equal(btf:cpumask, btf:cpumask) -> int
bpf_cpumask_intersects(btf:cpumask, btf:cpumask) -> int
bpf_cpumask_subset(btf:cpumask, btf:cpumask) -> int
bpf_cpumask_empty(btf:cpumask) -> int
bpf_cpumask_full(btf:cpumask) -> int
bpf_cpumask_copy(btf:bpf_cpumask, btf:cpumask) -> void
bpf_cpumask_any_distribute(btf:cpumask) -> int
bpf_cpumask_any_and_distribute(btf:cpumask, btf:cpumask) -> int
bpf_cpumask_weight(btf:cpumask) -> int
bpf_cpumask_populate(btf:cpumask, mem, size) -> int
"""
_CONNTRACK: Final = """
bpf_xdp_ct_alloc(ctx, mem?, size, rw, size) -> btf:nf_conn___init? acquire
bpf_xdp_ct_lookup(ctx, mem?, size, rw, size) -> btf:nf_conn? acquire
bpf_skb_ct_alloc(ctx, mem?, size, rw, size) -> btf:nf_conn___init? acquire
bpf_skb_ct_lookup(ctx, mem?, size, rw, size) -> btf:nf_conn? acquire
bpf_ct_insert_entry(-btf:nf_conn___init) -> btf:nf_conn? acquire
bpf_ct_release(-btf:nf_conn) -> void
bpf_ct_set_nat_info(btf:nf_conn___init, mem16, any, any) -> int trusted
bpf_ct_set_timeout(btf:nf_conn___init, any) -> void trusted
bpf_ct_change_timeout(btf:nf_conn, any) -> int trusted
bpf_ct_set_status(btf:nf_conn___init, any) -> int trusted
bpf_ct_change_status(btf:nf_conn, any) -> int trusted
"""
_SKB: Final = "bpf_dynptr_from_skb(skb, any, newdynptr) -> int"
_XDP: Final = """
bpf_dynptr_from_xdp(ctx, any, newdynptr) -> int
bpf_xdp_pull_data(ctx, any) -> int packet
bpf_xdp_get_xfrm_state(ctx, rw, size) -> btf:xfrm_state? acquire
bpf_xdp_xfrm_state_release(-btf:xfrm_state) -> void
"""
_TCP: Final = """
tcp_reno_ssthresh(btf:sock) -> int
tcp_reno_cong_avoid(btf:sock, any, any) -> void
tcp_reno_undo_cwnd(btf:sock) -> int
tcp_slow_start(btf:tcp_sock, any) -> int
tcp_cong_avoid_ai(btf:tcp_sock, any, any) -> void
cubictcp_init(btf:sock) -> void
cubictcp_recalc_ssthresh(btf:sock) -> int
cubictcp_cong_avoid(btf:sock, any, any) -> void
cubictcp_state(btf:sock, any) -> void
cubictcp_cwnd_event(btf:sock, any) -> void
cubictcp_acked(btf:sock, btf:ack_sample) -> void
dctcp_init(btf:sock) -> void
dctcp_update_alpha(btf:sock, any) -> void
dctcp_cwnd_event(btf:sock, any) -> void
dctcp_ssthresh(btf:sock) -> int
dctcp_cwnd_undo(btf:sock) -> int
dctcp_state(btf:sock, any) -> void
bbr_init(btf:sock) -> void
bbr_main(btf:sock, any, any, btf:rate_sample) -> void
bbr_sndbuf_expand(btf:sock) -> int
bbr_undo_cwnd(btf:sock) -> int
bbr_cwnd_event(btf:sock, any) -> void
bbr_ssthresh(btf:sock) -> int
bbr_min_tso_segs(btf:sock) -> int
bbr_set_state(btf:sock, any) -> void
"""
_SESSION: Final = """
bpf_session_is_return() -> int session
bpf_session_cookie() -> word8 session
"""
_ITERATED: Final = "bpf_sock_destroy(anysk) -> int iterator"

_SKB_META: Final = "bpf_dynptr_from_skb_meta(skb, any, newdynptr) -> int"
_CRYPTO_MAKERS: Final = """
bpf_crypto_ctx_create(mem, size, out4) -> btf:bpf_crypto_ctx? acquire sleeps
bpf_crypto_ctx_acquire(btf:bpf_crypto_ctx) -> btf:bpf_crypto_ctx? acquire
bpf_crypto_ctx_release(-btf:bpf_crypto_ctx) -> void
"""
_CRYPTO: Final = """
bpf_crypto_encrypt(btf:bpf_crypto_ctx, dynptr, dynptr, dynptr?) -> int
bpf_crypto_decrypt(btf:bpf_crypto_ctx, dynptr, dynptr, dynptr?) -> int
"""
_FILES: Final = """
bpf_get_task_exe_file(btf:task_struct) -> btf:file? acquire trusted
bpf_put_file(-btf:file) -> void
bpf_path_d_path(btf:path, out, size) -> int trusted
bpf_get_dentry_xattr(btf:dentry, rom, dynptr) -> int sleeps trusted
bpf_get_file_xattr(btf:file, rom, dynptr) -> int sleeps trusted
bpf_set_dentry_xattr(btf:dentry, rom, dynptr, any) -> int sleeps trusted
bpf_remove_dentry_xattr(btf:dentry, rom) -> int sleeps trusted
"""
_STATISTICS: Final = """
css_rstat_updated(btf:cgroup_subsys_state, any) -> void
css_rstat_flush(btf:cgroup_subsys_state) -> void sleeps
"""
_ADDRESSES: Final = """
bpf_sock_addr_set_sun_path(btf:bpf_sock_addr_kern, mem, size) -> int
bpf_sock_ops_enable_tx_tstamp(btf:bpf_sock_ops_kern, any) -> int trusted
"""
_REQUESTS: Final = "bpf_sk_assign_tcp_reqsk(skb, btf:sock, mem, size) -> int"

_CGROUP: Final = (
    *(_T.CGROUP_DEVICE, _T.CGROUP_SKB, _T.CGROUP_SOCK, _T.CGROUP_SOCKOPT, _T.CGROUP_SOCK_ADDR),
    *(_T.CGROUP_SYSCTL, _T.SOCK_OPS),
)
_TRACE: Final = (_T.PERF_EVENT, _T.TRACEPOINT, _T.TRACING, _T.LSM)
_LWT: Final = (_T.LWT_IN, _T.LWT_OUT, _T.LWT_SEG6LOCAL, _T.LWT_XMIT)
_SETS: Final = (
    (_EVERYWHERE, tuple(ProgramType)),
    (_OBJECTS, (*_CGROUP, *_TRACE, _T.SCHED_CLS, _T.SYSCALL, _T.XDP, _T.STRUCT_OPS)),
    (_CPUMASKS, (*_TRACE, _T.SYSCALL, _T.STRUCT_OPS)),
    (_CONNTRACK, (_T.SCHED_CLS, _T.XDP)),
    (
        _SKB,
        (
            *(*_CGROUP, *_TRACE, *_LWT, _T.NETFILTER, _T.SCHED_ACT, _T.SCHED_CLS, _T.SK_SKB),
            _T.SOCKET_FILTER,
        ),
    ),
    (_SKB_META, (_T.SCHED_CLS, _T.SCHED_ACT)),
    (_XDP, (_T.XDP,)),
    (_CRYPTO_MAKERS, (_T.SYSCALL,)),
    (_CRYPTO, (_T.SCHED_CLS, _T.SCHED_ACT, _T.XDP)),
    (_FILES, (_T.LSM,)),
    (_STATISTICS, (_T.PERF_EVENT, _T.TRACEPOINT, _T.TRACING)),
    (_ADDRESSES, _CGROUP),
    (_REQUESTS, (_T.SCHED_CLS,)),
    (_TCP, (_T.STRUCT_OPS,)),
    (_SESSION, (_T.KPROBE,)),
    (_ITERATED, (_T.TRACING,)),
)

_ROW: Final = re.compile(r"(\w+)\((.*)\) -> (\S+)((?: \S+)*)")


@final
@dataclass(frozen=True, slots=True)
class Parameter:
    """What a kernel function asks of an argument: `kind` as spelled in the table, `of` what follows its colon."""

    kind: str
    of: str = ""
    size: int = 0
    is_nullable: bool = False
    releases: bool = False


@final
@dataclass(frozen=True, slots=True)
class Kfunc:
    """A kernel function."""

    name: str
    parameters: tuple[Parameter, ...]
    result: str
    result_of: str
    is_nullable: bool
    flags: frozenset[str]
    types: frozenset[ProgramType]


def _parse(line: tuple[str, frozenset[ProgramType]]) -> Kfunc:
    row = _ROW.fullmatch(line[0])
    assert row is not None, line
    result, _, of = row[3].rstrip("?").partition(":")
    return Kfunc(
        row[1],
        tuple(_parameter(word) for word in row[2].split(", ") if word),
        result,
        of,
        row[3].endswith("?"),
        frozenset(row[4].split()),
        line[1],
    )


def _parameter(word: str) -> Parameter:
    kind, _, of = word.lstrip("-").rstrip("?").partition(":")
    digits = kind.lstrip("abcdefghijklmnopqrstuvwxyz")
    return Parameter(
        kind.rstrip("0123456789") if kind not in ("size0",) else kind,
        of,
        int(digits or 0),
        word.endswith("?"),
        word.startswith("-"),
    )


KFUNCS: Final = Rows(
    {
        line.partition("(")[0]: (line, frozenset(types))
        for text, types in _SETS
        for line in text.strip().split("\n")
    },
    _parse,
)


def kfunc_named(target: object) -> Kfunc | None:
    """The kernel function that a call names, whatever flavour of its type the program declares; None when it is not known."""
    return KFUNCS.get(str(target).split("___")[0])


ITERATOR_SIZES: Final[Mapping[str, int]] = {
    "num": 8,
    "bits": 16,
    "task": 24,
    "task_vma": 8,
    "css": 24,
    "css_task": 8,
    "kmem_cache": 8,
    "dmabuf": 8,
}
