"""What is known of a value: a Scalar of 64 bits, or a Pointer: an area of memory and an offset into it.

The offset of a Pointer is known twice: as a range (`span`), and as a symbol plus a constant, by which it is
compared with other offsets whose range is of no use.

    packet:   data                 data + 14 + hl                 data_end
              |--------------------|------------------------------|
              span 0, (None, 0)    span 14..74, (hl, 14)           span = length, (length, 0)
"""

from __future__ import annotations

from enum import Enum
from typing import Final, final

from ir.core import Param, Value
from ir.object import Map
from ir.verify.scalar import Scalar, between, const, covers, join, unknown

ANY: Final = unknown(64)
ZERO: Final = const(64, 0)

# No area is longer, so that an address and an offset this large never wrap.
MAX_LENGTH: Final = 1 << 40


class AreaKind(Enum):
    """Sorts of memory; the value is what messages call a pointer into one."""

    CONTEXT = "context"
    FRAME = "stack"
    PACKET = "packet"
    PACKET_META = "packet metadata"
    MAP = "map"
    MAP_VALUE = "map value"
    MAP_KEY = "map key"
    MEMORY = "memory"
    BUFFER = "buffer"
    SOCKET_COMMON = "struct bpf_sock_common"
    SOCKET = "struct bpf_sock"
    TCP_SOCKET = "struct bpf_tcp_sock"
    XDP_SOCKET = "struct bpf_xdp_sock"
    FLOW_KEYS = "flow keys"
    BTF = "kernel object"
    PERCPU = "per-cpu variable"
    OBJECT = "allocated object"
    PERCPU_OBJECT = "per-cpu object"
    FUNCTION = "function"
    DYNPTR = "dynptr"
    ARENA = "arena"
    UNKNOWN = "memory of an unknown sort"

    __hash__ = object.__hash__  # kinds are looked for in sets at every access; Enum's own is slow


class Trust(Enum):
    """How far a pointer to a kernel object may be relied on."""

    UNTRUSTED = "untrusted"
    PLAIN = "plain"
    RCU = "rcu"
    TRUSTED = "trusted"


@final
class Area:
    """A stretch of memory that pointers point into. `size`: bytes it surely has.

    `length` is a symbol (a value, or a Param that stands for one) for its exact length. A single area (one
    with a length, a frame, a global variable) exists once, so that offsets into it may be compared; any
    other stands for every object its instruction makes.

    `map` is whose value or which map it is; `type_id` the BTF type of a kernel object. `is_held`: somebody
    has to release it, `origin` is the slot that acquired it; `owner` is the area whose release ends this
    one too. `meta` is the metadata before a packet; `is_packet_view`: a dynptr of a packet.
    `has_lock`: it has a spin lock, so that it matters which object a pointer points into.
    """

    __slots__ = (
        "has_lock",
        "is_held",
        "is_packet_view",
        "is_single",
        "kind",
        "length",
        "map",
        "meta",
        "name",
        "origin",
        "owner",
        "size",
        "trust",
        "type_id",
        "writable",
    )

    def __init__(
        self,
        kind: AreaKind,
        name: str = "",
        size: int = 0,
        length: Value | None = None,
        writable: bool = True,
    ) -> None:
        self.kind = kind
        self.name = name
        self.size = size
        self.length = length
        self.writable = writable
        self.is_single = length is not None
        self.map: Map | None = None
        self.type_id = 0
        self.trust = Trust.PLAIN
        self.is_held = False
        self.has_lock = False
        self.is_packet_view = False
        self.origin = -1
        self.owner: Area | None = None
        self.meta: Area | None = None

    def __repr__(self) -> str:
        match self.kind:
            case AreaKind.FRAME:
                return "stack"
            case AreaKind.MAP | AreaKind.FUNCTION:
                return f"{self.kind.value} '{self.name}'"
            case AreaKind.MAP_VALUE | AreaKind.MAP_KEY if self.name:
                return f"map '{self.name}' {self.kind.value.removeprefix('map ')}"
            case AreaKind.MEMORY | AreaKind.UNKNOWN if self.name:
                return self.name
            case AreaKind.OBJECT if self.name:
                return self.name
            case _:
                return f"{self.kind.value} {self.name}".strip()

    @property
    def is_object(self) -> bool:
        """Whether it is a kernel object, which a pointer to may turn out to be NULL in spite of its type."""
        return self.kind is AreaKind.BTF

    def lives_by(self, other: Area) -> bool:
        """Whether the end of `other` is the end of this one."""
        area: Area | None = self
        while area is not None and area is not other:
            area = area.owner
        return area is other

    def is_value_of(self, map_area: Area) -> bool:
        """Whether it surely is a value of the map that `map_area` is; one found in a map of maps owns what it holds."""
        return self.map is map_area.map and (self.owner is None or self.owner is map_area)

    def is_like(self, other: Area) -> bool:
        """Whether pointers into either may be used alike: it does not matter which object it is."""
        return (
            self.kind is other.kind
            and not (self.is_single or other.is_single or self.is_held or other.is_held)
            and not (self.has_lock or other.has_lock)
            and self.owner is other.owner
            and self.map is other.map
            and self.size == other.size
            and self.type_id == other.type_id
            and self.trust is other.trust
            and self.writable == other.writable
            and self.name == other.name
        )


