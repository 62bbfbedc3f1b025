"""What is known of a value: a Scalar of 64 bits, or a Pointer: an area of memory and an offset into it.

The offset of a Pointer is known twice: as a range (`span`), and as a symbol plus a constant, by which it is
compared with other offsets whose range is of no use.

    packet:   data                 data + 14 + hl                 data_end
              |--------------------|------------------------------|
              span 0, (None, 0)    span 14..74, (hl, 14)           span = length, (length, 0)
"""

from __future__ import annotations

from typing import Final, final

from ir.core import Param, Value
from ir.regions import RegionKind
from ir.verify.scalar import Scalar, between, const, covers, join, unknown

ANY: Final = unknown(64)
ZERO: Final = const(64, 0)

# No area is longer, so that an address and an offset this large never wrap.
MAX_LENGTH: Final = 1 << 40


@final
class Area:
    """A stretch of memory that pointers point into. `size`: bytes it surely has.

    `length` is a symbol (a value, or a Param that stands for one) for its exact length. An area with a length
    exists once, so that offsets into it may be compared; any other stands for every object its instruction
    makes.
    """

    __slots__ = ("is_single", "kind", "length", "name", "size", "writable")

    def __init__(
        self,
        kind: RegionKind,
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

    def __repr__(self) -> str:
        return f"{self.kind.value} {self.name}".strip()


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
    if type(a) is Pointer and type(b) is Pointer and a.area is b.area:
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
        a.area is b.area
        and (a.symbol is b.symbol and a.offset == b.offset)
        and (a.is_nullable or not b.is_nullable)
        and covers(a.span, b.span)
    )
