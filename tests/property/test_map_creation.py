"""Maps are created, and refused with the same errno, as the kernel does it: sizes, flags and map_extra of every type."""

from __future__ import annotations

import os
import random
from errno import EOPNOTSUPP
from itertools import product

import pytest

from bpfc.testing.kernel import create_map
from ir.kinds import MapFlag, MapType
from ir.maps import RULES, check_map
from ir.object import Map
from runtime.bpf_syscall import KernelError

TRIES = int(os.environ.get("BPFC_MAP_CREATIONS", "60"))
ENOTSUPP = 524
# These need types, another map or a descriptor besides.
OTHERS = (
    *(MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS, MapType.STRUCT_OPS, MapType.ARENA, MapType.INSN_ARRAY),
    *(MapType.SK_STORAGE, MapType.INODE_STORAGE, MapType.TASK_STORAGE, MapType.CGRP_STORAGE),
)
DESCRIPTORS = MapFlag.PATH_FD | MapFlag.TOKEN_FD | MapFlag.VTYPE_BTF_OBJ_FD | MapFlag.LINK | MapFlag.CLONE
FLAGS = [flag for flag in MapFlag if not flag & DESCRIPTORS]
USUAL = (4, 4, 4)
SIZES = {
    **dict.fromkeys((MapType.RINGBUF, MapType.USER_RINGBUF), (0, 0, 4096)),
    **dict.fromkeys((MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER), (0, 4, 4)),
    **dict.fromkeys((MapType.CGROUP_STORAGE, MapType.PERCPU_CGROUP_STORAGE), (8, 4, 0)),
    MapType.LPM_TRIE: (8, 4, 4),
    MapType.STACK_TRACE: (4, 80, 4),
}


def kernel_errno(map: Map) -> int:
    try:
        with create_map(map):
            return 0
    except KernelError as error:
        return EOPNOTSUPP if error.errno == ENOTSUPP else error.errno


@pytest.mark.kernel
@pytest.mark.parametrize("type", [type for type in RULES if type not in OTHERS], ids=lambda type: type.name)
def test_a_map_is_created_or_refused_as_in_the_kernel(type: MapType) -> None:
    source, rule = random.Random(type), RULES[type]
    keys = [0, 1, 4, 4, 4, 8, 16, rule.key[0], 260, 261, 300, 512, 513]
    values = [0, 1, 4, 8, 8, 12, 16, rule.value[0], 1016, 1024, 32, 4064, 4096, 32768, 32769, 65407, 65408]
    entries = [0, 1, 2, 4, 16, 60, *([] if type is MapType.CPUMAP else [100, 4096, 5000, 8192])]
    for _ in range(TRIES):
        flags = sum({source.choice(FLAGS) for _ in range(source.choice([0, 0, 0, 1, 1, 2, 3]))})
        flags |= rule.required if source.random() < 0.5 else 0
        sizes = source.choice(keys), source.choice(values), source.choice(entries)
        map = Map("map", type, *sizes, int(flags), extra=source.choice([0, 0, 0, 0, 3, 16, 1 << 40]))
        problem = check_map(map)
        assert (problem.errno if problem else 0) == kernel_errno(map), (map, problem)


@pytest.mark.kernel
def test_every_two_flags_are_taken_or_refused_as_in_the_kernel() -> None:
    for type in (type for type in RULES if type not in OTHERS):
        for one, other in product(FLAGS, FLAGS):
            map = Map("map", type, *SIZES.get(type, USUAL), int(one | other))
            problem = check_map(map)
            assert (problem.errno if problem else 0) == kernel_errno(map), (map, problem)
