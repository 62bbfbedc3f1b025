"""The helper table: number, name and prototype of every helper of Linux 6.18, one row each.

A row reads `id name(arguments) -> result flags`. The kinds are the verifier's (include/linux/bpf.h, enum
bpf_arg_type and bpf_return_type), spelled short:

    ctx map key value      the context; a map; a pointer to key_size, value_size bytes of the map before it
    mem mem8               readable bytes: as many as the size argument that follows, or a fixed number
    rw out out8            the same, also written; only written (need not be initialized, becomes initialized)
    size size0             number of bytes of the mem/rw/out before it, 1.. or 0..
    any                    any initialized value, not a pointer to check
    str func               a constant NUL-ended string in a read-only map; a callback
    lock timer             a struct bpf_spin_lock, bpf_timer in a map value
    record alloc           memory from ringbuf_reserve; constant number of bytes of the memory returned
    dynptr                 struct bpf_dynptr on the stack: `newdynptr` becomes one, `rbdynptr`: of a ring
    sock skc anysk         struct bpf_sock; bpf_sock_common; either, or a BTF pointer to such
    btf:T percpu kptr      trusted BTF pointer to struct T; per-cpu ksym; a kptr field's address
    stack iter8            a pointer into the stack, not checked further; an iterator of 8 bytes there
    ?  -                   after a kind: may be NULL; before it: the reference it holds is given up

Results: `int`, `void`, `value` (of the map argument), `record` and `mem` (as many bytes as `alloc`), `sock`
`tcp` `skc` `btf:T` `percpu` `kptr`; `?` may be NULL. Flags: `gpl`, `packet` (may move packet data: packet
pointers die), `pkt` (packet pointers may be passed as memory), `sleeps`, `variadic` (also passes the
registers up to r5, initialized or not).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from ir.kinds import ProgramType
from ir.rows import Rows


class ArgumentKind(Enum):
    """What the verifier asks of an argument; the value is the spelling in the table."""

    CONTEXT = "ctx"
    MAP = "map"
    MAP_KEY = "key"
    MAP_VALUE = "value"
    MEMORY = "mem"
    SIZE = "size"
    ANYTHING = "any"
    CONST_STRING = "str"
    FUNCTION = "func"
    SPIN_LOCK = "lock"
    TIMER = "timer"
    RECORD = "record"
    ALLOC_SIZE = "alloc"
    DYNPTR = "dynptr"
    SOCKET = "sock"
    SOCKET_COMMON = "skc"
    ANY_SOCKET = "anysk"
    BTF_POINTER = "btf"
    PERCPU_POINTER = "percpu"
    KPTR = "kptr"
    STACK = "stack"
    ITERATOR = "iter"

    __hash__ = object.__hash__  # as of ir/isa's Kind


class ResultKind(Enum):
    """What a helper returns in r0; the value is the spelling in the table."""

    INTEGER = "int"
    VOID = "void"
    MAP_VALUE = "value"
    MEMORY = "mem"
    RECORD = "record"
    SOCKET = "sock"
    TCP_SOCKET = "tcp"
    SOCKET_COMMON = "skc"
    BTF_POINTER = "btf"
    PERCPU_POINTER = "percpu"
    KPTR = "kptr"


@final
@dataclass(frozen=True, slots=True)
class Argument:
    """One argument. `size` bytes of memory (0: the next argument says how many); `btf` the structure's name.

    `reads`/`writes`: which way memory is used (written only: it may be uninitialized). `may_be_zero` belongs
    to SIZE and ALLOC_SIZE, `releases` to arguments whose reference is given up.
    """

    kind: ArgumentKind
    is_nullable: bool = False
    reads: bool = True
    writes: bool = False
    size: int = 0
    may_be_zero: bool = False
    releases: bool = False
    btf: str = ""


@final
@dataclass(frozen=True, slots=True)
class Result:
    """What r0 holds after the call."""

    kind: ResultKind
    is_nullable: bool = False
    btf: str = ""


@final
@dataclass(frozen=True, slots=True)
class Helper:
    """A helper's prototype; `name` without bpf_. A variadic one is called with r1..r5."""

    id: int
    name: str
    arguments: tuple[Argument, ...]
    result: Result
    gpl_only: bool = False
    changes_packet: bool = False
    takes_packet: bool = False
    may_sleep: bool = False
    is_variadic: bool = False

    @property
    def full_name(self) -> str:
        """The name as programs and users write it: bpf_map_lookup_elem."""
        return "bpf_" + self.name


