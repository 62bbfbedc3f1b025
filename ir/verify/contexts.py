"""What programs of each type may read and write in their context, and what they may return.

Found by asking Linux 6.18: one probe program per type, attach type, offset, size and direction. A table is
text, items `offset:size[xcount][n][=pointer]`: `count` fields in a row, each read whole, or (`n`) in aligned
parts too; one that holds a pointer is named after `=`, with `?` when it may be NULL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, final

from ir.kinds import AttachType, ProgramType
from ir.verify.values import AreaKind

_A, _T = AttachType, ProgramType

# type: (readable, writable)
_SKB: Final = "0:4x12n 48:8x2n 64:4x2n 84:4n 164:4n 168:8=skc? 176:4n"
_SKB_PACKET: Final = f"{_SKB} 76:4=data 80:4=end"
_SOCKET: Final = (
    "4:4 4:2 4:1n 8:4 8:2 8:1n 12:4 12:2 12:1n 48:4 48:2n 52:4x5n 72:4 72:2 72:1n 76:4 76:2 76:1n"
)
_BOUND: Final = f"{_SOCKET} 44:4 44:2 44:1n"
_SOCK_ADDR: Final = "0:4 24:4n 28:4x3 64:8=sock"
_SOCK_ADDR4: Final = f"{_SOCK_ADDR} 4:4n"
_SOCK_ADDR6: Final = f"{_SOCK_ADDR} 8:8x2n"
_WRITE4: Final = "4:4 24:4"
_WRITE6: Final = "8:8 8:4x2 16:8 16:4x3"
_STREAM: Final = (
    "0:4x2n 12:4x9n 48:8x2n 64:4x2n 76:4=data 80:4=end 84:4x2n 92:4x10 132:4x2n 164:4n 168:8=skc? 176:4n"
)
_CLASSIFIER: Final = (
    "0:4x12n 48:8x2n 64:4x3n 76:4=data 80:4=end 84:4n 140:4=meta 152:8 160:4x2n 168:8=skc? 176:4n 180:1n 184:8",
    "8:4x2 32:4 44:4 48:8x2n 64:4n 72:4 152:8",
)
_LWT: Final = (_SKB_PACKET, "8:4 32:4 48:8x2n 64:4n")
_UNIX: Final = (_SOCK_ADDR, "24:4")

_TABLES_BY_TYPE: Final[Mapping[ProgramType, tuple[str, str]]] = {
    _T.SOCKET_FILTER: (_SKB, "48:8x2n 64:4n"),
    _T.KPROBE: ("0:8x21n", ""),
    _T.SCHED_CLS: _CLASSIFIER,
    _T.SCHED_ACT: _CLASSIFIER,
    _T.TRACEPOINT: ("8:8x1023n", ""),
    _T.XDP: ("0:4=data 4:4=end 8:4=meta 12:4x2", ""),
    _T.PERF_EVENT: ("0:8x21 168:8x2n", ""),
    _T.LIRC_MODE2: ("0:4", ""),  # the sample; from drivers/media/rc/bpf-lirc.c, for kernels without it
    _T.CGROUP_SKB: (f"{_SKB_PACKET} 88:4n 92:4x10 132:4x2n 152:8 184:8", "8:4 32:4 48:8x2n 64:4n 152:8"),
    _T.CGROUP_SOCK: (f"{_SOCKET} 0:4x2 16:4x2", "0:4 16:4x2"),
    _T.LWT_IN: _LWT,
    _T.LWT_OUT: _LWT,
    _T.LWT_XMIT: _LWT,
    _T.LWT_SEG6LOCAL: _LWT,
    _T.SOCK_OPS: (
        "0:4x42 168:8x2 184:8=sock? 192:8=data 200:8=end 208:4x2 212:2 212:1n 216:8",
        "4:4 164:4",
    ),
    _T.SK_SKB: (_STREAM, "32:4 44:4"),
    _T.CGROUP_DEVICE: ("0:4n 4:4x2", ""),
    _T.SK_MSG: ("0:8=data 8:8=end 16:4x14 72:8=sock", ""),
    _T.RAW_TRACEPOINT: ("0:8x12n", ""),
    _T.RAW_TRACEPOINT_WRITABLE: ("0:8=buffer 1:1n 2:2n 4:4n 8:8x11n", ""),
    _T.SK_REUSEPORT: (
        "0:8=data 8:8=end 16:4n 20:4 20:2x2 24:4x2n 32:4 40:8=sock 48:8=skc?",
        "",
    ),
    _T.FLOW_DISSECTOR: ("76:4=data 80:4=end 144:8=keys", ""),
    _T.CGROUP_SYSCTL: ("0:4x2n", "4:4"),
    _T.SK_LOOKUP: ("0:8=sock? 8:4x15n", ""),
    _T.SYSCALL: ("0:8x8191n", "0:8x8191n"),
    _T.NETFILTER: ("0:8=btf:nf_hook_state 8:8=btf:sk_buff", ""),
}
_TABLES_BY_ATTACH: Final[Mapping[AttachType, tuple[str, str]]] = {
    _A.XDP_DEVMAP: ("0:4=data 4:4=end 8:4=meta 12:4x3", ""),
    _A.CGROUP_INET4_POST_BIND: (f"{_BOUND} 24:4n", ""),
    _A.CGROUP_INET6_POST_BIND: (f"{_BOUND} 28:4x4n", ""),
    _A.CGROUP_INET4_BIND: (_SOCK_ADDR4, _WRITE4),
    _A.CGROUP_INET6_BIND: (_SOCK_ADDR6, _WRITE6),
    _A.CGROUP_INET4_CONNECT: (_SOCK_ADDR4, _WRITE4),
    _A.CGROUP_INET6_CONNECT: (_SOCK_ADDR6, _WRITE6),
    _A.CGROUP_UDP4_SENDMSG: (f"{_SOCK_ADDR4} 40:4n", f"{_WRITE4} 40:4"),
    _A.CGROUP_UDP6_SENDMSG: (f"{_SOCK_ADDR6} 44:4n 48:8n 56:4n", f"{_WRITE6} 44:4 48:8 48:4x3"),
    _A.CGROUP_UDP4_RECVMSG: (_SOCK_ADDR4, _WRITE4),
    _A.CGROUP_UDP6_RECVMSG: (_SOCK_ADDR6, _WRITE6),
    _A.CGROUP_INET4_GETPEERNAME: (_SOCK_ADDR4, _WRITE4),
    _A.CGROUP_INET6_GETPEERNAME: (_SOCK_ADDR6, _WRITE6),
    _A.CGROUP_INET4_GETSOCKNAME: (_SOCK_ADDR4, _WRITE4),
    _A.CGROUP_INET6_GETSOCKNAME: (_SOCK_ADDR6, _WRITE6),
    _A.CGROUP_UNIX_CONNECT: _UNIX,
    _A.CGROUP_UNIX_SENDMSG: _UNIX,
    _A.CGROUP_UNIX_RECVMSG: _UNIX,
    _A.CGROUP_UNIX_GETPEERNAME: _UNIX,
    _A.CGROUP_UNIX_GETSOCKNAME: _UNIX,
    _A.CGROUP_GETSOCKOPT: ("0:8=sock 8:8=data 16:8=end 24:4x4", "32:4x2"),
    _A.CGROUP_SETSOCKOPT: ("0:8=sock 8:8=data 16:8=end 24:4x3", "24:4x3"),
}

_BOOLEAN: Final = (0, 1)
_ALWAYS_ONE: Final = (1, 1)
_BITS: Final = (0, 3)
_RETURNS_BY_TYPE: Final[Mapping[ProgramType, tuple[int, int]]] = {
    _T.CGROUP_SKB: _BOOLEAN,
    _T.CGROUP_SOCK: _BOOLEAN,
    _T.SOCK_OPS: _BOOLEAN,
    _T.CGROUP_DEVICE: _BOOLEAN,
    _T.CGROUP_SOCK_ADDR: _BOOLEAN,
    _T.CGROUP_SYSCTL: _BOOLEAN,
    _T.CGROUP_SOCKOPT: _BOOLEAN,
    _T.SK_LOOKUP: _BOOLEAN,
    _T.NETFILTER: _BOOLEAN,
}
_RETURNS_BY_ATTACH: Final[Mapping[AttachType, tuple[int, int]]] = {
    _A.CGROUP_INET_EGRESS: _BITS,
    _A.CGROUP_INET4_BIND: _BITS,
    _A.CGROUP_INET6_BIND: _BITS,
    _A.CGROUP_UDP4_RECVMSG: _ALWAYS_ONE,
    _A.CGROUP_UDP6_RECVMSG: _ALWAYS_ONE,
    _A.CGROUP_INET4_GETPEERNAME: _ALWAYS_ONE,
    _A.CGROUP_INET6_GETPEERNAME: _ALWAYS_ONE,
    _A.CGROUP_INET4_GETSOCKNAME: _ALWAYS_ONE,
    _A.CGROUP_INET6_GETSOCKNAME: _ALWAYS_ONE,
    _A.CGROUP_UNIX_RECVMSG: _ALWAYS_ONE,
    _A.CGROUP_UNIX_GETPEERNAME: _ALWAYS_ONE,
    _A.CGROUP_UNIX_GETSOCKNAME: _ALWAYS_ONE,
    _A.TRACE_ITER: _BOOLEAN,
    _A.TRACE_KPROBE_SESSION: _BOOLEAN,
    _A.TRACE_UPROBE_SESSION: _BOOLEAN,
    _A.TRACE_FENTRY: (0, 0),
    _A.TRACE_FEXIT: (0, 0),
}
_ITEM: Final = re.compile(r"(\d+):(\d+)(?:x(\d+))?(n?)(?:=([\w:]+)(\??))?")
_POINTERS: Final[Mapping[str, AreaKind]] = {
    "sock": AreaKind.SOCKET,
    "skc": AreaKind.SOCKET_COMMON,
    "keys": AreaKind.FLOW_KEYS,
    "buffer": AreaKind.BUFFER,
}


@final
@dataclass(frozen=True, slots=True)
class Field:
    """A field of a context: bytes it takes.

    What it holds ('' a number, else a pointer) and whether NULL too.
    """

    size: int
    holds: str = ""
    is_nullable: bool = False

    @property
    def area_kind(self) -> AreaKind | None:
        """The sort of memory pointed at, if one with a table of its own."""
        return _POINTERS.get(self.holds)


@final
@dataclass(frozen=True, slots=True)
class _Run:
    """Fields of one sort in a row, from byte `start` up to `end`; `has_parts`: they may be accessed in aligned parts too."""

    start: int
    end: int
    has_parts: bool
    field: Field

    def find(self, offset: int, size: int) -> Field | None:
        """The field, or the part of one, of `size` bytes at `offset`."""
        if not self.start <= offset < self.end or (offset - self.start) % size:
            return None
        if size == self.field.size:
            return self.field
        return _PARTS.get(size) if self.has_parts and size < self.field.size else None


_PARTS: Final = {size: Field(size) for size in (1, 2, 4)}


@final
class Fields:
    """What may be accessed of a context: a table of runs, for some types have fields by the thousand."""

    def __init__(self, text: str) -> None:
        self._runs = [_read(item) for item in text.split()]
        self._runs.reverse()  # what is said last holds

    def find(self, offset: int, size: int) -> Field | None:
        """The field of `size` bytes at `offset`, None when there is none."""
        return next((found for run in self._runs if (found := run.find(offset, size)) is not None), None)


@final
@dataclass(frozen=True)
class ContextRules:
    """Every access to a context that is allowed."""

    readable: Fields
    writable: Fields


@cache
def rules_of(type: ProgramType, attach_type: AttachType | None) -> ContextRules | None:
    """The rules of a program type, None when its context is described by BTF or not known."""
    tables = _TABLES_BY_ATTACH.get(attach_type) if attach_type is not None else None
    tables = tables or _TABLES_BY_TYPE.get(type)
    return None if tables is None else ContextRules(Fields(tables[0]), Fields(tables[1]))


def returns_of(type: ProgramType, attach_type: AttachType | None) -> tuple[int, int] | None:
    """The range that r0 must be in at exit; None when it may be any number."""
    if type is _T.TRACING and attach_type not in (_A.TRACE_ITER, _A.TRACE_FENTRY, _A.TRACE_FEXIT):
        return None
    found = _RETURNS_BY_ATTACH.get(attach_type) if attach_type is not None else None
    return found or _RETURNS_BY_TYPE.get(type)


def _read(item: str) -> _Run:
    parts = _ITEM.fullmatch(item)
    assert parts is not None, item
    start, size, count = int(parts[1]), int(parts[2]), int(parts[3] or 1)
    return _Run(start, start + size * count, bool(parts[4]), Field(size, parts[5] or "", bool(parts[6])))
