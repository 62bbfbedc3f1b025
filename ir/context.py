"""Context layouts: what r1 points at when a program starts, and how its fields are kept in our memory.

The runtime keeps the user's structure (xdp_md, __sk_buff, ...) as an image in the program's byte order, behind a header
that holds the 64-bit packet pointers. Lowering turns a 32-bit load of a packet-pointer field into a 64-bit load from the
header, as the kernel converts context accesses; every other field is read where it stands, HEADER bytes further on.

    own address  0       8          16          24               32             40            64
                 | data  | data_end | data_meta | packet_start   | packet_end   | rxq (XDP)   | image of the user's structure
                                                 (head room)      (tail room)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, final

from ir.kinds import ProgramType

HEADER: Final = 64


class Argument(Enum):
    """What a register holds when a program starts."""

    CONTEXT = "context"
    MEMORY = "memory"  # raw memory, as long as the next one says
    LENGTH = "length"
    NUMBER = "number"
    ADDRESS = "address"  # of memory that nothing is known of


class Pointer(Enum):
    """Packet pointers kept in the header; the value is the offset there."""

    DATA = 0
    DATA_END = 8
    DATA_META = 16
    PACKET_START = 24
    PACKET_END = 32


@final
@dataclass(frozen=True)
class ContextLayout:
    """A context structure: its `size` in bytes, `pointers` by field offset, writable byte ranges (start, end).

    `is_raw`: r1 points at plain memory of r2 bytes instead, and nothing is converted. `returns` is what r0 must lie in
    (a tracing program). An extension gets what the function gets that it stands for, `entry`; it answers for the program
    only if that `is_main`; callers expect r0 to be a number of `result` (bytes, signed).
    `pointees` are what its ADDRESS arguments surely point to: (bytes, whether it may be NULL), 0 where that is not known.
    `objects` are the structures that 64-bit fields point to, by offset (ir/hook_objects.py).
    """

    name: str
    size: int
    pointers: Mapping[int, Pointer] = field(default_factory=dict)
    writable: tuple[tuple[int, int], ...] = ()
    fields: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    is_raw: bool = False
    entry: tuple[Argument, ...] | None = None
    returns: tuple[int, int] | None = None
    is_main: bool = True
    result: tuple[int, bool] = (8, False)
    pointees: tuple[tuple[int, bool], ...] = ()
    objects: Mapping[int, str] = field(default_factory=dict)

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """What r1, r2, ... hold at the start."""
        if self.entry is not None:
            return self.entry
        return (Argument.MEMORY, Argument.LENGTH) if self.is_raw else (Argument.CONTEXT,)

    def is_writable(self, offset: int, size: int) -> bool:
        """Whether a store of `size` bytes at `offset` of the user's structure is allowed."""
        return any(start <= offset and offset + size <= end for start, end in self.writable)


def _fields(text: str) -> dict[str, tuple[int, int]]:
    """name: (offset, size) from a listing 'name:size ...' laid out in order with natural alignment."""
    fields: dict[str, tuple[int, int]] = {}
    offset = 0
    for item in text.split():
        name, size, *count = [*item.split(":"), "1"][:3]
        align = int(size)
        offset = -(-offset // align) * align
        fields[name] = (offset, align * int(count[0]))
        offset += align * int(count[0])
    return fields


_XDP_FIELDS = _fields("data:4 data_end:4 data_meta:4 ingress_ifindex:4 rx_queue_index:4 egress_ifindex:4")
_SKB_FIELDS = _fields(
    "len:4 pkt_type:4 mark:4 queue_mapping:4 protocol:4 vlan_present:4 vlan_tci:4 vlan_proto:4 priority:4 ingress_ifindex:4 "
    "ifindex:4 tc_index:4 cb:4:5 hash:4 tc_classid:4 data:4 data_end:4 napi_id:4 family:4 remote_ip4:4 local_ip4:4 "
    "remote_ip6:4:4 local_ip6:4:4 remote_port:4 local_port:4 data_meta:4 flow_keys:8 tstamp:8 wire_len:4 gso_segs:4 sk:8 "
    "gso_size:4 tstamp_type:1 _pad:1:3 hwtstamp:8"
)


def _pointers(fields: Mapping[str, tuple[int, int]]) -> dict[int, Pointer]:
    named = {"data": Pointer.DATA, "data_end": Pointer.DATA_END, "data_meta": Pointer.DATA_META}
    return {fields[name][0]: pointer for name, pointer in named.items()}


def _span(fields: Mapping[str, tuple[int, int]], *names: str) -> tuple[tuple[int, int], ...]:
    return tuple((fields[name][0], sum(fields[name])) for name in names)


RAW: Final = ContextLayout("raw memory", 0, is_raw=True)
XDP_MD: Final = ContextLayout("xdp_md", 24, _pointers(_XDP_FIELDS), (), _XDP_FIELDS)
SK_BUFF: Final = ContextLayout(
    "__sk_buff",
    192,
    _pointers(_SKB_FIELDS),
    _span(_SKB_FIELDS, "mark", "queue_mapping", "priority", "tc_index", "cb", "tc_classid", "tstamp"),
    _SKB_FIELDS,
)
PLAIN: Final = ContextLayout("context", 4096, writable=((0, 4096),))

LAYOUTS: Final[Mapping[ProgramType, ContextLayout]] = {
    ProgramType.UNSPEC: RAW,
    ProgramType.XDP: XDP_MD,
    ProgramType.SOCKET_FILTER: SK_BUFF,
    ProgramType.SCHED_CLS: SK_BUFF,
    ProgramType.SCHED_ACT: SK_BUFF,
    ProgramType.CGROUP_SKB: SK_BUFF,
    ProgramType.LWT_IN: SK_BUFF,
    ProgramType.LWT_OUT: SK_BUFF,
    ProgramType.LWT_XMIT: SK_BUFF,
    ProgramType.SK_SKB: SK_BUFF,
}


def layout_of(type: ProgramType) -> ContextLayout:
    """The context layout of a program type; types without one of their own see 4096 plain bytes."""
    return LAYOUTS.get(type, PLAIN)
