"""Bytes of values that are no data: updates leave locks and timers alone, BPF_F_LOCK takes the lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from errno import EEXIST, EINVAL, ENOENT, EOPNOTSUPP
from pathlib import Path

import pytest

import bpfc
from bpfc.running import Runtime
from ir.diagnostics import RejectedError
from ir.maps import UpdateFlag
from runtime.maps.live import LiveMap

OBJECT = Path(__file__).parents[2] / "objects" / "locked.o"
LOCK = int(UpdateFlag.LOCK)
PACKET = bytes(64)
KEY = (1).to_bytes(4, "little")
LOCK_AT = 4


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with bpfc.load(OBJECT).start() as started:
        yield started


def value(number: int, lock: int = 0) -> bytes:
    whole = number.to_bytes(4, "little") + lock.to_bytes(4, "little") + (number + 1).to_bytes(8, "little")
    return whole + bytes([1, 2, 3, 4, 5]) + bytes(3)


def word(live: LiveMap, offset: int = LOCK_AT) -> memoryview:
    """The lock, as programs have it."""
    start = live.locate(KEY) - live.address + offset
    return live.block.view[start : start + 4]


def test_the_places_are_known_from_the_types(runtime: Runtime) -> None:
    maps = runtime.world.declared
    assert maps["array"].special == ((4, 4, "bpf_spin_lock"),)
    assert maps["timed_hash"].special == ((8, 16, "bpf_timer"),)
    assert (maps["hash"].lock, maps["timed_array"].lock) == (4, None)


@pytest.mark.parametrize("name", ["array", "hash"])
def test_the_host_neither_sees_nor_writes_a_lock(runtime: Runtime, name: str) -> None:
    live = runtime.maps[name].live
    live.update(KEY, value(5, lock=99))
    assert bytes(word(live)) == bytes(4)
    word(live)[:] = b"\1\0\0\0"
    assert live.lookup(KEY) == value(5)
    assert dict(live.items())[KEY] == value(5)
    live.update(KEY, value(6, lock=99))
    assert live.lookup(KEY) == value(6)
    assert bytes(word(live)) == (b"\1\0\0\0" if name == "array" else bytes(4))  # a hash has a new element


@pytest.mark.parametrize("name", ["array", "hash"])
def test_a_program_neither_writes_a_lock(runtime: Runtime, name: str) -> None:
    live = runtime.maps[name].live
    for flags in (0, LOCK):
        assert runtime[f"in_{name}"].run(PACKET, {"mark": 8, "priority": flags}).ret == 0
        assert bytes(word(live)) == bytes(4)
        assert live.lookup(KEY) == value(8)


@pytest.mark.parametrize(
    ("name", "flags", "wanted"),
    [
        ("array", LOCK, 0),
        ("array", LOCK | UpdateFlag.EXIST, 0),
        ("array", LOCK | UpdateFlag.NOEXIST, EEXIST),
        ("array", LOCK | 3, EINVAL),
        ("array", 8, EINVAL),
        ("hash", LOCK, 0),
        ("hash", LOCK | UpdateFlag.EXIST, ENOENT),
        ("hash", LOCK | UpdateFlag.NOEXIST, 0),
        ("hash", LOCK | 3, EINVAL),
        ("hash", LOCK | 8, EINVAL),
        ("timed_array", LOCK, EINVAL),
        ("timed_hash", LOCK, EINVAL),
    ],
)
def test_flags_are_judged_as_in_linux(runtime: Runtime, name: str, flags: int, wanted: int) -> None:
    live = runtime.maps[name].live
    content = value(3) if not name.startswith("timed") else bytes(32)
    if wanted:
        with pytest.raises(RejectedError) as caught:
            live.update(KEY, content, flags)
        assert caught.value.errno == wanted
    else:
        live.update(KEY, content, flags)
    if not name.startswith("timed"):
        verdict = runtime[f"in_{name}"].run(PACKET, {"mark": 3, "priority": flags}).verdict
        again = EEXIST if flags == LOCK | UpdateFlag.NOEXIST else wanted
        assert verdict == (-again) & 0xFFFF_FFFF


@pytest.mark.parametrize("name", ["timed_array", "timed_hash"])
def test_a_timer_in_an_array_stays_and_in_a_new_element_is_none(runtime: Runtime, name: str) -> None:
    live = runtime.maps[name].live
    live.update(KEY, bytes(range(32)))
    data = bytes(range(8)) + bytes(16) + bytes(range(24, 32))
    assert live.lookup(KEY) == data
    assert bytes(word(live, 8)) == bytes(4)
    word(live, 8)[:] = b"used"
    live.update(KEY, bytes(range(32)))
    assert bytes(word(live, 8)) == (b"used" if name == "timed_array" else bytes(4))
    assert live.lookup(KEY) == data


@pytest.mark.parametrize("name", ["array", "hash"])
def test_a_locked_update_waits_for_the_lock(runtime: Runtime, name: str) -> None:
    live = runtime.maps[name].live
    live.update(KEY, value(1))
    held = word(live)
    held[:] = b"\1\0\0\0"
    writer = threading.Thread(target=live.update, args=(KEY, value(2), LOCK))
    writer.start()
    for _ in range(20):
        time.sleep(0.001)
        assert live.lookup(KEY) == value(1)
    assert writer.is_alive()
    held[:] = bytes(4)
    writer.join()
    assert live.lookup(KEY) == value(2)
    assert bytes(held) == bytes(4)


def test_locked_updates_and_programs_never_see_halves(runtime: Runtime) -> None:
    live = runtime.maps["hash"].live
    live.update(KEY, value(0))
    seen: list[int] = []

    def program() -> None:
        seen.extend(runtime["add"].run(PACKET).ret for _ in range(2000))

    threads = [threading.Thread(target=program) for _ in range(2)]
    for thread in threads:
        thread.start()
    number = 0
    while any(thread.is_alive() for thread in threads):
        number += 1
        live.update(KEY, value(number), LOCK)
    for thread in threads:
        thread.join()
    assert set(seen) == {0}


def test_what_has_such_fields_is_not_frozen(runtime: Runtime) -> None:
    with pytest.raises(RejectedError) as caught:
        runtime.maps["array"].freeze()
    assert caught.value.errno == EOPNOTSUPP
