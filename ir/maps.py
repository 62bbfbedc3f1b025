"""What maps Linux creates: sizes and flags a map type accepts, as rows, and the errno for those it does not.

Sources: the *_alloc_check functions of kernel/bpf/ (arraymap.c, hashtab.c, lpm_trie.c, queue_stack_maps.c,
ringbuf.c, devmap.c, cpumap.c, bloom_filter.c, local_storage.c, stackmap.c, arena.c) and net/xdp/xskmap.c,
Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from errno import E2BIG, EINVAL, EOPNOTSUPP
from typing import Final, final

from ir.diagnostics import Diagnostic
from ir.kinds import MapFlag, MapType
from ir.object import Map

PAGE: Final = 4096
NO_LIMIT: Final = 0xFFFFFFFF
MOST_FRAMES: Final = 127  # in a stack trace
BUILD_ID_SIZE: Final = 32  # of a frame, struct bpf_stack_build_id
DIRECT_VALUE_LIMIT: Final = 1 << 29


class UpdateFlag(IntFlag):
    """BPF_ANY (0), BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK of map updates."""

    NOEXIST = 1
    EXIST = 2
    LOCK = 4


_ACCESS: Final = MapFlag.RDONLY | MapFlag.WRONLY | MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG
_NUMA: Final = MapFlag.NUMA_NODE
_NO_LRU: Final = (
    MapFlag.NO_PREALLOC | MapFlag.NUMA_NODE
)  # which some LRU maps do not have, for reasons of their own
_USER_ACCESS: Final = MapFlag.RDONLY | MapFlag.WRONLY
_PER_CPU_VALUE_LIMIT: Final = 32 << 10
_ALLOCATION_LIMIT: Final = 4 << 20
_LOCAL_STORAGE_LIMIT: Final = (1 << 16) - 1 - 128  # a value and its element's header count in 16 bits
_WORD: Final = (4, 4)
_NONE: Final = (0, 0)
_SOME: Final = (1, NO_LIMIT)
_ENTRIES: Final = (1, NO_LIMIT)
_HASH_ENTRIES: Final = (1, 1 << 31)


@final
@dataclass(frozen=True, slots=True)
class MapRule:
    """What a map type accepts: (least, most) sizes in bytes, the flags allowed and those required.

    `value_limit`, `key_limit`: what is above is too big (E2BIG, where a size outside `value` is EINVAL); `value_sizes`:
    when not empty, the only sizes. `is_ring`: max_entries is a size, a power of two of whole pages.
    `is_per_cpu`: a value for each cpu.
    """

    key: tuple[int, int]
    value: tuple[int, int]
    entries: tuple[int, int]
    flags: MapFlag
    required: MapFlag = field(default=MapFlag(0))
    value_limit: int = NO_LIMIT
    key_limit: int = NO_LIMIT
    value_sizes: tuple[int, ...] = ()
    is_ring: bool = False
    is_per_cpu: bool = False
    extra: int = 0
    needs_inner: bool = False


_ARRAY: Final = MapRule(
    _WORD, _SOME, _ENTRIES, _NUMA | MapFlag.MMAPABLE | MapFlag.INNER_MAP | _ACCESS, value_limit=(1 << 31) - 1
)
_FD_ARRAY: Final = MapRule(_WORD, _WORD, _ENTRIES, _NUMA | _USER_ACCESS)
_HASH: Final = MapRule(
    _SOME,
    _SOME,
    _HASH_ENTRIES,
    MapFlag.NO_PREALLOC | _NUMA | _ACCESS | MapFlag.ZERO_SEED,
    value_limit=_ALLOCATION_LIMIT,
)
_LRU: Final = MapRule(
    _SOME,
    _SOME,
    _HASH_ENTRIES,
    MapFlag.NO_COMMON_LRU | _NUMA | _ACCESS | MapFlag.ZERO_SEED,
    value_limit=_ALLOCATION_LIMIT,
)
_QUEUE: Final = MapRule(_NONE, _SOME, _ENTRIES, _NUMA | _ACCESS, value_limit=_ALLOCATION_LIMIT)
_RING: Final = MapRule(_NONE, _NONE, (PAGE, 1 << 31), _NUMA, is_ring=True)
_STORAGE: Final = MapRule(
    _WORD,
    _SOME,
    _NONE,
    MapFlag.NO_PREALLOC | MapFlag.CLONE,
    MapFlag.NO_PREALLOC,
    value_limit=_LOCAL_STORAGE_LIMIT,
)
_SOCKETS: Final = MapRule(_WORD, (4, 8), _ENTRIES, _NUMA | _USER_ACCESS, value_sizes=(4, 8))
_PER_CPU_ARRAY: Final = MapRule(
    _WORD, _SOME, _ENTRIES, _ACCESS, value_limit=_PER_CPU_VALUE_LIMIT, is_per_cpu=True
)

RULES: Final[Mapping[MapType, MapRule]] = {
    MapType.HASH: _HASH,
    MapType.ARRAY: _ARRAY,
    MapType.PROG_ARRAY: _FD_ARRAY,
    MapType.PERF_EVENT_ARRAY: MapRule(_WORD, _WORD, _ENTRIES, _NUMA | _USER_ACCESS | MapFlag.PRESERVE_ELEMS),
    MapType.PERCPU_HASH: MapRule(
        _SOME, _SOME, _HASH_ENTRIES, _HASH.flags & ~_NUMA, value_limit=_PER_CPU_VALUE_LIMIT, is_per_cpu=True
    ),
    MapType.PERCPU_ARRAY: _PER_CPU_ARRAY,
    MapType.STACK_TRACE: MapRule(
        _WORD, (8, MOST_FRAMES * BUILD_ID_SIZE), _ENTRIES, _NUMA | MapFlag.STACK_BUILD_ID | _USER_ACCESS
    ),
    MapType.CGROUP_ARRAY: _FD_ARRAY,
    MapType.LRU_HASH: _LRU,
    MapType.LRU_PERCPU_HASH: MapRule(
        _SOME, _SOME, _HASH_ENTRIES, _LRU.flags & ~_NUMA, value_limit=_PER_CPU_VALUE_LIMIT, is_per_cpu=True
    ),
    MapType.LPM_TRIE: MapRule(
        (5, 260), (1, _ALLOCATION_LIMIT), _ENTRIES, MapFlag.NO_PREALLOC | _NUMA | _ACCESS, MapFlag.NO_PREALLOC
    ),
    MapType.ARRAY_OF_MAPS: MapRule(_WORD, _WORD, _ENTRIES, _NUMA | _USER_ACCESS, needs_inner=True),
    MapType.HASH_OF_MAPS: MapRule(
        _SOME,
        _WORD,
        _HASH_ENTRIES,
        MapFlag.NO_PREALLOC | _NUMA | _USER_ACCESS | MapFlag.ZERO_SEED,
        needs_inner=True,
    ),
    MapType.DEVMAP: MapRule(_WORD, (4, 8), _ENTRIES, _NUMA | _USER_ACCESS, value_sizes=(4, 8)),
    MapType.SOCKMAP: _SOCKETS,
    MapType.CPUMAP: MapRule(_WORD, (4, 8), _ENTRIES, _NUMA, value_sizes=(4, 8)),
    MapType.XSKMAP: MapRule(_WORD, _WORD, _ENTRIES, _NUMA | _USER_ACCESS),
    MapType.SOCKHASH: MapRule(
        _SOME, (4, 8), _HASH_ENTRIES, _NUMA | _USER_ACCESS, value_sizes=(4, 8), key_limit=512
    ),
    MapType.CGROUP_STORAGE: MapRule((8, 16), _SOME, _NONE, _NUMA | _ACCESS, value_limit=_LOCAL_STORAGE_LIMIT),
    MapType.REUSEPORT_SOCKARRAY: MapRule(_WORD, (4, 8), _ENTRIES, _NUMA | _ACCESS, value_sizes=(4, 8)),
    MapType.PERCPU_CGROUP_STORAGE: MapRule(
        (8, 16), _SOME, _NONE, _NUMA | _ACCESS, value_limit=_PER_CPU_VALUE_LIMIT, is_per_cpu=True
    ),
    MapType.QUEUE: _QUEUE,
    MapType.STACK: _QUEUE,
    MapType.SK_STORAGE: _STORAGE,
    MapType.DEVMAP_HASH: MapRule(_WORD, (4, 8), _HASH_ENTRIES, _NUMA | _USER_ACCESS, value_sizes=(4, 8)),
    MapType.STRUCT_OPS: MapRule(_WORD, _SOME, (1, 1), MapFlag.LINK | MapFlag.VTYPE_BTF_OBJ_FD),
    MapType.RINGBUF: _RING,
    MapType.INODE_STORAGE: _STORAGE,
    MapType.TASK_STORAGE: _STORAGE,
    MapType.BLOOM_FILTER: MapRule(_NONE, _SOME, _ENTRIES, _NUMA | MapFlag.ZERO_SEED | _ACCESS, extra=0xF),
    MapType.USER_RINGBUF: _RING,
    MapType.CGRP_STORAGE: _STORAGE,
    MapType.ARENA: MapRule(
        _NONE,
        _NONE,
        (1, 1 << 20),
        MapFlag.MMAPABLE | MapFlag.SEGV_ON_FAULT | MapFlag.NO_USER_CONV,
        MapFlag.MMAPABLE,
        extra=(1 << 64) - 1,
    ),
    MapType.INSN_ARRAY: MapRule(_WORD, (16, 16), _ENTRIES, MapFlag(0)),
}

STORAGES: Final = frozenset(
    {MapType.SK_STORAGE, MapType.INODE_STORAGE, MapType.TASK_STORAGE, MapType.CGRP_STORAGE}
)
CELLS: Final = frozenset({MapType.CGROUP_STORAGE, MapType.PERCPU_CGROUP_STORAGE})
HASHES: Final = STORAGES | frozenset(
    {
        MapType.HASH,
        MapType.PERCPU_HASH,
        MapType.LRU_HASH,
        MapType.LRU_PERCPU_HASH,
        MapType.HASH_OF_MAPS,
        MapType.DEVMAP_HASH,
        MapType.SOCKHASH,
    }
)
LRU_HASHES: Final = frozenset({MapType.LRU_HASH, MapType.LRU_PERCPU_HASH})
SLOT_ARRAYS: Final = frozenset(
    {
        MapType.PROG_ARRAY,
        MapType.CGROUP_ARRAY,
        MapType.ARRAY_OF_MAPS,
        MapType.DEVMAP,
        MapType.CPUMAP,
        MapType.XSKMAP,
        MapType.SOCKMAP,
        MapType.REUSEPORT_SOCKARRAY,
    }
)


def is_per_cpu(type: MapType) -> bool:
    """Whether a key has one value for each cpu."""
    return type in RULES and RULES[type].is_per_cpu


def needs_cpus(type: MapType) -> bool:
    """Whether a map has something for each cpu: values, or free elements."""
    return is_per_cpu(type) or type in HASHES


def is_template(map: Map) -> bool:
    """Whether `map` stands for the maps in a map of maps (the ELF reader calls it OUTER.inner).

    Such maps have the template's sizes and flags, and any number of entries: all but arrays without
    BPF_F_INNER_MAP.
    """
    return map.name.endswith(".inner") and (
        map.type is not MapType.ARRAY or bool(map.flags & MapFlag.INNER_MAP)
    )


def check_map(map: Map) -> Diagnostic | None:
    """Why Linux would not create this map, with its errno; None when it would."""
    rule = RULES.get(map.type)
    if rule is None:
        return _refused(map, "map-type", f"{map.type.name} is no type a map can be created with", EINVAL)
    order = _CELL_CHECKS if map.type in CELLS else _CHECKS
    return next((problem for check in order if (problem := check(map, rule)) is not None), None)


def check_direct_value(map: Map, offset: int) -> Diagnostic | None:
    """Why a load of the address `offset` bytes into the value of `map` is refused; None when it is not."""
    if offset >= DIRECT_VALUE_LIMIT:
        return _refused(
            map,
            "value-offset",
            f"offset {offset} of a direct value is not below {DIRECT_VALUE_LIMIT}",
            EINVAL,
        )
    if map.type is not MapType.ARRAY:
        return _refused(
            map,
            "no-direct-value",
            f"a {map.type.name.lower()} map has no direct values, only an array has",
            EINVAL,
        )
    if map.max_entries != 1:
        said = f"direct values need an array of one entry, this one has {map.max_entries}"
        return _refused(map, "no-direct-value", said, EOPNOTSUPP)
    if offset >= map.value_size:
        return _refused(
            map, "value-offset", f"offset {offset} is outside the value of {map.value_size} bytes", EINVAL
        )
    return None


def _check_extra(map: Map, rule: MapRule) -> Diagnostic | None:
    if map.extra & ~rule.extra:
        said = f"map_extra {map.extra:#x} means nothing to a {_name(map)}"
        return _refused(map, "map-extra", said, EINVAL)
    return None


def _check_access(map: Map, rule: MapRule) -> Diagnostic | None:
    """What the descriptor is to allow; Linux asks before it looks at the type."""
    if map.flags & _USER_ACCESS == _USER_ACCESS:
        return _refused(map, "map-flags", "RDONLY and WRONLY exclude each other", EINVAL)
    return None


def _check_flags(map: Map, rule: MapRule) -> Diagnostic | None:
    flags, name = MapFlag(map.flags), _name(map)
    unknown = map.flags & ~int(rule.flags) & ~(_NO_LRU if map.type in LRU_HASHES else 0)
    if unknown:
        return _refused(map, "map-flags", f"a {name} does not have flags {_names(unknown)}", EINVAL)
    if MapFlag.RDONLY_PROG in flags and MapFlag.WRONLY_PROG in flags:
        return _refused(map, "map-flags", "RDONLY_PROG and WRONLY_PROG exclude each other", EINVAL)
    missing = int(rule.required) & ~map.flags
    if missing:
        return _refused(map, "map-flags", f"a {name} needs flags {_names(missing)}", EINVAL)
    return _check_lru(map, flags) if map.type in LRU_HASHES else None


def _check_lru(map: Map, flags: MapFlag) -> Diagnostic | None:
    """What Linux looks at once it knows all flags."""
    if flags & MapFlag.NO_PREALLOC:
        return _refused(map, "map-flags", "an lru map is always preallocated", EOPNOTSUPP)
    if flags & MapFlag.NUMA_NODE and (MapFlag.NO_COMMON_LRU in flags or is_per_cpu(map.type)):
        return _refused(map, "map-flags", "values and lru lists for each cpu have no numa node", EINVAL)
    return None


def _check_sizes(map: Map, rule: MapRule) -> Diagnostic | None:
    problem = _check_range(map, "key_size", map.key_size, rule.key) or _check_range(
        map, "value_size", map.value_size, rule.value
    )
    if problem is None and rule.value_sizes and map.value_size not in rule.value_sizes:
        wanted = " or ".join(str(size) for size in rule.value_sizes)
        said = f"value_size is {map.value_size}, a {_name(map)} wants {wanted}"
        return _refused(map, "value-size", said, EINVAL)
    if problem is None and map.type is MapType.STACK_TRACE:
        frame = BUILD_ID_SIZE if map.flags & MapFlag.STACK_BUILD_ID else 8
        if map.value_size % frame:
            said = f"value_size {map.value_size} is no multiple of {frame}"
            return _refused(map, "value-size", said, EINVAL)
        return _check_range(map, "value_size", map.value_size, (frame, MOST_FRAMES * frame))
    return problem


def _check_entries(map: Map, rule: MapRule) -> Diagnostic | None:
    problem = _check_range(map, "max_entries", map.max_entries, rule.entries)
    if (
        problem is None
        and rule.is_ring
        and (map.max_entries % PAGE or map.max_entries & (map.max_entries - 1))
    ):
        said = f"max_entries {map.max_entries} is no power of two of whole pages ({PAGE} bytes)"
        return _refused(map, "max-entries", said, EINVAL)
    return problem


def _check_limits(map: Map, rule: MapRule) -> Diagnostic | None:
    if map.key_size > rule.key_limit:
        return _refused(map, "key-size", f"key_size {map.key_size} is more than {rule.key_limit}", E2BIG)
    if map.value_size > rule.value_limit or (
        map.type in HASHES and map.key_size + map.value_size > _ALLOCATION_LIMIT
    ):
        return _refused(
            map, "value-size", f"value_size {map.value_size} is more than {rule.value_limit}", E2BIG
        )
    return None


def _check_inner(map: Map, rule: MapRule) -> Diagnostic | None:
    if rule.needs_inner and map.inner is None:
        said = f"a {_name(map)} needs a template of its inner maps"
        return _refused(map, "no-inner-map", said, EINVAL)
    return None


def _check_range(map: Map, word: str, found: int, allowed: tuple[int, int]) -> Diagnostic | None:
    least, most = allowed
    if least <= found <= most:
        return None
    wanted = f"{least}..{most}" if most != NO_LIMIT else f"at least {least}"
    said = f"{word} is {found}, a {_name(map)} wants {least if least == most else wanted}"
    return _refused(map, word.replace("_", "-"), said, EINVAL)


# In the kernel's order, as far as it decides which errno there is.
_FIRST: Final = (_check_extra, _check_access)
_CHECKS: Final = (*_FIRST, _check_flags, _check_sizes, _check_entries, _check_limits, _check_inner)
_CELL_CHECKS: Final = (*_FIRST, _check_sizes, _check_limits, _check_flags, _check_entries)


def _name(map: Map) -> str:
    return map.type.name.lower()


def _names(flags: int) -> str:
    return ", ".join(flag.name or "" for flag in MapFlag if flags & flag) or f"{flags:#x}"


def _refused(map: Map, code: str, message: str, errno: int) -> Diagnostic:
    return Diagnostic(code, f"map {map.name}: {message}", errno=errno)