_ROWS: Final = """
1 map_lookup_elem(map, key) -> value? pkt
2 map_update_elem(map, key, value, any) -> int pkt
3 map_delete_elem(map, key) -> int pkt
4 probe_read(out, size0, any) -> int gpl
5 ktime_get_ns() -> int
6 trace_printk(mem, size) -> int gpl variadic
7 get_prandom_u32() -> int
8 get_smp_processor_id() -> int
9 skb_store_bytes(ctx, any, mem, size, any) -> int packet
10 l3_csum_replace(ctx, any, any, any, any) -> int packet
11 l4_csum_replace(ctx, any, any, any, any) -> int packet
12 tail_call(ctx, map, any) -> void packet
13 clone_redirect(ctx, any, any) -> int packet
14 get_current_pid_tgid() -> int
15 get_current_uid_gid() -> int
16 get_current_comm(out, size) -> int
17 get_cgroup_classid() -> int
18 skb_vlan_push(ctx, any, any) -> int packet
19 skb_vlan_pop(ctx) -> int packet
20 skb_get_tunnel_key(ctx, out, size, any) -> int
21 skb_set_tunnel_key(ctx, mem, size, any) -> int
22 perf_event_read(map, any) -> int gpl
23 redirect(any, any) -> int
24 get_route_realm(ctx) -> int
25 perf_event_output(ctx, map, any, mem, size0) -> int gpl
26 skb_load_bytes(ctx, any, out, size) -> int
27 get_stackid(ctx, map, any) -> int gpl
28 csum_diff(mem?, size0, mem?, size0, any) -> int pkt
29 skb_get_tunnel_opt(ctx, out, size) -> int
30 skb_set_tunnel_opt(ctx, mem, size) -> int
31 skb_change_proto(ctx, any, any) -> int packet
32 skb_change_type(ctx, any) -> int
33 skb_under_cgroup(ctx, map, any) -> int
34 get_hash_recalc(ctx) -> int
35 get_current_task() -> int gpl
36 probe_write_user(any, mem, size) -> int gpl
37 current_task_under_cgroup(map, any) -> int
38 skb_change_tail(ctx, any, any) -> int packet
39 skb_pull_data(ctx, any) -> int packet
40 csum_update(ctx, any) -> int
41 set_hash_invalid(ctx) -> int
42 get_numa_node_id() -> int
43 skb_change_head(ctx, any, any) -> int packet
44 xdp_adjust_head(ctx, any) -> int packet
45 probe_read_str(out, size0, any) -> int gpl
46 get_socket_cookie(ctx) -> int
47 get_socket_uid(ctx) -> int
48 set_hash(ctx, any) -> int
49 setsockopt(ctx, any, any, mem, size) -> int
50 skb_adjust_room(ctx, any, any, any) -> int packet
51 redirect_map(map, any, any) -> int
52 sk_redirect_map(ctx, map, any, any) -> int
53 sock_map_update(ctx, map, key, any) -> int pkt
54 xdp_adjust_meta(ctx, any) -> int packet
55 perf_event_read_value(map, any, out, size) -> int gpl
56 perf_prog_read_value(ctx, out, size) -> int gpl
57 getsockopt(ctx, any, any, out, size) -> int
58 override_return(ctx, any) -> int gpl
59 sock_ops_cb_flags_set(ctx, any) -> int
60 msg_redirect_map(ctx, map, any, any) -> int
61 msg_apply_bytes(ctx, any) -> int
62 msg_cork_bytes(ctx, any) -> int
63 msg_pull_data(ctx, any, any, any) -> int packet
64 bind(ctx, mem, size) -> int
65 xdp_adjust_tail(ctx, any) -> int packet
66 skb_get_xfrm_state(ctx, any, out, size, any) -> int
67 get_stack(ctx, out, size0, any) -> int gpl
68 skb_load_bytes_relative(ctx, any, out, size, any) -> int
69 fib_lookup(ctx, rw, size, any) -> int gpl
70 sock_hash_update(ctx, map, key, any) -> int pkt
71 msg_redirect_hash(ctx, map, key, any) -> int
72 sk_redirect_hash(ctx, map, key, any) -> int
73 lwt_push_encap(ctx, any, mem, size) -> int packet
74 lwt_seg6_store_bytes(ctx, any, mem, size) -> int packet
75 lwt_seg6_adjust_srh(ctx, any, any) -> int packet
76 lwt_seg6_action(ctx, any, mem, size) -> int packet
77 rc_repeat(ctx) -> int gpl
78 rc_keydown(ctx, any, any, any) -> int gpl
79 skb_cgroup_id(ctx) -> int
80 get_current_cgroup_id() -> int
81 get_local_storage(map, any) -> value
82 sk_select_reuseport(ctx, map, key, any) -> int
83 skb_ancestor_cgroup_id(ctx, any) -> int
84 sk_lookup_tcp(ctx, mem, size, any, any) -> sock? pkt
85 sk_lookup_udp(ctx, mem, size, any, any) -> sock? pkt
86 sk_release(-anysk) -> int
87 map_push_elem(map, value, any) -> int pkt
88 map_pop_elem(map, outvalue) -> int
89 map_peek_elem(map, outvalue) -> int
90 msg_push_data(ctx, any, any, any) -> int packet
91 msg_pop_data(ctx, any, any, any) -> int packet
92 rc_pointer_rel(ctx, any, any) -> int gpl
93 spin_lock(lock) -> void
94 spin_unlock(lock) -> void
95 sk_fullsock(skc) -> sock?
96 tcp_sock(skc) -> tcp?
97 skb_ecn_set_ce(ctx) -> int
98 get_listener_sock(skc) -> sock?
99 skc_lookup_tcp(ctx, mem, size, any, any) -> skc? pkt
100 tcp_check_syncookie(anysk, mem, size, mem, size) -> int gpl pkt
101 sysctl_get_name(ctx, out, size, any) -> int
102 sysctl_get_current_value(ctx, out, size) -> int
103 sysctl_get_new_value(ctx, out, size) -> int
104 sysctl_set_new_value(ctx, mem, size) -> int
105 strtol(mem, size, any, out8) -> int
106 strtoul(mem, size, any, out8) -> int
107 sk_storage_get(map, anysk?, value?, any) -> value?
108 sk_storage_delete(map, anysk?) -> int
109 send_signal(any) -> int
110 tcp_gen_syncookie(anysk, mem, size, mem, size) -> int gpl pkt
111 skb_output(btf:sk_buff, map, any, mem, size0) -> int gpl
112 probe_read_user(out, size0, any) -> int gpl
113 probe_read_kernel(out, size0, any) -> int gpl
114 probe_read_user_str(out, size0, any) -> int gpl
115 probe_read_kernel_str(out, size0, any) -> int gpl
116 tcp_send_ack(btf:tcp_sock, any) -> int
117 send_signal_thread(any) -> int
118 jiffies64() -> int
119 read_branch_records(ctx, rw?, size0, any) -> int gpl
120 get_ns_current_pid_tgid(any, any, out, size) -> int
121 xdp_output(btf:xdp_buff, map, any, mem, size0) -> int gpl
122 get_netns_cookie(ctx?) -> int
123 get_current_ancestor_cgroup_id(any) -> int
124 sk_assign(ctx, anysk, any) -> int
125 ktime_get_boot_ns() -> int
126 seq_printf(btf:seq_file, mem, size, mem?, size0) -> int gpl
127 seq_write(btf:seq_file, mem, size0) -> int gpl
128 sk_cgroup_id(anysk) -> int
129 sk_ancestor_cgroup_id(anysk, any) -> int
130 ringbuf_output(map, mem, size0, any) -> int
131 ringbuf_reserve(map, alloc, any) -> record?
132 ringbuf_submit(-record, any) -> void
133 ringbuf_discard(-record, any) -> void
134 ringbuf_query(map, any) -> int
135 csum_level(ctx, any) -> int
136 skc_to_tcp6_sock(anysk) -> btf:tcp6_sock?
137 skc_to_tcp_sock(anysk) -> btf:tcp_sock?
138 skc_to_tcp_timewait_sock(anysk) -> btf:tcp_timewait_sock?
139 skc_to_tcp_request_sock(anysk) -> btf:tcp_request_sock?
140 skc_to_udp6_sock(anysk) -> btf:udp6_sock?
141 get_task_stack(btf:task_struct, out, size0, any) -> int
142 load_hdr_opt(ctx, rw, size, any) -> int
143 store_hdr_opt(ctx, mem, size, any) -> int packet
144 reserve_hdr_opt(ctx, any, any) -> int
145 inode_storage_get(map, btf:inode?, value?, any) -> value?
146 inode_storage_delete(map, btf:inode?) -> int
147 d_path(btf:path, out, size0) -> int
148 copy_from_user(out, size0, any) -> int sleeps
149 snprintf_btf(rw, size, mem, size, any) -> int
150 seq_printf_btf(btf:seq_file, mem, size0, any) -> int gpl
151 skb_cgroup_classid(ctx) -> int
152 redirect_neigh(any, mem?, size0, any) -> int
153 per_cpu_ptr(percpu, any) -> percpu?
154 this_cpu_ptr(percpu) -> percpu
155 redirect_peer(any, any) -> int
156 task_storage_get(map, btf:task_struct?, value?, any) -> value?
157 task_storage_delete(map, btf:task_struct?) -> int
158 get_current_task_btf() -> btf:task_struct gpl
159 bprm_opts_set(btf:linux_binprm, any) -> int
160 ktime_get_coarse_ns() -> int
161 ima_inode_hash(btf:inode, out, size) -> int sleeps
162 sock_from_file(btf:file) -> btf:socket?
163 check_mtu(ctx, any, rw4, any, any) -> int gpl
164 for_each_map_elem(map, func, stack?, any) -> int
165 snprintf(rw?, size0, str, mem?, size0) -> int gpl
166 sys_bpf(any, mem, size) -> int
167 btf_find_by_name_kind(mem, size, any, any) -> int
168 sys_close(any) -> int
169 timer_init(timer, map, any) -> int gpl
170 timer_set_callback(timer, func) -> int gpl
171 timer_start(timer, any, any) -> int gpl
172 timer_cancel(timer) -> int gpl
173 get_func_ip(ctx) -> int gpl
174 get_attach_cookie(ctx) -> int
175 task_pt_regs(btf:task_struct) -> btf:pt_regs gpl
176 get_branch_snapshot(out, size0, any) -> int gpl
177 trace_vprintk(mem, size, mem?, size0) -> int gpl
178 skc_to_unix_sock(anysk) -> btf:unix_sock?
179 kallsyms_lookup_name(mem, size0, any, out8) -> int
180 find_vma(btf:task_struct, any, func, stack?, any) -> int
181 loop(any, func, stack?, any) -> int
182 strncmp(mem, size, str) -> int
183 get_func_arg(ctx, any, out8) -> int
184 get_func_ret(ctx, out8) -> int
185 get_func_arg_cnt(ctx) -> int
186 get_retval() -> int
187 set_retval(any) -> int
188 xdp_get_buff_len(ctx) -> int
189 xdp_load_bytes(ctx, any, out, size) -> int
190 xdp_store_bytes(ctx, any, mem, size) -> int
191 copy_from_user_task(out, size0, any, btf:task_struct, any) -> int gpl sleeps
192 skb_set_tstamp(ctx, any, any) -> int
193 ima_file_hash(btf:file, out, size) -> int sleeps
194 kptr_xchg(kptr, -btf:*?) -> kptr?
195 map_lookup_percpu_elem(map, key, any) -> value? pkt
196 skc_to_mptcp_sock(skc) -> btf:mptcp_sock?
197 dynptr_from_mem(rw, size0, any, newdynptr) -> int
198 ringbuf_reserve_dynptr(map, any, any, newdynptr) -> int
199 ringbuf_submit_dynptr(-rbdynptr, any) -> void
200 ringbuf_discard_dynptr(-rbdynptr, any) -> void
201 dynptr_read(out, size0, dynptr, any, any) -> int
202 dynptr_write(dynptr, any, mem, size0, any) -> int
203 dynptr_data(dynptr, any, alloc) -> mem?
204 tcp_raw_gen_syncookie_ipv4(mem20, mem, size0) -> int gpl pkt
205 tcp_raw_gen_syncookie_ipv6(mem40, mem, size0) -> int gpl pkt
206 tcp_raw_check_syncookie_ipv4(mem20, mem20) -> int gpl pkt
207 tcp_raw_check_syncookie_ipv6(mem40, mem20) -> int gpl pkt
208 ktime_get_tai_ns() -> int
209 user_ringbuf_drain(map, func, stack?, any) -> int
210 cgrp_storage_get(map, btf:cgroup?, value?, any) -> value?
211 cgrp_storage_delete(map, btf:cgroup?) -> int
"""

