"""Helpers about what only a kernel has: sockets, cgroups, tunnels, routes. Here there is none, and they say so.

A program sees what it would see in a kernel where nothing was found; a user who wants more overrides them.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EACCES, EINVAL, ENOENT, ENOPROTOOPT, EOPNOTSUPP
from typing import Final

from backends.helpers.row import HelperRow, Site
from backends.maps.shape import clear_bytes
from backends.writer import Writer
from ir.context import Pointer

_NOT_FORWARDED: Final = 4  # BPF_FIB_LKUP_RET_NOT_FWDED
_SK_PASS: Final = 1
_MTU: Final = 1500
_ETH_HLEN: Final = 14
_FRAG_NEEDED: Final = 1


def number(value: int) -> HelperRow:
    """Always this number."""

    def emit(w: Writer, site: Site) -> None:
        w.ret(value)

    return HelperRow(emit)


def nothing() -> HelperRow:
    """Never an address."""

    def emit(w: Writer, site: Site) -> None:
        w.ret(w.null())

    return HelperRow(emit, returns_pointer=True)


def cleared(errno: int, memory: str, size: str) -> HelperRow:
    """Fail, with zeros in the memory that the program passed."""

    def emit(w: Writer, site: Site) -> None:
        clear_bytes(w, w[memory], w[size] & 0xFFFF_FFFF)
        w.ret(-errno)

    return HelperRow(emit, is_small=False)


def _each(row: Callable[[], HelperRow], names: str) -> dict[str, HelperRow]:
    return {name: row() for name in names.split()}


def check_mtu(w: Writer, site: Site) -> None:
    """Every interface takes 1500 bytes: *r3 = 1500; 1 (fragmentation needed) when *r3 or the packet, and r4, are more."""
    place = w["r3"]
    with w.if_((w["r5"] & ~1).ne(0)):
        w.ret(-EINVAL)
    asked = place.load("i32", align=1).to("i64")
    own = w["r1"].load("i64", Pointer.DATA_END.value) - w["r1"].load("i64", Pointer.DATA.value) - _ETH_HLEN
    has_packet = w["r1"].load("i64", Pointer.DATA.value).ne(0)
    size = asked.eq(0).choose(has_packet.choose(own, 0), asked) + w["r4"].to("i32").signed_to("i64")
    place.store(w.i32(_MTU), align=1)
    w.ret(size.sgt(_MTU).choose(w.i64(_FRAG_NEEDED), 0))


ANSWERS: Final = {
    "check_mtu": HelperRow(check_mtu, is_small=False),
    **_each(
        lambda: number(0),
        "get_cgroup_classid get_route_realm skb_cgroup_classid get_socket_cookie skb_cgroup_id "
        "skb_ancestor_cgroup_id get_current_ancestor_cgroup_id sk_cgroup_id sk_ancestor_cgroup_id "
        "get_netns_cookie sk_release sk_assign msg_apply_bytes msg_cork_bytes sock_ops_cb_flags_set "
        "skb_set_tunnel_key skb_set_tunnel_opt skb_under_cgroup skb_ecn_set_ce reserve_hdr_opt",
    ),
    **_each(
        nothing,
        "sk_lookup_tcp sk_lookup_udp skc_lookup_tcp sk_fullsock tcp_sock get_listener_sock skc_to_tcp6_sock "
        "skc_to_tcp_sock skc_to_tcp_timewait_sock skc_to_tcp_request_sock skc_to_udp6_sock skc_to_unix_sock "
        "skc_to_mptcp_sock sock_from_file",
    ),
    **_each(lambda: number(_SK_PASS), "sk_redirect_map sk_redirect_hash msg_redirect_map msg_redirect_hash"),
    "kallsyms_lookup_name": number(-ENOENT),
    "csum_level": number(-EACCES),  # the packet has no checksum of a device
    **_each(lambda: number(-ENOENT), "tcp_check_syncookie tcp_gen_syncookie"),
    **_each(lambda: number(-EINVAL), "send_signal_thread tcp_send_ack sk_select_reuseport bind"),
    **_each(lambda: number(-EOPNOTSUPP), "sock_map_update sock_hash_update store_hdr_opt lwt_push_encap"),
    "fib_lookup": number(_NOT_FORWARDED),
    "get_socket_uid": number(0xFFFF_FFFF),  # overflowuid: there is no socket
    "setsockopt": number(-ENOPROTOOPT),
    "getsockopt": cleared(ENOPROTOOPT, "r4", "r5"),
    "skb_get_tunnel_key": cleared(EINVAL, "r2", "r3"),
    "skb_get_tunnel_opt": cleared(ENOENT, "r2", "r3"),
    "skb_get_xfrm_state": cleared(ENOENT, "r3", "r4"),
    "perf_event_read_value": cleared(ENOENT, "r3", "r4"),
    "perf_prog_read_value": cleared(ENOENT, "r2", "r3"),
    "load_hdr_opt": number(-ENOENT),
    "read_branch_records": number(-ENOENT),
    "get_branch_snapshot": cleared(ENOENT, "r1", "r2"),
}
