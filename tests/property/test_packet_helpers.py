"""Packet helpers do to packets what the kernel's do (tests/objects/packet_ops.c)."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

import bpfc
from tests.kernel_maps import kernel_object

OBJECT = Path(__file__).parent.parent / "objects" / "packet_ops.o"
HEAD, TAIL, META, LOAD, STORE, LENGTH, DIFF, L3, L4, STRTOL, STRTOUL, GROW, ROOM, VLAN, RELATIVE = range(15)
XDP = {
    "adjust head": HEAD,
    "adjust tail": TAIL,
    "adjust meta": META,
    "load": LOAD,
    "store": STORE,
    "length": LENGTH,
    "checksum difference": DIFF,
    "signed number": STRTOL,
    "unsigned number": STRTOUL,
}
TC = {
    "load": LOAD,
    "store": STORE,
    "checksum difference": DIFF,
    "l3 checksum": L3,
    "l4 checksum": L4,
    "change tail": TAIL,
    "change head": GROW,
    "adjust room": ROOM,
    "relative load": RELATIVE,
}
NUMBERS = [
    b"0",
    b"12",
    b"-7",
    b"0x1f",
    b"0X",
    b"0x",
    b"  42 ",
    b"+5",
    b"-0x10",
    b"077",
    b"08",
    b"9z",
    b"",
    b"-",
]
NUMBERS += [
    b"9223372036854775",
    b"ffffffffffffffff",
    b"-800000000000000",
    b"\t\n7",
    b"0xfffffffffffffff"[:16],
]
SIZE = 128
OFFSETS = [0, 1, 2, 14, 60, 95, 96, 97, 127, 128, 129, -1, -2, -4, -8, -16, -31, -32, -60, -64, -96, -113]
OFFSETS += [
    -114,
    -115,
    -128,
    -212,
    -215,
    -216,
    -217,
    -252,
    -255,
    -256,
    -300,
    192,
    300,
    320,
    65534,
    65535,
    65536,
]
WORDS = [0, 1, 0xFFFF, 0x10000, 0xFFFF_FFFF, 1 << 32, (1 << 64) - 1, 0x1234_5678_9ABC_DEF0]
SIZES = [0, 2, 4, 0x10, 0x12, 0x14, 0x20, 0x22, 0x34, 0x80, 0x82, 1, 3]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not OBJECT.exists(), reason="needs the little-endian object"),
]


def packet(random: random.Random, op: int) -> bytes:
    size = random.choice([*SIZES, random.randrange(256)])
    offset = random.choice(OFFSETS) if random.random() < 0.7 else random.randrange(-300, 300)
    a, b = (random.choice(WORDS) if random.random() < 0.5 else random.getrandbits(64) for _ in range(2))
    if random.random() < 0.5:
        a, b = a & 0xFFFF, b & 0xFFFF
    if random.random() < 0.3:
        a = 0
    if op in (STRTOL, STRTOUL):
        offset = random.choice([0, 8, 10, 16, 2, 32])
        a, b = struct.unpack("<QQ", random.choice(NUMBERS).ljust(16, random.choice([b"\0", b" ", b"0"])))
    if op == VLAN:
        offset = random.choice([0x0081, 0xA888, 0, 0x1234])
    if op in (TAIL, GROW):
        offset = random.choice([0, 13, 14, -1, 128, 17000, random.randrange(0, 200)])
    if op == ROOM:
        offset = min(offset, 200)  # there are 256 bytes of head room here, pages of it in a kernel
    protocol = random.choice([b"\x08\x00", b"\x86\xdd", b"\x81\x00", b"\x88\xa8", b"\x08\x06"])
    head = b"\x02" * 12 + (protocol if op in (ROOM, VLAN) else b"\x08\x00")
    body = struct.pack("<BB2xiQQ", op, size, offset, a, b)
    rest = random.randbytes(SIZE - len(head) - len(body))
    return head + body + (rest if random.random() < 0.8 else bytes(len(rest)))


@pytest.mark.parametrize(
    ("program", "op"),
    [
        pytest.param(program, op, id=f"{program} {name}")
        for program, ops in (("on_xdp", XDP), ("on_tc", TC), ("on_vlan", {"tag": VLAN}))
        for name, op in ops.items()
    ],
)
def test_a_packet_helper_does_what_the_kernels_does(program: str, op: int) -> None:
    source = random.Random(op)
    loaded = bpfc.load(OBJECT)
    with loaded.start() as runtime, kernel_object(loaded.object) as kernel:
        ours = runtime[program]
        for number in range(400):
            data = packet(source, op)
            verdict, after = kernel.run(program, data)
            result = ours.run(data)
            if op == META:
                after = after[
                    len(after) - len(result.data) :
                ]  # the kernel shows the metadata before the packet
            shown = (number, data[14:40].hex())
            assert (result.verdict, result.data) == (verdict, after), shown
