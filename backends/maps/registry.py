"""Every map type's operations, and their definitions as LLVM IR: for one known map, or for all maps of a
type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from errno import EOPNOTSUPP
from functools import cache
from typing import Final, final

from backends.maps import elements
from backends.maps.array import CELL_OPERATIONS
from backends.maps.array import OPERATIONS as ARRAY_OPERATIONS
from backends.maps.bloom import OPERATIONS as BLOOM_OPERATIONS
from backends.maps.bodies import HASH_BODY, TRIE_BODY
from backends.maps.hash import HASH_OPERATIONS
from backends.maps.lpm import OPERATIONS as LPM_OPERATIONS
from backends.maps.operation import SIGNATURES, Operation, refuse
from backends.maps.queue import OPERATIONS as QUEUE_OPERATIONS
from backends.maps.ring import OPERATIONS as RING_OPERATIONS
from backends.maps.shape import Shape
from backends.maps.slots import SLOT_OPERATIONS
from backends.writer import Writer
from ir.kinds import MapType
from ir.maps import CELLS
from ir.object import Map

OPERATIONS: Final[Mapping[MapType, Mapping[str, Operation]]] = {
    MapType.ARRAY: ARRAY_OPERATIONS,
    MapType.PERCPU_ARRAY: ARRAY_OPERATIONS,
    MapType.STRUCT_OPS: ARRAY_OPERATIONS,
    **{type: {**operations, **HASH_BODY} for type, operations in HASH_OPERATIONS.items()},
    **SLOT_OPERATIONS,
    MapType.LPM_TRIE: {**LPM_OPERATIONS, **TRIE_BODY},
    MapType.QUEUE: QUEUE_OPERATIONS,
    MapType.STACK: QUEUE_OPERATIONS,
    MapType.BLOOM_FILTER: BLOOM_OPERATIONS,
    MapType.RINGBUF: RING_OPERATIONS,
    **dict.fromkeys(CELLS, CELL_OPERATIONS),
}
_UNSUPPORTED: Final = refuse(EOPNOTSUPP)


def operation_of(type: MapType, name: str) -> Operation | None:
    """A map type's operation, None when it has none of that name."""
    return OPERATIONS.get(type, {}).get(name)


def host_symbol(type: MapType, name: str) -> str:
    """The symbol of an operation for all maps of a type."""
    return f"bpfc.map.{type.name.lower()}.{name}"


@final
@dataclass(frozen=True, slots=True)
class Emitted:
    """A definition, the parts it needs beside it, and the signatures of what it calls elsewhere."""

    text: str
    parts: tuple[str, ...]
    externals: Mapping[str, str]


def emit_known(symbol: str, map: Map, name: str, word: int = 8) -> Emitted:
    """An operation on one map, for the program's own module on a machine with pointers of `word` bytes."""
    operation = operation_of(map.type, name) or _UNSUPPORTED
    inline = "alwaysinline" if operation.is_small else "noinline"
    return _emit(symbol, Shape(map.type, map), operation, name, f"internal {inline} nounwind", word)


def emit_any(symbol: str, type: MapType, name: str, attributes: str = "nounwind") -> Emitted:
    """An operation on any map of a type."""
    return _emit(symbol, Shape(type), operation_of(type, name) or _UNSUPPORTED, name, attributes)


@cache
def host_module(type: MapType) -> str:
    """The IR of every operation of a type, under their host symbols: what the host itself works with."""
    found = [emit_any(host_symbol(type, name), type, name) for name in sorted(OPERATIONS[type])]
    parts = sorted({part for one in found for part in one.parts})
    externals = {name: signature for one in found for name, signature in one.externals.items()}
    declared = [f"declare {signature}" for _, signature in sorted(externals.items())]
    return "\n".join([*declared, *(one.text for one in found), *(elements.part(name) for name in parts)])


def _emit(
    symbol: str, shape: Shape, operation: Operation, name: str, attributes: str, word: int = 8
) -> Emitted:
    returns, params = SIGNATURES[name]
    writer = Writer(symbol, *params, returns=returns, attributes=attributes, word=word)
    operation.emit(writer, shape)
    return Emitted(writer.text(), operation.parts, writer.externals)