_TRACING_ROWS: Final = """
46 get_socket_cookie(anysk?) -> int
188 xdp_get_buff_len(btf:xdp_buff) -> int
"""
_CLASSIFIER_ROWS: Final = """
17 get_cgroup_classid(ctx) -> int
"""
_SOCKOPT_ROWS: Final = """
49 setsockopt(anysk, any, any, mem, size) -> int
57 getsockopt(anysk, any, any, out, size) -> int
"""
_CGROUP_SOCK_ROWS: Final = """
107 sk_storage_get(map, ctx, value?, any) -> value?
"""
_REUSEPORT_ROWS: Final = """
46 get_socket_cookie(anysk) -> int
"""
_SK_LOOKUP_ROWS: Final = """
124 sk_assign(ctx, skc?, any) -> int
"""

_ROW: Final = re.compile(r"(\d+) (\w+)\((.*)\) -> (\S+)((?: \w+)*)")
_ARGUMENT: Final = re.compile(r"(-?)(new|rb|out(?=value))?([a-z]+)(\d*)(?::([\w*]+))?(\??)")


def helper_by_id(id: int, type: ProgramType = ProgramType.UNSPEC) -> Helper | None:
    """The prototype of helper `id` as programs of `type` see it; None when Linux 6.18 has none."""
    return VARIANTS.get(type, HELPERS).get(id) or HELPERS.get(id)


