"""What a program's return value means, by program type (include/uapi/linux/bpf.h and pkt_cls.h)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ir.kinds import ProgramType

_XDP: Final = {0: "XDP_ABORTED", 1: "XDP_DROP", 2: "XDP_PASS", 3: "XDP_TX", 4: "XDP_REDIRECT"}
_TC: Final = {
    -1: "TC_ACT_UNSPEC",
    0: "TC_ACT_OK",
    1: "TC_ACT_RECLASSIFY",
    2: "TC_ACT_SHOT",
    3: "TC_ACT_PIPE",
    4: "TC_ACT_STOLEN",
    5: "TC_ACT_QUEUED",
    6: "TC_ACT_REPEAT",
    7: "TC_ACT_REDIRECT",
    8: "TC_ACT_TRAP",
}
_LWT: Final = {0: "BPF_OK", 2: "BPF_DROP", 7: "BPF_REDIRECT", 128: "BPF_LWT_REROUTE"}
_SK: Final = {0: "SK_DROP", 1: "SK_PASS"}

VERDICTS: Final[Mapping[ProgramType, Mapping[int, str]]] = {
    ProgramType.XDP: _XDP,
    ProgramType.SCHED_CLS: _TC,
    ProgramType.SCHED_ACT: _TC,
    ProgramType.LWT_IN: _LWT,
    ProgramType.LWT_OUT: _LWT,
    ProgramType.LWT_XMIT: _LWT,
    ProgramType.LWT_SEG6LOCAL: _LWT,
    ProgramType.SK_SKB: _SK,
    ProgramType.SK_MSG: _SK,
    ProgramType.SK_LOOKUP: _SK,
    ProgramType.SK_REUSEPORT: _SK,
    ProgramType.CGROUP_SKB: {0: "drop", 1: "pass", 2: "drop, congested", 3: "pass, congested"},
    ProgramType.FLOW_DISSECTOR: {0: "BPF_OK", 2: "BPF_DROP", 129: "BPF_FLOW_DISSECTOR_CONTINUE"},
    ProgramType.NETFILTER: {0: "NF_DROP", 1: "NF_ACCEPT"},
}
"""The values that have a name; others are numbers."""

_DROPS: Final = frozenset(
    {"XDP_ABORTED", "XDP_DROP", "TC_ACT_SHOT", "TC_ACT_STOLEN", "BPF_DROP", "SK_DROP", "NF_DROP"}
)


def name_verdict(type: ProgramType, ret: int) -> str:
    """The name of what r0 (64 bits) says: "XDP_PASS"; a number where there is none."""
    if type is ProgramType.UNSPEC:
        return f"{ret:#x}"
    low = ret & 0xFFFF_FFFF
    if type is ProgramType.SOCKET_FILTER:
        return f"keep {low}" if low else "drop"
    value = low - (1 << 32) if low >> 31 else low
    return VERDICTS.get(type, {}).get(value, str(value))


def is_dropped(type: ProgramType, ret: int) -> bool:
    """Whether the packet goes nowhere."""
    name = name_verdict(type, ret)
    return name in _DROPS or name.startswith("drop")
