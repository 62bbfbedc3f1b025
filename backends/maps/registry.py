"""Every map type's operations, and their definitions as LLVM IR: for one known map, or for all maps of a type."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EOPNOTSUPP
from typing import Final

from backends.maps import elements
from backends.maps.array import OPERATIONS as ARRAY_OPERATIONS
from backends.maps.hash import HASH_OPERATIONS
from backends.maps.operation import SIGNATURES, Operation, refuse
from backends.maps.shape import Shape
from backends.maps.slots import SLOT_OPERATIONS
from backends.writer import Writer
from ir.kinds import MapType
from ir.object import Map

OPERATIONS: Final[Mapping[MapType, Mapping[str, Operation]]] = {
    MapType.ARRAY: ARRAY_OPERATIONS,
    MapType.PERCPU_ARRAY: ARRAY_OPERATIONS,
    MapType.STRUCT_OPS: ARRAY_OPERATIONS,
    **HASH_OPERATIONS,
    **SLOT_OPERATIONS,
}
_UNSUPPORTED: Final = refuse(EOPNOTSUPP)


def operation_of(type: MapType, name: str) -> Operation | None:
    """A map type's operation, None when it has none of that name."""
    return OPERATIONS.get(type, {}).get(name)


def host_symbol(type: MapType, name: str) -> str:
    """The symbol of an operation for all maps of a type."""
    return f"bpfc.map.{type.name.lower()}.{name}"


def emit_known(symbol: str, map: Map, name: str) -> tuple[str, tuple[str, ...]]:
    """(definition, names of the parts it needs) of an operation on one map, for the program's own module."""
    operation = operation_of(map.type, name) or _UNSUPPORTED
    inline = "alwaysinline" if operation.is_small else "noinline"
    return _emit(
        symbol, Shape(map.type, map), operation, name, f"internal {inline} nounwind"
    ), operation.parts


def emit_any(
    symbol: str, type: MapType, name: str, attributes: str = "nounwind"
) -> tuple[str, tuple[str, ...]]:
    """(definition, parts) of an operation on any map of a type."""
    operation = operation_of(type, name) or _UNSUPPORTED
    return _emit(symbol, Shape(type), operation, name, attributes), operation.parts


def host_module(type: MapType) -> str:
    """The IR of every operation of a type, under their host symbols: what the host itself works with."""
    texts: list[str] = []
    parts: set[str] = set()
    for name in sorted(OPERATIONS[type]):
        text, needs = emit_any(host_symbol(type, name), type, name)
        texts.append(text)
        parts.update(needs)
    return "\n".join([*texts, *(elements.part(name) for name in sorted(parts))])


def _emit(symbol: str, shape: Shape, operation: Operation, name: str, attributes: str) -> str:
    returns, params = SIGNATURES[name]
    writer = Writer(symbol, *params, returns=returns, attributes=attributes)
    operation.emit(writer, shape)
    assert not writer.externals, symbol
    return writer.text()
