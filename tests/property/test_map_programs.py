"""Programs that work on maps do as the kernel does, operation for operation (tests/objects/map_ops.c)."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

import bpfc
from tests.kernel_maps import kernel_object

OBJECT = Path(__file__).parent.parent / "objects" / "map_ops.o"
OPERATIONS = int(os.environ.get("BPFC_MAP_OPERATIONS", "4000"))
LOOKUP, UPDATE, DELETE, PUSH, POP, PEEK = range(6)
ANY, NOEXIST, EXIST, TOO_MUCH = 0, 1, 2, 3
KEYED = [
    *("array", "array13", "percpu_array", "hash4", "hash7", "hash16", "hash_lazy", "percpu_hash", "lru_hash"),
    *("lpm4", "lpm6", "lpm16"),
]
LISTED = ["queue", "stack"]


def keyed_request(random: random.Random, name: str) -> bytes:
    """An operation on one of some 16 keys, most of which have their turn often."""
    op = random.choices([LOOKUP, UPDATE, DELETE], [5, 4, 2])[0]
    flags = random.choices([ANY, NOEXIST, EXIST, TOO_MUCH], [6, 2, 2, 1])[0]
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
    return request(
        op, random.choices([ANY, EXIST, NOEXIST, TOO_MUCH], [6, 2, 1, 1])[0], b"", random.randbytes(16)
    )


def request(op: int, flags: int, key: bytes, value: bytes) -> bytes:
    return struct.pack("<2B6x24s16s", op, flags, key, value)


@pytest.mark.kernel
@pytest.mark.parametrize("name", [*KEYED, *LISTED])
def test_a_sequence_of_operations_has_the_kernels_results(name: str) -> None:
    source = random.Random(name)
    loaded = bpfc.load(OBJECT)
    with loaded.start() as runtime, kernel_object(loaded.object) as kernel:
        program = runtime[name]
        for number in range(OPERATIONS):
            packet = keyed_request(source, name) if name in KEYED else listed_request(source)
            wanted, _ = kernel.run(name, packet)
            assert program.run(packet).verdict == wanted, (number, packet.hex())


@pytest.mark.slow
@pytest.mark.parametrize("target", ["aarch64", "riscv64"])
def test_maps_are_the_same_on_an_emulated_machine(target: str) -> None:
    pytest.importorskip("unicorn")
    loaded = bpfc.load(OBJECT)
    with loaded.start() as native, loaded.start(target=target) as emulated:
        for name in [*KEYED, *LISTED]:
            source = random.Random(name)
            for number in range(100):
                packet = keyed_request(source, name) if name in KEYED else listed_request(source)
                wanted = native[name].run(packet).verdict
                assert emulated[name].run(packet).verdict == wanted, (name, number, packet.hex())
