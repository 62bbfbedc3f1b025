"""Which helpers each program type may call, as Linux 6.18 answers when asked (one probe program a helper and
type).

A set is text, `1-3 5 7`: helper numbers and ranges. Every type has COMMON and its own row; a type whose
attach types differ has a row for each that adds something. LSM, LIRC_MODE2, STRUCT_OPS and the fentry kind of
TRACING could not be probed and follow the kernel's *_func_proto functions; so do 36 and 58, which a
locked-down kernel refuses. EXT programs have what the program they extend has.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from ir.kinds import AttachType, ProgramType

COMMON: Final = (
    "1-3 5-8 12 14-17 22 35 37 42 55 80 87-89 93-94 105-106 109 112-115 117-118 120 123 125 130-134 141 "
    "148-149 153-154 156-158 164-165 169-172 175-177 180-182 191 194-195 197-203 208-211"
)

_TRACE: Final = "4 25 27 45 67"
_SKC_CAST: Final = "136-140 178 196"
_TRACING: Final = f"{_TRACE} 36 46 107-108 111 121 147 162 188 {_SKC_CAST}"
_LWT: Final = f"24-26 28 33-34 39 160 {_SKC_CAST}"
_SOCK_ADDR: Final = f"25 46 49 57 81 84-86 99 107-108 122 160 {_SKC_CAST}"
_CLASSIFIER: Final = (
    "9-11 13 18-21 23-26 28-34 38-41 43 46-48 50 66 68-69 79 83-86 95-100 107-108 110 122 124 135 151-152 "
    f"155 160 163 192 204-207 {_SKC_CAST}"
)

BY_TYPE: Final[Mapping[ProgramType, str]] = {
    ProgramType.SOCKET_FILTER: f"25-26 46-47 68 122 160 {_SKC_CAST}",
    ProgramType.KPROBE: f"{_TRACE} 36 58 173-174",
    ProgramType.SCHED_CLS: _CLASSIFIER,
    ProgramType.SCHED_ACT: _CLASSIFIER,
    ProgramType.TRACEPOINT: f"{_TRACE} 36 174",
    ProgramType.XDP: f"23 25 28 44 51 54 65 69 84-86 99-100 110 160 163 188-190 204-207 {_SKC_CAST}",
    ProgramType.PERF_EVENT: f"{_TRACE} 36 174 56 119",
    ProgramType.CGROUP_SKB: f"25-26 46-47 68 79 81 83-86 95-99 107-108 122 128-129 160 {_SKC_CAST}",
    ProgramType.CGROUP_SOCK: "25 46 81 107 122 160 186-187",
    ProgramType.LWT_IN: f"{_LWT} 73",
    ProgramType.LWT_OUT: _LWT,
    ProgramType.LWT_XMIT: f"9-11 13 20-21 23 29-30 38 40-41 43 73 135 {_LWT}",
    ProgramType.SOCK_OPS: f"25 46 49 53 57 59 70 81 96 107-108 122 142-144 160 {_SKC_CAST}",
    ProgramType.SK_SKB: f"9 25-26 38-39 43 46-47 50 52 72 84-86 99 160 {_SKC_CAST}",
    ProgramType.CGROUP_DEVICE: "25 81 186-187",
    ProgramType.SK_MSG: f"25 60-63 71 90-91 107-108 122 160 {_SKC_CAST}",
    ProgramType.RAW_TRACEPOINT: f"{_TRACE} 36 174",
    ProgramType.CGROUP_SOCK_ADDR: _SOCK_ADDR,
    ProgramType.LWT_SEG6LOCAL: f"{_LWT} 74-76",
    ProgramType.LIRC_MODE2: "77-78 92",
    ProgramType.SK_REUSEPORT: "26 46 68 82 160",
    ProgramType.FLOW_DISSECTOR: f"26 160 {_SKC_CAST}",
    ProgramType.CGROUP_SYSCTL: "25 81 101-104 160 186-187",
    ProgramType.RAW_TRACEPOINT_WRITABLE: f"{_TRACE} 36 174",
    ProgramType.CGROUP_SOCKOPT: "25 81 96 107-108 122 186-187",
    ProgramType.TRACING: _TRACING,
    ProgramType.STRUCT_OPS: f"107-108 116 160 {_SKC_CAST}",
    ProgramType.LSM: f"{_TRACING} 49 57 122 145-146 159 161 183-185 193",
    ProgramType.SK_LOOKUP: f"25 86 124 160 {_SKC_CAST}",
    ProgramType.SYSCALL: "4 25 27 36 45-46 67 107-108 111 121 147 162 166-168 179 188 " + _SKC_CAST,
    ProgramType.NETFILTER: "",
}

_FENTRY: Final = "173-174 183-185"
_VERDICT: Final = "186-187"

BY_ATTACH_TYPE: Final[Mapping[AttachType, str]] = {
    AttachType.TRACE_RAW_TP: "174",
    AttachType.TRACE_ITER: "126-127 150",
    AttachType.TRACE_FENTRY: _FENTRY,
    AttachType.TRACE_FEXIT: _FENTRY,
    AttachType.MODIFY_RETURN: _FENTRY,
    AttachType.LSM_MAC: "174",
    AttachType.CGROUP_INET4_BIND: _VERDICT,
    AttachType.CGROUP_INET6_BIND: _VERDICT,
    AttachType.CGROUP_INET4_CONNECT: f"64 {_VERDICT}",
    AttachType.CGROUP_INET6_CONNECT: f"64 {_VERDICT}",
    AttachType.CGROUP_UNIX_CONNECT: _VERDICT,
    AttachType.CGROUP_UDP4_SENDMSG: _VERDICT,
    AttachType.CGROUP_UDP6_SENDMSG: _VERDICT,
    AttachType.CGROUP_UNIX_SENDMSG: _VERDICT,
    AttachType.CGROUP_SETSOCKOPT: "49 57",
}


# Iterators over sockets may set their options (tcp_reg_info, unix_reg_info).
BY_ITERATOR: Final[Mapping[str, str]] = {"tcp": "49 57", "unix": "49 57"}


@cache
def allowed_helpers(
    type: ProgramType, attach_type: AttachType | None = None, target: str = ""
) -> frozenset[int]:
    """The numbers of the helpers that programs of `type`, attached as `attach_type` to `target`, may call.

    Raw programs (UNSPEC) have no restriction of their own: the set is that of every type together.
    """
    if type is ProgramType.UNSPEC:
        return _numbers(" ".join((COMMON, *BY_TYPE.values(), *BY_ATTACH_TYPE.values())))
    own = "" if attach_type is None else BY_ATTACH_TYPE.get(attach_type, "")
    if attach_type is AttachType.TRACE_ITER:
        own = f"{own} {BY_ITERATOR.get(target, '')}"
    return _numbers(COMMON) | _numbers(BY_TYPE.get(type, "")) | _numbers(own)


def _numbers(text: str) -> frozenset[int]:
    found: set[int] = set()
    for item in text.split():
        first, _, last = item.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
