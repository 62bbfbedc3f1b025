"""Opens pinned maps with bits flipped and words overwritten, and works on those that it may open.

    python -m tests.damaged_pins SEED COUNT       prints each case before it is tried: the last one is the find

A process of its own, since a map that is worse than it looks crashes or hangs whoever works on it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

from backends.registry import host
from ir import map_layout
from ir.diagnostics import DiagnosticError, RejectedError, UnreadableError
from ir.kinds import MapFlag, MapType
from ir.maps import HASHES, LRU_HASHES, PAGE
from ir.object import Map
from runtime.cache import ObjectCache
from runtime.maps.host import HostOperations, Operations
from runtime.maps.live import LiveMap, create
from runtime.maps.pin import open_pin, pin
from runtime.maps.ring import RingView, UserRingView
from runtime.maps.views import view_of
from runtime.memory import Pool

ENTRIES: Final = 12
CPUS: Final = 2
NO_PREALLOC: Final = MapFlag.NO_PREALLOC
LOCKED: Final = ((8, 4, "bpf_spin_lock"),)
MAPS: Final = (
    Map("hash", MapType.HASH, 4, 8, ENTRIES),
    Map("wide", MapType.HASH, 20, 16, ENTRIES),
    Map("locked", MapType.HASH, 8, 16, ENTRIES, special=LOCKED),
    Map("per_cpu", MapType.PERCPU_HASH, 4, 8, ENTRIES),
    Map("lru", MapType.LRU_HASH, 4, 8, ENTRIES),
    Map("lru_per_cpu", MapType.LRU_PERCPU_HASH, 8, 8, ENTRIES),
    Map("devices", MapType.DEVMAP_HASH, 4, 4, ENTRIES),
    Map("owners", MapType.SK_STORAGE, 4, 8, 0, NO_PREALLOC),
    Map("trie", MapType.LPM_TRIE, 8, 8, ENTRIES, NO_PREALLOC),
    Map("long_trie", MapType.LPM_TRIE, 24, 4, ENTRIES, NO_PREALLOC),
    Map("array", MapType.ARRAY, 4, 8, ENTRIES),
    Map("cells", MapType.PERCPU_ARRAY, 4, 8, ENTRIES),
    Map("queue", MapType.QUEUE, 0, 8, ENTRIES),
    Map("stack", MapType.STACK, 0, 8, ENTRIES),
    Map("bloom", MapType.BLOOM_FILTER, 0, 8, ENTRIES, extra=3),
    Map("ring", MapType.RINGBUF, 0, 0, PAGE),
    Map("user_ring", MapType.USER_RINGBUF, 0, 0, PAGE),
    Map("perf", MapType.PERF_EVENT_ARRAY, 4, 4, 2),
    Map("programs", MapType.PROG_ARRAY, 4, 4, ENTRIES),
    Map("ports", MapType.DEVMAP, 4, 4, ENTRIES),
)
SMALL_BLOCK: Final = 4096  # bytes of a block that cases damage, behind which there is nothing but room


def main(seed: int, count: int) -> None:
    """Try `count` cases on each map."""
    with TemporaryDirectory() as folder, Pool(poison=host().poison) as pool:
        operations = HostOperations(pool, ObjectCache.default())
        for declared in MAPS:
            whole = _sample(declared, pool, operations, Path(folder) / declared.name)
            for number in range(count):
                sys.stdout.write(f"{declared.name} {seed} {number}\n")
                sys.stdout.flush()
                random = Random(f"{declared.name} {seed} {number}")
                signal.alarm(60)  # whose default is to end the process, native code or not
                _try(
                    Path(folder) / f"{declared.name}.bad",
                    _damaged(whole, random),
                    declared,
                    operations,
                    random,
                )
                signal.alarm(0)
        operations.close()


def _sample(declared: Map, pool: Pool, operations: Operations, path: Path) -> bytes:
    """A pinned map that has been used: entries came and went."""
    live = create(declared, pool, operations, CPUS, seed=7)
    random = Random(declared.name)
    for _ in range(40):
        _work(live, random)
    pin(live, path)
    live.close()
    return path.read_bytes()


def _damaged(whole: bytes, random: Random) -> bytes:
    """Flip bits, or overwrite words by such as might stand there, mostly where the map says what is where."""
    data = bytearray(whole)
    end = min(len(data), PAGE + random.choice((SMALL_BLOCK, 3 * PAGE + 64, len(data))))
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        at = random.randrange(random.choice((0, PAGE, PAGE + map_layout.LOCK)), end)
        if random.random() < 0.5:
            data[at] ^= 1 << random.randrange(8)
            continue
        word = random.choice((random.randrange(2 * ENTRIES), random.getrandbits(32)))
        word |= random.choice((0, 0, map_layout.CHAIN_END, map_layout.BUCKET_LOCKED))
        at = at // 4 * 4
        data[at : at + 4] = (word & 0xFFFF_FFFF).to_bytes(4, sys.byteorder)
    return bytes(data)


def _try(path: Path, data: bytes, declared: Map, operations: Operations, random: Random) -> None:
    path.write_bytes(data)
    try:
        live = open_pin(path, operations, random.choice((declared, None)), CPUS)
    except (UnreadableError, RejectedError):
        assert path.read_bytes() == data, "a file that is refused is left as it is"
        return
    for _ in range(30):
        _work(live, random)
    if declared.type in HASHES - LRU_HASHES or declared.type is MapType.LPM_TRIE:
        _fill(live, random)
    live.close()


def _work(live: LiveMap, random: Random) -> None:
    """One operation, or one that the map refuses."""
    with suppress(DiagnosticError):
        random.choice(_operations(live, random))()


def _operations(live: LiveMap, random: Random) -> list[Callable[[], object]]:
    declared, cpus = live.declared, live.cpus if live.is_per_cpu else 1
    key = _key(live, random.randrange(2 * ENTRIES))
    value = random.randbytes(live.value_size * cpus)
    if declared.type in (MapType.RINGBUF, MapType.PERF_EVENT_ARRAY, MapType.USER_RINGBUF):
        view = view_of(live)
        if isinstance(view, UserRingView):
            return [lambda: view.send(value), lambda: view.unread]
        assert isinstance(view, RingView)
        if declared.type is MapType.PERF_EVENT_ARRAY:
            return [lambda: list(view)]
        output = live.host.of(declared.type, "output")
        size = random.randrange(200)
        return [lambda: list(view), *[lambda: output(live.host.run, live.address, live.address, size, 0)] * 3]
    if declared.type in (MapType.QUEUE, MapType.STACK):
        return [lambda: live.push(value), lambda: live.take("pop"), lambda: live.take("peek")]
    if declared.type is MapType.BLOOM_FILTER:
        return [lambda: live.push(value), lambda: live.may_have(value)]
    if declared.type in (MapType.PROG_ARRAY, MapType.DEVMAP):
        return [
            lambda: live.put_slot(random.randrange(ENTRIES), random.randrange(2), 5),
            lambda: live.lookup(key),
        ]
    change = [lambda: live.update(key, value)] * 2
    return [*change, lambda: live.delete(key), lambda: live.lookup(key), lambda: list(live.items())]


def _fill(live: LiveMap, random: Random) -> None:
    """Empty a map, and fill it: whatever was wrong, it has room for all of its entries again."""
    if live.is_frozen:
        return
    for key, _ in list(live.items()):
        live.delete(key)
    assert not list(live.items()), "a deleted entry is gone"
    room = live.layout.elements // (2 if live.declared.type is MapType.LPM_TRIE else 1)
    value = bytes(live.value_size * (live.cpus if live.is_per_cpu else 1))
    for number in range(room):
        live.update(_key(live, number), value)
        live.update(_key(live, number), value)
    assert len(live) == room, "as many entries as there is room for"


def _key(live: LiveMap, number: int) -> bytes:
    order = live.host.order
    if not live.key_size:
        return b""
    if live.declared.type is MapType.LPM_TRIE:
        data = live.key_size - 4
        prefix = 8 * data - number % 3 * 3
        shifted = number << 8 * (data - 2)
        return prefix.to_bytes(4, order) + shifted.to_bytes(data, "big")
    return number.to_bytes(live.key_size, order)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
