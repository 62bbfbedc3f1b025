"""Programs that work on maps do as the kernel does, operation for operation (tests/objects/map_ops.c)."""

from __future__ import annotations

import os
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bpfc
from tests.kernel_maps import kernel_object

OBJECT = Path(__file__).parent.parent / "objects" / "map_ops.o"
USUAL = 20_000
OPERATIONS = int(os.environ.get("BPFC_MAP_OPERATIONS", USUAL))
BATCH = 48
SIZE = 64  # of a request
DISTINCT = 4096
LOOKUP, UPDATE, DELETE, PUSH, POP, PEEK = range(6)
ANY, NOEXIST, EXIST, TOO_MUCH, LOCK, ALL = 0, 1, 2, 3, 4, 0xFF
KEYED = [
    *("array", "array13", "percpu_array", "hash4", "hash7", "hash16", "hash_lazy", "percpu_hash", "lru_hash"),
    *("lru_percpu_hash", "lpm4", "lpm6", "lpm16"),
]
LISTED = ["queue", "stack"]


def keyed_request(random: random.Random, name: str) -> bytes:
    """An operation on one of some 16 keys, most of which have their turn often."""
    op = random.choices([LOOKUP, UPDATE, DELETE], [5, 4, 2])[0]
    flags = random.choices(
        [ANY, NOEXIST, EXIST, TOO_MUCH, LOCK, LOCK | NOEXIST, ALL], [12, 4, 4, 1, 1, 1, 1]
    )[0]
    if name.startswith("lpm"):
        size = int(name.removeprefix("lpm"))
        data = bytes(random.choice([0, 0x80, 0xC0, 0xFF]) for _ in range(3)) + bytes(13)
        key = struct.pack("<I", random.choice([0, 1, 8, 9, 16, 17, 24, 8 * size, 8 * size + 1])) + data
    else:
        key = struct.pack("<I", random.randrange(12)) + bytes(random.choice([0, 0, 0, 1]) for _ in range(16))
    return request(op, flags, key, random.randbytes(16))


def listed_request(random: random.Random) -> bytes:
    """An operation on a queue or stack."""
    op = random.choices([PUSH, POP, PEEK], [5, 3, 2])[0]
    flags = random.choices([ANY, EXIST, NOEXIST, TOO_MUCH, ALL], [12, 4, 2, 1, 1])[0]
    return request(op, flags, b"", random.randbytes(16))


def request(op: int, flags: int, key: bytes, value: bytes) -> bytes:
    return struct.pack("<2B6x24s16s16x", op, flags, key, value)


def batches(name: str, count: int) -> Iterator[bytes]:
    """`count` operations or a few more, each one of some thousands, in packets."""
    source = random.Random(name)
    is_keyed = name in KEYED
    drawn = [keyed_request(source, name) if is_keyed else listed_request(source) for _ in range(DISTINCT)]
    for _ in range(0, count, BATCH):
        yield b"".join(source.choices(drawn, k=BATCH))


def parts(packet: bytes) -> list[bytes]:
    """The requests of a packet."""
    return [packet[start : start + SIZE] for start in range(0, len(packet), SIZE)]


@pytest.mark.kernel
@pytest.mark.parametrize("name", [*KEYED, *LISTED])
def test_a_sequence_of_operations_has_the_kernels_results(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = bpfc.load(OBJECT)
    done = 0
    with loaded.start() as runtime, kernel_object(loaded.object) as kernel:
        for packet in batches(name, OPERATIONS):
            ours, (count, theirs) = runtime[name].run(packet), kernel.run(name, packet)
            assert ours.verdict == count == BATCH
            if ours.data != theirs:
                for number, request in enumerate(
                    zip(parts(packet), parts(ours.data), parts(theirs), strict=True)
                ):
                    said, answer, wanted = (one.hex(" ", 4) for one in request)
                    assert answer == wanted, (done + number, said)
            done += count
    if OPERATIONS > USUAL:
        with capsys.disabled():
            sys.stdout.write(f"\n{name}: {done} operations in programs as in the kernel\n")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["aarch64", "riscv64"])
def test_maps_are_the_same_on_an_emulated_machine(target: str) -> None:
    pytest.importorskip("unicorn")
    loaded = bpfc.load(OBJECT)
    with loaded.start() as native, loaded.start(target=target) as emulated:
        for name in [*KEYED, *LISTED]:
            for packet in batches(name, 10 * BATCH):
                wanted, answer = native[name].run(packet), emulated[name].run(packet)
                assert (answer.verdict, answer.data) == (wanted.verdict, wanted.data), name