def parse_row(line: str) -> Helper:
    """The prototype that a row says."""
    row = _ROW.fullmatch(line)
    assert row is not None, line
    words, flags = row[3].split(", "), row[5].split()
    assert {"gpl", "packet", "pkt", "sleeps", "variadic"}.issuperset(flags), line
    return Helper(
        id=int(row[1]),
        name=row[2],
        arguments=tuple(_argument(text) for text in words if text),
        result=_result(row[4]),
        gpl_only="gpl" in flags,
        changes_packet="packet" in flags,
        takes_packet="pkt" in flags,
        may_sleep="sleeps" in flags,
        is_variadic="variadic" in flags,
    )


def _argument(text: str) -> Argument:
    parts = _ARGUMENT.fullmatch(text)
    assert parts is not None, text
    release, prefix, word, size, btf, nullable = parts.groups()
    kind = {"rw": "mem", "out": "mem", "size": "size"}.get(word, word)
    is_written_only = word == "out" or prefix in ("new", "out")
    if kind in ("size", "alloc"):
        return Argument(ArgumentKind(kind), may_be_zero=kind == "alloc" or size == "0")
    return Argument(
        ArgumentKind(kind),
        is_nullable=bool(nullable),
        reads=not is_written_only,
        writes=is_written_only or word == "rw",
        size=int(size or 0),
        releases=bool(release),
        btf="ringbuf" if prefix == "rb" else btf or "",
    )


