"""The micro programs: a C source each, the packet it runs over, and how it is built natively."""

from __future__ import annotations

import random
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from benchmarks.generate import SIZES, generate

FOLDER: Final = Path(__file__).parent / "programs"
RANDOM: Final = random.Random(7).randbytes(1500)


@final
@dataclass(frozen=True, slots=True)
class Micro:
    """A micro program: what it does, its packet, and whether the native result is the same (`is_exact`)."""

    name: str
    summary: str
    packet: bytes
    is_exact: bool = True

    @property
    def object(self) -> Path:
        """The committed BPF object; its program is called 'bench'."""
        return FOLDER / f"{self.name}.o"

    def source(self, folder: Path) -> Path:
        """The C source; a generated one is written into `folder`, with the header beside it."""
        if self.name not in SIZES:
            return FOLDER / f"{self.name}.c"
        shutil.copy(FOLDER / "bench.h", folder)
        path = folder / f"{self.name}.c"
        path.write_text(generate(self.name))
        return path


def _tcp_packet() -> bytes:
    ethernet = bytes(12) + struct.pack(">H", 0x0800)
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 40, 1, 0, 64, 6, 0, 0xC0000201, 0xC0000202)
    return ethernet + ip + struct.pack(">HHIIBBHHH", 40000, 8080, 1, 1, 0x50, 0x10, 1000, 0, 0) + bytes(6)


EMPTY: Final = Micro("empty", "the batch loop alone", bytes(64))
MICROS: Final = (
    Micro("arithmetic", "100 000 iterations of multiply, add, xor, shift", RANDOM[:64]),
    Micro("checksum", "internet checksum of 1500 bytes, checked once", RANDOM),
    Micro("fnv1a", "FNV-1a of 1024 bytes, each checked", RANDOM[:1024]),
    Micro("jhash", "jhash of 480 bytes, each block checked", RANDOM[:480]),
    Micro("classifier", "Ethernet, IPv4, TCP to a class", _tcp_packet()),
    Micro("sieve", "sieve on the BPF stack", RANDOM[:64]),
    Micro("byteswap", "128 words swapped in place", RANDOM[:1024]),
    Micro("atomics", "1000 atomic additions to a global and a map value", RANDOM[:64]),
    Micro("division", "1500 dependent divisions and remainders", RANDOM[:64]),
    Micro("calls", "1000 calls of a noinline subprogram", RANDOM[:64]),
    Micro("helpers", "1000 helper calls (a native call through a pointer)", RANDOM[:64], is_exact=False),
    Micro("random_1k", "1000 random instructions", RANDOM[:512]),
    Micro("random_4k", "4000 random instructions", RANDOM[:512]),
    Micro("random_16k", "16 000 random instructions", RANDOM[:512]),
)
