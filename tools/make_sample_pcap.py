"""Write the sample capture, byte for byte the same every time: `make_sample_pcap.py [FILE]`.

500 packets of made-up traffic between documentation addresses (RFC 5737, RFC 3849): TCP, UDP, DNS, echo, ICMP
and ARP, telnet, VLAN and double VLAN tags, IPv6, IP options, fragments, packets cut off in every header.
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path

COUNT = 500
SEED = 20261120
START = 1_700_000_000  # seconds since 1970
DEFAULT = Path(__file__).parent.parent / "tests" / "objects" / "sample.pcap"

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
IPV4, ARP, VLAN, IPV6, QINQ = 0x0800, 0x0806, 0x8100, 0x86DD, 0x88A8
SYN, ACK, PUSH = 0x02, 0x10, 0x08


def main() -> None:
    """Write the capture to the file named first, or where the tests expect it."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    path.write_bytes(capture(random.Random(SEED)))


def capture(rng: random.Random) -> bytes:
    """A little-endian microsecond pcap file of COUNT Ethernet packets."""
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)]
    clock = 0
    for kind in rng.choices(list(KINDS), weights=list(KINDS.values()), k=COUNT):
        packet = kind(rng)
        clock += rng.randrange(1, 4000)
        out.append(struct.pack("<IIII", START + clock // 10**6, clock % 10**6, len(packet), len(packet)))
        out.append(packet)
    return b"".join(out)


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) & 1)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(rng: random.Random, type: int, payload: bytes, tags: tuple[int, ...] = ()) -> bytes:
    """An Ethernet frame, padded to 60 bytes; `tags` are the types of VLAN tags before the payload's."""
    macs = bytes([2, 0, 0, 0, 0, rng.randrange(8)]) + bytes([2, 0, 0, 0, 1, rng.randrange(8)])
    types = [*tags, type]
    head = struct.pack(">H", types[0])
    for following in types[1:]:
        head += struct.pack(">HH", rng.randrange(1, 4095), following)
    return (macs + head + payload).ljust(60, b"\0")


def ipv4(
    rng: random.Random,
    protocol: int,
    payload: bytes,
    offset: int = 0,
    more: bool = False,
    options: bytes = b"",
) -> bytes:
    """An IPv4 packet; `offset` is a fragment's place in units of 8 bytes, `options` a multiple of 4 bytes."""
    source = bytes([192, 0, 2, min(int(rng.expovariate(0.1)) + 1, 254)])
    destination = bytes([198, 51, 100, rng.randrange(1, 9)])
    fragment = offset | (0x2000 if more else 0)
    head = struct.pack(
        ">BBHHHBBH",
        0x45 + len(options) // 4,
        0,
        20 + len(options) + len(payload),
        rng.randrange(1 << 16),
        fragment,
        64,
        protocol,
        0,
    )
    head += source + destination + options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def ipv6(rng: random.Random, protocol: int, payload: bytes) -> bytes:
    """An IPv6 packet without extension headers."""
    prefix = bytes.fromhex("20010db8")
    addresses = prefix + rng.randbytes(11) + b"\1" + prefix + bytes(11) + bytes([rng.randrange(1, 9)])
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload


def tcp(rng: random.Random, port: int, flags: int, payload: bytes = b"") -> bytes:
    """A TCP segment; its checksum is left 0, as with offload."""
    ports = struct.pack(">HH", rng.randrange(32768, 61000), port)
    return ports + struct.pack(">IIBBHHH", rng.randrange(1 << 32), 0, 5 << 4, flags, 64240, 0, 0) + payload


def udp(rng: random.Random, port: int, payload: bytes) -> bytes:
    """A UDP datagram without a checksum."""
    return struct.pack(">HHHH", rng.randrange(32768, 61000), port, 8 + len(payload), 0) + payload


def web(rng: random.Random) -> bytes:
    flags, size = rng.choice([(SYN, 0), (ACK, 0), (ACK | PUSH, rng.randrange(20, 900))])
    return ethernet(rng, IPV4, ipv4(rng, TCP, tcp(rng, rng.choice([80, 443]), flags, rng.randbytes(size))))


def telnet(rng: random.Random) -> bytes:
    return ethernet(rng, IPV4, ipv4(rng, TCP, tcp(rng, 23, SYN)))


def dns(rng: random.Random) -> bytes:
    name = b"\3www\7example\3com\0"
    head = struct.pack(">HHHHHH", rng.randrange(1 << 16), 0x0100, 1, 0, 0, 0)
    return ethernet(rng, IPV4, ipv4(rng, UDP, udp(rng, 53, head + name + struct.pack(">HH", 1, 1))))


def echo(rng: random.Random) -> bytes:
    return ethernet(rng, IPV4, ipv4(rng, UDP, udp(rng, 7, b"echo " * rng.randrange(1, 20))))


def ping(rng: random.Random) -> bytes:
    body = struct.pack(">BBHHH", 8, 0, 0, 1, rng.randrange(100)) + bytes(range(48))
    return ethernet(rng, IPV4, ipv4(rng, ICMP, body[:2] + struct.pack(">H", checksum(body)) + body[4:]))


def arp(rng: random.Random) -> bytes:
    return ethernet(rng, ARP, struct.pack(">HHBBH", 1, IPV4, 6, 4, 1) + rng.randbytes(20))


def tagged(rng: random.Random) -> bytes:
    tags = rng.choice([(VLAN,), (QINQ, VLAN)])
    return ethernet(rng, IPV4, ipv4(rng, TCP, tcp(rng, 443, ACK)), tags)


def tagged_thrice(rng: random.Random) -> bytes:
    return ethernet(rng, IPV4, ipv4(rng, TCP, tcp(rng, 443, ACK)), (QINQ, VLAN, VLAN))


def six(rng: random.Random) -> bytes:
    protocol, payload = rng.choice(
        [
            (TCP, tcp(rng, rng.choice([443, 23]), SYN)),
            (UDP, udp(rng, rng.choice([53, 7]), rng.randbytes(40))),
            (ICMPV6, struct.pack(">BBHI", 128, 0, 0, 1) + bytes(32)),
        ]
    )
    return ethernet(rng, IPV6, ipv6(rng, protocol, payload))


def options(rng: random.Random) -> bytes:
    return ethernet(
        rng, IPV4, ipv4(rng, UDP, udp(rng, rng.choice([7, 23, 4000]), bytes(16)), options=b"\x94\4\0\0")
    )


def fragment(rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return ethernet(rng, IPV4, ipv4(rng, UDP, udp(rng, 4000, bytes(504)), more=True))
    return ethernet(rng, IPV4, ipv4(rng, UDP, bytes(200), offset=64))


def truncated(rng: random.Random) -> bytes:
    whole = rng.choice([web, tagged, six, options])(rng)
    return whole[: rng.randrange(1, 54)]


def bad_header(rng: random.Random) -> bytes:
    """IPv4 whose header claims to be shorter than it can be."""
    return ethernet(rng, IPV4, b"\x41" + ipv4(rng, UDP, udp(rng, 7, b""))[1:])


KINDS: dict[Callable[[random.Random], bytes], int] = {
    web: 40,
    telnet: 6,
    dns: 12,
    echo: 6,
    ping: 5,
    arp: 3,
    tagged: 6,
    tagged_thrice: 1,
    six: 10,
    options: 3,
    fragment: 4,
    truncated: 8,
    bad_header: 1,
}


if __name__ == "__main__":
    main()
