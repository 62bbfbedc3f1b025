"""Maps under threads: no element is lost, none is given out twice, every value belongs to its key."""

from __future__ import annotations

import ctypes
import random
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from backends import abi
from backends.registry import host
from ir.diagnostics import RejectedError
from ir.kinds import MapFlag, MapType
from ir.object import Map
from runtime.maps.host import HostOperations
from runtime.maps.live import create
from runtime.memory import Pool

THREADS = 4
OPERATIONS = 8000
ENTRIES = 64
KEYS = 100
MAPS = [
    Map("hash", MapType.HASH, 4, 8, ENTRIES),
    Map("lru", MapType.LRU_HASH, 4, 8, ENTRIES),
    Map("per_cpu", MapType.PERCPU_HASH, 4, 8, ENTRIES),
    Map("trie", MapType.LPM_TRIE, 8, 8, ENTRIES, MapFlag.NO_PREALLOC),
]


@dataclass
class Bench:
    pool: Pool
    operations: HostOperations


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Pool(poison=host().poison) as pool:
        operations = HostOperations(pool)
        yield Bench(pool, operations)
        operations.close()


def key_of(declared: Map, number: int) -> bytes:
    if declared.type is MapType.LPM_TRIE:
        return (32).to_bytes(4, sys.byteorder) + (number * 2654435761 & 0xFFFF_FFFF).to_bytes(4, "big")
    return number.to_bytes(4, sys.byteorder)


def value_of(number: int) -> bytes:
    return (number << 32 | number).to_bytes(8, sys.byteorder)


@pytest.mark.parametrize("declared", MAPS, ids=lambda declared: declared.name)
def test_threads_neither_lose_nor_share_elements(declared: Map, bench: Bench) -> None:
    live = create(declared, bench.pool, bench.operations, cpus=THREADS, seed=9)
    keys = [key_of(declared, number) for number in range(KEYS)]
    values = [value_of(number) for number in range(KEYS)]
    update, delete, locate = (
        bench.operations.of(declared.type, name) for name in ("update", "delete", "locate")
    )
    wrong: list[tuple[int, bytes]] = []

    def work(cpu: int) -> None:
        source = random.Random(cpu)
        state = (ctypes.c_uint64 * (abi.RUN_STATE_SIZE // 8))()
        run = ctypes.addressof(state)
        ctypes.c_uint32.from_address(run + abi.CPU).value = cpu
        given = bench.operations.given
        for _ in range(OPERATIONS):
            number = source.randrange(KEYS)
            chosen = source.random()
            if chosen < 0.4:
                update(run, live.address, given(keys[number]), given(values[number]), 0)
            elif chosen < 0.7:
                delete(run, live.address, given(keys[number]))
            else:
                locate(live.address, given(keys[number]))

    threads = [threading.Thread(target=work, args=(cpu,)) for cpu in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for key, value in live.items():
        number = keys.index(key)
        parts = [value[start : start + 8] for start in range(0, len(value), 8)]
        if any(part not in (values[number], bytes(8)) for part in parts):
            wrong.append((number, value))
    assert wrong == []
    for key, _ in list(live.items()):
        live.delete(key)
    assert len(live) == 0
    copies = THREADS if live.is_per_cpu else 1
    for number in range(ENTRIES):
        live.update(key_of(declared, 1000 + number), value_of(number) * copies)
    assert len(live) == ENTRIES
    if declared.type is not MapType.LRU_HASH:
        with pytest.raises(RejectedError):
            live.update(key_of(declared, 5000), value_of(1) * copies)
    live.close()