@final
class Pointer:
    """An address in `area`: its start + `span`, which is `symbol` + `offset` too; or perhaps NULL."""

    __slots__ = ("area", "is_nullable", "offset", "span", "symbol")

    def __init__(
        self, area: Area, symbol: Value | None, offset: int, span: Scalar, is_nullable: bool = False
    ) -> None:
        self.area = area
        self.symbol = symbol
        self.offset = offset
        self.span = span
        self.is_nullable = is_nullable

    def __repr__(self) -> str:
        null = " or NULL" if self.is_nullable else ""
        return f"{self.area} + [{self.span}]{null}"

    def same(self, other: Pointer) -> bool:
        """Whether both say the same."""
        return (
            self.area is other.area
            and self.symbol is other.symbol
            and self.offset == other.offset
            and self.is_nullable == other.is_nullable
            and self.span == other.span
        )


Known = Scalar | Pointer


def start_of(area: Area, is_nullable: bool = False) -> Pointer:
    """A pointer to the first byte of an area."""
    return Pointer(area, None, 0, ZERO, is_nullable)


def as_number(known: Known) -> Scalar:
    """A value seen as a number: of an address nothing is known."""
    return known if type(known) is Scalar else ANY


def length_symbol() -> Param:
    """A symbol for a length that no value of the program holds."""
    return Param(-1)


ANY_LENGTH: Final = between(64, 0, MAX_LENGTH)


def join_known(a: Known, b: Known, symbol: Value) -> Known:
    """What holds of a value that is `a` on one way, `b` on another; `symbol` stands for what differs."""
    if a is b:
        return a
    if type(a) is Scalar and type(b) is Scalar:
        return join(a, b)
    if type(a) is Pointer and type(b) is Pointer and (a.area is b.area or a.area.is_like(b.area)):
        nullable = a.is_nullable or b.is_nullable
        span = join(a.span, b.span)
        if a.symbol is b.symbol and a.offset == b.offset:
            if span is a.span and nullable == a.is_nullable:
                return a
            return Pointer(a.area, a.symbol, a.offset, span, nullable)
        return Pointer(a.area, symbol, 0, span, nullable)
    if type(a) is Pointer and b == ZERO:
        return Pointer(a.area, a.symbol, a.offset, a.span, True)
    if type(b) is Pointer and a == ZERO:
        return Pointer(b.area, b.symbol, b.offset, b.span, True)
    return ANY


def covers_known(a: Known, b: Known) -> bool:
    """Whether `a` surely has every value of `b`."""
    if a is b:
        return True
    if type(a) is Scalar:
        return a is ANY or (type(b) is Scalar and covers(a, b))
    if type(b) is Scalar:
        return a.is_nullable and b == ZERO
    return (
        (a.area is b.area or a.area.is_like(b.area))
        and ((a.symbol is b.symbol and a.offset == b.offset) or a.area.length is None)
        and (a.is_nullable or not b.is_nullable)
        and covers(a.span, b.span)
    )
