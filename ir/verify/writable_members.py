"""The members of kernel structures that programs may store into (the kernel's btf_struct_access functions)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ir.btf import Btf
from ir.btf_types import Struct
from ir.kinds import ProgramType

_CONNECTION: Final = ("mark",)
_SOCKET: Final = "inet_conn.icsk_inet.sk."
_MEMBERS: Final[Mapping[tuple[ProgramType, str], tuple[str, ...]]] = {
    (ProgramType.STRUCT_OPS, "tcp_sock"): (
        *(_SOCKET + name for name in ("sk_pacing_rate", "sk_pacing_status")),
        *("inet_conn.icsk_ca_priv", "inet_conn.icsk_ack.pending", "snd_cwnd", "snd_cwnd_cnt"),
        *("snd_cwnd_stamp", "snd_ssthresh", "ecn_flags", "app_limited"),
    ),
    (ProgramType.STRUCT_OPS, "bpf_dummy_ops_state"): ("val",),
    (ProgramType.XDP, "nf_conn"): _CONNECTION,
    (ProgramType.XDP, "nf_conn___init"): ("ct.mark",),
    (ProgramType.SCHED_CLS, "nf_conn"): _CONNECTION,
    (ProgramType.SCHED_CLS, "nf_conn___init"): ("ct.mark",),
}


def writable_ranges(type: ProgramType, kernel: Btf, struct_id: int) -> tuple[tuple[int, int], ...]:
    """The byte ranges [low, high) of a structure that programs of `type` may store into."""
    names = _MEMBERS.get((type, kernel.name(struct_id)), ())
    return tuple(found for name in names if (found := _place(kernel, struct_id, name)) is not None)


def _place(kernel: Btf, struct_id: int, path: str) -> tuple[int, int] | None:
    offset, id = 0, struct_id
    for name in path.split("."):
        found = _member(kernel, id, name)
        if found is None:
            return None
        offset, id = offset + found[0], found[1]
    return offset, offset + kernel.size_of(id)


def _member(kernel: Btf, id: int, name: str) -> tuple[int, int] | None:
    """The offset and the type of a member, looked for in unnamed members too."""
    struct = kernel.type(kernel.strip(id))
    for member in struct.members if isinstance(struct, Struct) else ():
        if member.name == name:
            return member.bit_offset // 8, member.type_id
        inner = _member(kernel, member.type_id, name) if not member.name else None
        if inner is not None:
            return member.bit_offset // 8 + inner[0], inner[1]
    return None
