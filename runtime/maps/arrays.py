"""Maps as numpy arrays: the values of arrays in place, the entries of other maps as a copy.

    array            (entries,)          the live memory
    per-cpu array    (cpus, entries)     the live memory
    hash, trie       (entries,)          a copy, with fields key and value

A structure becomes a structured dtype with the members' offsets, everything without BTF unsigned integers or
bytes. Needs numpy, so it is imported where a view is asked for arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy

from ir.btf import Btf
from ir.btf_types import Array, Enum, Float, Int, Pointer, Struct
from ir.kinds import MapType

if TYPE_CHECKING:
    from runtime.maps.live import LiveMap

_PLAIN: Final = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}


def to_numpy(live: LiveMap, btf: Btf | None) -> numpy.ndarray[Any, Any]:
    """The values or entries of a map of keys and values; read-only when the map is frozen."""
    declared = live.declared
    value = dtype_of(btf, declared.value_btf_id, declared.value_size)
    if declared.type in (MapType.ARRAY, MapType.PERCPU_ARRAY):
        return _in_place(live, value)
    key = dtype_of(btf, declared.key_btf_id, declared.key_size)
    entry = numpy.dtype([("key", key), ("value", value, (live.cpus,) if live.is_per_cpu else ())])
    return numpy.frombuffer(bytearray(b"".join(k + v for k, v in live.items())), dtype=entry)


def dtype_of(btf: Btf | None, type_id: int, size: int) -> numpy.dtype[Any]:
    """The dtype of a BTF type of `size` bytes; numbers or raw bytes where BTF says nothing."""
    if btf is not None and type_id and btf.size_of(type_id) == size:
        return _dtype(btf, type_id)
    return numpy.dtype(_PLAIN.get(size, f"V{size}"))


def _in_place(live: LiveMap, value: numpy.dtype[Any]) -> numpy.ndarray[Any, Any]:
    layout, entries = live.layout, live.declared.max_entries
    cpus = live.cpus if live.is_per_cpu else 1
    strides = (layout.cpu_stride, layout.value_stride)
    found: numpy.ndarray[Any, Any] = numpy.ndarray(
        (cpus, entries), value, live.block.view, layout.values_offset, strides
    )
    if live.is_frozen:
        found.flags.writeable = False
    return found if live.is_per_cpu else found[0]


def _dtype(btf: Btf, type_id: int) -> numpy.dtype[Any]:
    type = btf.type(btf.strip(type_id))
    size = btf.size_of(type_id)
    match type:
        case Int() if type.bits == 8 * type.size and size in _PLAIN:
            return numpy.dtype("?" if type.is_bool else f"{'i' if type.is_signed else 'u'}{size}")
        case Enum():
            return numpy.dtype(f"{'i' if type.is_signed else 'u'}{size}")
        case Pointer():
            return numpy.dtype("u8")
        case Float() if size in (2, 4, 8):
            return numpy.dtype(f"f{size}")
        case Array():
            return numpy.dtype((_dtype(btf, type.element_id), (type.count,)))
        case Struct():
            return _structure(btf, type, size)
        case _:
            return numpy.dtype(f"V{size}")


def _structure(btf: Btf, type: Struct, size: int) -> numpy.dtype[Any]:
    """A structured dtype; bit fields and unnamed members have no field."""
    members = [one for one in type.members if one.name and not one.bit_size]
    if not members:
        return numpy.dtype(f"V{size}")
    return numpy.dtype(
        {
            "names": [one.name for one in members],
            "formats": [_dtype(btf, one.type_id) for one in members],
            "offsets": [one.bit_offset // 8 for one in members],
            "itemsize": size,
        }
    )