def _result(text: str) -> Result:
    kind, _, btf = text.rstrip("?").partition(":")
    return Result(ResultKind(kind), text.endswith("?"), btf)


def _table(text: str) -> Rows[int, str, Helper]:
    return Rows({int(line.partition(" ")[0]): line for line in text.split("\n") if line}, parse_row)


def _name(line: str) -> str:
    return line[line.index(" ") + 1 : line.index("(")]


HELPERS: Final = _table(_ROWS)
VARIANTS: Final[Mapping[ProgramType, Mapping[int, Helper]]] = {
    ProgramType.TRACING: _table(_TRACING_ROWS + _SOCKOPT_ROWS),
    ProgramType.LSM: _table(_TRACING_ROWS + _SOCKOPT_ROWS),
    ProgramType.SYSCALL: _table(_TRACING_ROWS),
    ProgramType.SCHED_CLS: _table(_CLASSIFIER_ROWS),
    ProgramType.SCHED_ACT: _table(_CLASSIFIER_ROWS),
    ProgramType.LWT_XMIT: _table(_CLASSIFIER_ROWS),
    ProgramType.CGROUP_SOCKOPT: _table(_SOCKOPT_ROWS),
    ProgramType.CGROUP_SOCK: _table(_CGROUP_SOCK_ROWS),
    ProgramType.SK_REUSEPORT: _table(_REUSEPORT_ROWS),
    ProgramType.SK_LOOKUP: _table(_SK_LOOKUP_ROWS),
}
HELPER_IDS: Final[Mapping[str, int]] = {f"bpf_{_name(line)}": id for id, line in HELPERS.lines.items()}
