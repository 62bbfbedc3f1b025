"""How a map lies in memory: one position-independent block, the same for code, host and pin files.

Offsets, never pointers, so that a block can be pinned to a file, mapped anywhere, or live in an emulator.
Everything but the number of cpus follows from the map's declaration, so compiled code has the other offsets
as constants. Numbers are in the order of the machine that runs the program; MAGIC tells.

    header      0 magic 4           4 version 4         8 type 4           12 key_size 4
               16 value_size 4     20 max_entries 4    24 flags 4          28 cpus 4
               32 value_stride 4   36 element_stride 4 40 bucket_mask 4    44 elements 4
               48 size 8           56 cpu_stride 8     64 elements_offset 8
               72 values_offset 8  80 spares_offset 8  88 seed 8           96 extra 8
              104 frozen 4
              128 lock 4          132 generation 4    136 count 8          (of writers)
              192 head 8          200 tail 8          208 fresh 4          216 lost 8
              224 special {offset 4, size 4; the lock first} x 4: bytes of a value that updates leave alone
    data      256 (4096 when mmapable)

    array            values: max_entries x value_stride; for each cpu, cpu_stride apart
    slot array       slots of 16 bytes: handle 8 (0: empty), value 8 (as the host wrote it)
    hash             buckets: u32 x (bucket_mask + 1): element number, LOCKED; 0 empty
                     elements, numbered from 1: next 4 (number, or END | bucket), link 4 (of free elements),
                     [hash 4, used 4: LRU], key, value
                     values (per-cpu): elements x value_stride for each cpu; spares: 64 bytes for each cpu
    lpm trie         nodes: child {place 4, prefix length 4} x 2, prefix length 4, kind 4, key bytes, value;
                     a place counts 8 bytes from the start of the block, 0: none
    queue, stack     values: max_entries x value_stride; head: where the next goes, tail: how many there are
    bloom filter     bits
    ring buffer      as libbpf maps it: consumer page, producer page, data, the same data again
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, final

from ir.kinds import MapFlag, MapType
from ir.maps import CELLS, HASHES, LRU_HASHES, PAGE, SLOT_ARRAYS, STORAGES, is_per_cpu
from ir.object import Map

MAGIC: Final = 0x6D465042
VERSION: Final = 1

TYPE: Final = 8
KEY_SIZE: Final = 12
VALUE_SIZE: Final = 16
MAX_ENTRIES: Final = 20
FLAGS: Final = 24
CPUS: Final = 28
VALUE_STRIDE: Final = 32
ELEMENT_STRIDE: Final = 36
BUCKET_MASK: Final = 40
ELEMENTS: Final = 44
SIZE: Final = 48
CPU_STRIDE: Final = 56
ELEMENTS_OFFSET: Final = 64
VALUES_OFFSET: Final = 72
SPARES_OFFSET: Final = 80
SEED: Final = 88
EXTRA: Final = 96
FROZEN: Final = 104
LOCK: Final = 128
GENERATION: Final = 132
COUNT: Final = 136
HEAD: Final = 192
TAIL: Final = 200
FRESH: Final = 208

SPECIAL: Final = 224
SPECIAL_MOST: Final = 4
SPECIAL_LOCK: Final = 1 << 31  # in a size

DATA: Final = 256
HEADER_FORMAT: Final = "12I7Q2I"
LINE: Final = 64

# A slot of a slot array.
SLOT_STRIDE: Final = 16
SLOT_VALUE: Final = 8

# An element of a hash.
ELEMENT_NEXT: Final = 0
ELEMENT_LINK: Final = 4
ELEMENT_HASH: Final = 8
ELEMENT_USED: Final = 12
BUCKET_LOCKED: Final = 1 << 30
CHAIN_END: Final = 1 << 31

# The line of a cpu in a hash's spares: a stack of free elements (number 4, tag 4), one kept for replacements.
SPARE_FREE: Final = 0
SPARE_ELEMENT: Final = 8

# A node of an LPM trie.
NODE_CHILD: Final = 0
NODE_PREFIX: Final = 16
NODE_KIND: Final = 20
NODE_KEY: Final = 24

# A ring buffer: pages from the start of the block, bits of a record's length word.
RING_CONSUMER: Final = PAGE
RING_PRODUCER: Final = 2 * PAGE
RING_DATA: Final = 3 * PAGE
RING_LOST: Final = 216  # in the header: perf records there was no room for
RECORD_HEADER: Final = 8
RECORD_BUSY: Final = 1 << 31
RECORD_DISCARDED: Final = 1 << 30

# A perf event's record starts with the cpu and the number of packet bytes at its end.
PERF_HEADER: Final = 8


@final
@dataclass(frozen=True, slots=True)
class MapLayout:
    """The numbers of a map's block, all in bytes unless they count.

    `spares_offset` and `size` need the number of cpus.
    """

    value_stride: int = 0
    element_stride: int = 0
    bucket_mask: int = 0
    elements: int = 0
    cpu_stride: int = 0
    elements_offset: int = DATA
    values_offset: int = DATA
    spares_offset: int = 0
    size: int = DATA
    mirrored: int = 0  # bytes at the end that show the bytes before them a second time (ring buffers)


def value_bytes(map: Map) -> int:
    """How many bytes a value takes in the block; a map of maps keeps addresses where users see numbers."""
    return 8 if map.type is MapType.HASH_OF_MAPS else map.value_size


def key_bytes(map: Map) -> int:
    """How many bytes a key takes in the block; a storage keeps its owner's address where users see a descriptor."""
    return 8 if map.type in STORAGES else map.key_size


