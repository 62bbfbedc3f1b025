"""What an ELF section name says about the program in it: type, attach type, target.

    SEC("?fentry.s/do_unlinkat")      ? not loaded unless asked, fentry.s a row of the table, then the target

The rows are libbpf's (its section_defs). A pattern that ends in "+" stands alone or before "/target"; any
other is matched whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ir.kinds import AttachType as A
from ir.kinds import ProgramType as P


@final
@dataclass(frozen=True, slots=True)
class SectionRow:
    """A section name: `pattern`, and what a program in such a section is."""

    pattern: str
    type: P
    attach_type: A | None = None
    is_sleepable: bool = False
    has_frags: bool = False

    @property
    def stem(self) -> str:
        """The pattern without its "+"."""
        return self.pattern.removesuffix("+")


@final
@dataclass(frozen=True, slots=True)
class SectionMeaning:
    """What a section name means; `is_exact` is False when only libbpf before 1.0 would have understood it."""

    row: SectionRow
    target: str = ""
    autoload: bool = True
    is_exact: bool = True


def _tracing(name: str, attach_type: A) -> tuple[SectionRow, ...]:
    return (
        SectionRow(f"{name}+", P.TRACING, attach_type),
        SectionRow(f"{name}.s+", P.TRACING, attach_type, is_sleepable=True),
    )


def _plain_and_sleepable(name: str, type: P, attach_type: A | None = None) -> tuple[SectionRow, ...]:
    return SectionRow(f"{name}+", type, attach_type), SectionRow(f"{name}.s+", type, attach_type, True)


SECTION_ROWS: tuple[SectionRow, ...] = (
    SectionRow("socket", P.SOCKET_FILTER),
    SectionRow("sk_reuseport/migrate", P.SK_REUSEPORT, A.SK_REUSEPORT_SELECT_OR_MIGRATE),
    SectionRow("sk_reuseport", P.SK_REUSEPORT, A.SK_REUSEPORT_SELECT),
    SectionRow("kprobe+", P.KPROBE),
    SectionRow("kretprobe+", P.KPROBE),
    *_plain_and_sleepable("uprobe", P.KPROBE),
    *_plain_and_sleepable("uretprobe", P.KPROBE),
    SectionRow("kprobe.multi+", P.KPROBE, A.TRACE_KPROBE_MULTI),
    SectionRow("kretprobe.multi+", P.KPROBE, A.TRACE_KPROBE_MULTI),
    SectionRow("kprobe.session+", P.KPROBE, A.TRACE_KPROBE_SESSION),
    *_plain_and_sleepable("uprobe.multi", P.KPROBE, A.TRACE_UPROBE_MULTI),
    *_plain_and_sleepable("uretprobe.multi", P.KPROBE, A.TRACE_UPROBE_MULTI),
    *_plain_and_sleepable("uprobe.session", P.KPROBE, A.TRACE_UPROBE_SESSION),
    SectionRow("ksyscall+", P.KPROBE),
    SectionRow("kretsyscall+", P.KPROBE),
    *_plain_and_sleepable("usdt", P.KPROBE),
    SectionRow("tc/ingress", P.SCHED_CLS, A.TCX_INGRESS),
    SectionRow("tc/egress", P.SCHED_CLS, A.TCX_EGRESS),
    SectionRow("tcx/ingress", P.SCHED_CLS, A.TCX_INGRESS),
    SectionRow("tcx/egress", P.SCHED_CLS, A.TCX_EGRESS),
    SectionRow("tc", P.SCHED_CLS),
    SectionRow("classifier", P.SCHED_CLS),
    SectionRow("action", P.SCHED_ACT),
    SectionRow("netkit/primary", P.SCHED_CLS, A.NETKIT_PRIMARY),
    SectionRow("netkit/peer", P.SCHED_CLS, A.NETKIT_PEER),
    *_plain_and_sleepable("tracepoint", P.TRACEPOINT),
    *_plain_and_sleepable("tp", P.TRACEPOINT),
    *_plain_and_sleepable("raw_tracepoint", P.RAW_TRACEPOINT),
    *_plain_and_sleepable("raw_tp", P.RAW_TRACEPOINT),
    SectionRow("raw_tracepoint.w+", P.RAW_TRACEPOINT_WRITABLE),
    SectionRow("raw_tp.w+", P.RAW_TRACEPOINT_WRITABLE),
    *_tracing("tp_btf", A.TRACE_RAW_TP),
    *_tracing("fentry", A.TRACE_FENTRY),
    *_tracing("fmod_ret", A.MODIFY_RETURN),
    *_tracing("fexit", A.TRACE_FEXIT),
    *_tracing("fsession", A.TRACE_FSESSION),
    *_tracing("fsession.multi", A.TRACE_FSESSION_MULTI),
    *_tracing("fentry.multi", A.TRACE_FENTRY_MULTI),
    *_tracing("fexit.multi", A.TRACE_FEXIT_MULTI),
    SectionRow("freplace+", P.EXT),
    *_plain_and_sleepable("lsm", P.LSM, A.LSM_MAC),
    SectionRow("lsm_cgroup+", P.LSM, A.LSM_CGROUP),
    *_tracing("iter", A.TRACE_ITER),
    SectionRow("syscall", P.SYSCALL, is_sleepable=True),
    SectionRow("xdp.frags/devmap", P.XDP, A.XDP_DEVMAP, has_frags=True),
    SectionRow("xdp/devmap", P.XDP, A.XDP_DEVMAP),
    SectionRow("xdp.frags/cpumap", P.XDP, A.XDP_CPUMAP, has_frags=True),
    SectionRow("xdp/cpumap", P.XDP, A.XDP_CPUMAP),
    SectionRow("xdp.frags", P.XDP, A.XDP, has_frags=True),
    SectionRow("xdp", P.XDP, A.XDP),
    SectionRow("perf_event", P.PERF_EVENT),
    SectionRow("lwt_in", P.LWT_IN),
    SectionRow("lwt_out", P.LWT_OUT),
    SectionRow("lwt_xmit", P.LWT_XMIT),
    SectionRow("lwt_seg6local", P.LWT_SEG6LOCAL),
    SectionRow("sockops", P.SOCK_OPS, A.CGROUP_SOCK_OPS),
    SectionRow("sk_skb/stream_parser", P.SK_SKB, A.SK_SKB_STREAM_PARSER),
    SectionRow("sk_skb/stream_verdict", P.SK_SKB, A.SK_SKB_STREAM_VERDICT),
    SectionRow("sk_skb/verdict", P.SK_SKB, A.SK_SKB_VERDICT),
    SectionRow("sk_skb", P.SK_SKB),
    SectionRow("sk_msg", P.SK_MSG, A.SK_MSG_VERDICT),
    SectionRow("lirc_mode2", P.LIRC_MODE2, A.LIRC_MODE2),
    SectionRow("flow_dissector", P.FLOW_DISSECTOR, A.FLOW_DISSECTOR),
    SectionRow("cgroup_skb/ingress", P.CGROUP_SKB, A.CGROUP_INET_INGRESS),
    SectionRow("cgroup_skb/egress", P.CGROUP_SKB, A.CGROUP_INET_EGRESS),
    SectionRow("cgroup/skb", P.CGROUP_SKB),
    SectionRow("cgroup/sock_create", P.CGROUP_SOCK, A.CGROUP_INET_SOCK_CREATE),
    SectionRow("cgroup/sock_release", P.CGROUP_SOCK, A.CGROUP_INET_SOCK_RELEASE),
    SectionRow("cgroup/sock", P.CGROUP_SOCK, A.CGROUP_INET_SOCK_CREATE),
    SectionRow("cgroup/post_bind4", P.CGROUP_SOCK, A.CGROUP_INET4_POST_BIND),
    SectionRow("cgroup/post_bind6", P.CGROUP_SOCK, A.CGROUP_INET6_POST_BIND),
    SectionRow("cgroup/bind4", P.CGROUP_SOCK_ADDR, A.CGROUP_INET4_BIND),
    SectionRow("cgroup/bind6", P.CGROUP_SOCK_ADDR, A.CGROUP_INET6_BIND),
    SectionRow("cgroup/connect4", P.CGROUP_SOCK_ADDR, A.CGROUP_INET4_CONNECT),
    SectionRow("cgroup/connect6", P.CGROUP_SOCK_ADDR, A.CGROUP_INET6_CONNECT),
    SectionRow("cgroup/connect_unix", P.CGROUP_SOCK_ADDR, A.CGROUP_UNIX_CONNECT),
    SectionRow("cgroup/sendmsg4", P.CGROUP_SOCK_ADDR, A.CGROUP_UDP4_SENDMSG),
    SectionRow("cgroup/sendmsg6", P.CGROUP_SOCK_ADDR, A.CGROUP_UDP6_SENDMSG),
    SectionRow("cgroup/sendmsg_unix", P.CGROUP_SOCK_ADDR, A.CGROUP_UNIX_SENDMSG),
    SectionRow("cgroup/recvmsg4", P.CGROUP_SOCK_ADDR, A.CGROUP_UDP4_RECVMSG),
    SectionRow("cgroup/recvmsg6", P.CGROUP_SOCK_ADDR, A.CGROUP_UDP6_RECVMSG),
    SectionRow("cgroup/recvmsg_unix", P.CGROUP_SOCK_ADDR, A.CGROUP_UNIX_RECVMSG),
    SectionRow("cgroup/getpeername4", P.CGROUP_SOCK_ADDR, A.CGROUP_INET4_GETPEERNAME),
    SectionRow("cgroup/getpeername6", P.CGROUP_SOCK_ADDR, A.CGROUP_INET6_GETPEERNAME),
    SectionRow("cgroup/getpeername_unix", P.CGROUP_SOCK_ADDR, A.CGROUP_UNIX_GETPEERNAME),
    SectionRow("cgroup/getsockname4", P.CGROUP_SOCK_ADDR, A.CGROUP_INET4_GETSOCKNAME),
    SectionRow("cgroup/getsockname6", P.CGROUP_SOCK_ADDR, A.CGROUP_INET6_GETSOCKNAME),
    SectionRow("cgroup/getsockname_unix", P.CGROUP_SOCK_ADDR, A.CGROUP_UNIX_GETSOCKNAME),
    SectionRow("cgroup/sysctl", P.CGROUP_SYSCTL, A.CGROUP_SYSCTL),
    SectionRow("cgroup/getsockopt", P.CGROUP_SOCKOPT, A.CGROUP_GETSOCKOPT),
    SectionRow("cgroup/setsockopt", P.CGROUP_SOCKOPT, A.CGROUP_SETSOCKOPT),
    SectionRow("cgroup/dev", P.CGROUP_DEVICE, A.CGROUP_DEVICE),
    *_plain_and_sleepable("struct_ops", P.STRUCT_OPS),
    SectionRow("sk_lookup", P.SK_LOOKUP, A.SK_LOOKUP),
    SectionRow("netfilter", P.NETFILTER, A.NETFILTER),
)

ROW_BY_STEM = {row.stem: row for row in SECTION_ROWS}
_LONGEST_FIRST = sorted(SECTION_ROWS, key=lambda row: -len(row.stem))
UNKNOWN = SectionMeaning(SectionRow("", P.UNSPEC))


def section_meaning(name: str) -> SectionMeaning:
    """What section `name` says of the program in it; a type of UNSPEC when it says nothing.

    A name that only begins like a pattern ("xdp_filter", "socket1") means what it meant before libbpf 1.0.
    """
    plain = name.removeprefix("?")
    autoload = plain == name
    exact = ROW_BY_STEM.get(plain)
    if exact is not None:
        return SectionMeaning(exact, autoload=autoload)
    stem, _, target = plain.partition("/")
    row = ROW_BY_STEM.get(stem)
    if row is not None and row.pattern.endswith("+"):
        return SectionMeaning(row, target, autoload)
    for row in _LONGEST_FIRST:
        if plain.startswith(row.stem):
            rest = plain[len(row.stem) :]
            return SectionMeaning(row, rest[1:] if rest[0] == "/" else "", autoload, is_exact=False)
    return SectionMeaning(UNKNOWN.row, autoload=autoload)