def layout_of(map: Map, cpus: int = 1) -> MapLayout:
    """The layout of a map's block for programs that see `cpus` cpus."""
    stride = align(value_bytes(map), 8)
    if map.type in (MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.STRUCT_OPS, MapType.INSN_ARRAY):
        return _array(map, stride, cpus)
    if map.type in CELLS:
        return _array(replace(map, max_entries=1), stride, cpus)
    if map.type in STORAGES:
        owned = replace(map, type=MapType.HASH, key_size=key_bytes(map), max_entries=STORAGE_ENTRIES)
        return _hash(owned, stride, cpus)
    if map.type in SLOT_ARRAYS:
        return MapLayout(
            SLOT_STRIDE, SLOT_STRIDE, elements=map.max_entries, size=DATA + SLOT_STRIDE * map.max_entries
        )
    if map.type in HASHES:
        return _hash(map, stride, cpus)
    if map.type is MapType.LPM_TRIE:
        element = NODE_KEY + align(map.key_size - 4, 8) + stride
        nodes = 2 * map.max_entries
        first = DATA + element - stride
        return MapLayout(
            stride, element, elements=nodes, values_offset=first, size=DATA + (nodes + 1) * element
        )
    if map.type in (MapType.QUEUE, MapType.STACK):
        return MapLayout(stride, stride, elements=map.max_entries, size=DATA + map.max_entries * stride)
    if map.type is MapType.BLOOM_FILTER:
        mask = _bloom_mask(map)
        return MapLayout(bucket_mask=mask, size=DATA + (mask + 1) // 8)
    if map.type in (MapType.RINGBUF, MapType.USER_RINGBUF):
        size = map.max_entries
        return MapLayout(
            bucket_mask=size - 1, values_offset=RING_DATA, size=RING_DATA + 2 * size, mirrored=size
        )
    if map.type is MapType.PERF_EVENT_ARRAY:
        return MapLayout(bucket_mask=PERF_BYTES - 1, size=RING_DATA + 2 * PERF_BYTES, mirrored=PERF_BYTES)
    return MapLayout(stride, size=DATA)


PERF_BYTES: Final = 1 << 20
STORAGE_ENTRIES: Final = 1024  # owners that a storage has room for


def spare_elements(map: Map, cpus: int) -> range:
    """The numbers of the elements that the cpus keep for replacing updates, in order of the cpus."""
    entries = STORAGE_ENTRIES if map.type in STORAGES else map.max_entries
    return range(entries + 1, entries + 1 + (cpus if keeps_spares(map.type) else 0))


def keeps_spares(type: MapType) -> bool:
    """Whether each cpu keeps an element for replacing updates; where values change in place, none does."""
    return type in HASHES and type not in LRU_HASHES and not is_per_cpu(type)


@final
@dataclass(frozen=True, slots=True)
class ValuePlaces:
    """Where a map's values stand in its block: from `values_offset` up to `end`, each `distance` after the one before.

    Those of one cpu do so, if it is a per-cpu map; those of the next begin `cpu_stride` after them.
    """

    distance: int
    end: int


def value_places(map: Map, cpus: int = 1) -> ValuePlaces | None:
    """Where values stand that programs may point at; None for maps that have none."""
    layout = layout_of(map, cpus)
    distance, count = layout.value_stride, map.max_entries
    if map.type in HASHES and map.type is not MapType.HASH_OF_MAPS:
        distance = distance if is_per_cpu(map.type) else layout.element_stride
        count = layout.elements + 1 + len(spare_elements(map, cpus))
    elif map.type is MapType.LPM_TRIE:
        distance, count = layout.element_stride, layout.elements + 1
    elif map.type in CELLS:
        count = 1
    elif map.type not in (MapType.ARRAY, MapType.PERCPU_ARRAY):
        return None
    length = layout.cpu_stride * cpus if is_per_cpu(map.type) else distance * count
    return ValuePlaces(distance, layout.values_offset + length)


def pack_header(map: Map, layout: MapLayout, cpus: int, seed: int, byte_order: str) -> bytes:
    """The first bytes of a new block; `byte_order` is struct's < or >."""
    return struct.pack(
        byte_order + HEADER_FORMAT,
        MAGIC,
        VERSION,
        map.type,
        key_bytes(map),
        value_bytes(map),
        layout.elements if map.type in STORAGES else map.max_entries,
        map.flags,
        cpus,
        layout.value_stride,
        layout.element_stride,
        layout.bucket_mask,
        layout.elements,
        layout.size,
        layout.cpu_stride,
        layout.elements_offset,
        layout.values_offset,
        layout.spares_offset,
        seed,
        map.extra,
        0,
        0,
    )


def first_bytes(map: Map, cpus: int, seed: int, byte_order: str) -> Iterator[tuple[int, bytes]]:
    """What a new block holds that is not zero, by its offsets; `byte_order` is struct's < or >."""
    layout = layout_of(map, cpus)
    yield 0, pack_header(map, layout, cpus, seed, byte_order)
    yield SPECIAL, pack_special(map, byte_order)
    for cpu, number in enumerate(spare_elements(map, cpus)):
        place = layout.spares_offset + cpu * LINE + SPARE_ELEMENT
        yield place, struct.pack(byte_order + "I", number)
    if map.initial is not None:
        yield layout.values_offset, map.initial


def pack_special(map: Map, byte_order: str) -> bytes:
    """What stands at SPECIAL; more than there is room for are taken together, with what lies between them."""
    fields = sorted(
        ((offset, size) for offset, size, _ in map.special), key=lambda field: (field[0] != map.lock, field)
    )
    if len(fields) > SPECIAL_MOST:
        rest = fields[SPECIAL_MOST - 1 :]
        start, end = rest[0][0], max(offset + size for offset, size in rest)
        fields = [*fields[: SPECIAL_MOST - 1], (start, end - start)]
    numbers = [n for offset, size in fields for n in (offset, size | SPECIAL_LOCK * (offset == map.lock))]
    return struct.pack(f"{byte_order}{len(numbers)}I", *numbers)


def align(number: int, multiple: int) -> int:
    """`number` rounded up to a multiple of a power of two."""
    return (number + multiple - 1) & -multiple


def _array(map: Map, stride: int, cpus: int) -> MapLayout:
    values = PAGE if map.flags & MapFlag.MMAPABLE else DATA
    bytes_ = stride * map.max_entries
    if is_per_cpu(map.type):
        bytes_ = align(bytes_, LINE)
        return MapLayout(stride, stride, values_offset=values, cpu_stride=bytes_, size=values + bytes_ * cpus)
    return MapLayout(stride, stride, values_offset=values, size=values + bytes_)


def _hash(map: Map, stride: int, cpus: int) -> MapLayout:
    buckets = 1 << (map.max_entries - 1).bit_length()
    per_cpu = is_per_cpu(map.type)
    key = (16 if map.type in LRU_HASHES else 8) + align(map.key_size, 8)
    element = key + (0 if per_cpu else stride)
    elements_offset = align(DATA + 4 * buckets, LINE)
    spares = len(spare_elements(map, cpus))
    end = align(elements_offset + element * (map.max_entries + 1 + spares), LINE)
    cpu_stride = align(stride * (map.max_entries + 1), LINE) if per_cpu else 0
    spares_offset = end + cpu_stride * cpus
    return MapLayout(
        stride,
        element,
        buckets - 1,
        map.max_entries,
        cpu_stride,
        elements_offset,
        end if per_cpu else elements_offset + key,
        spares_offset,
        spares_offset + LINE * cpus,
    )


def _bloom_mask(map: Map) -> int:
    """The kernel's size: 7/5 bits for each hash of each entry, rounded up to a power of two."""
    hashes = (map.extra & 0xF) or 5
    bits = map.max_entries * hashes // 5 * 7
    if bits > 1 << 31:
        return (1 << 32) - 1
    return max(64, 1 << (bits - 1).bit_length()) - 1 if bits else 63
