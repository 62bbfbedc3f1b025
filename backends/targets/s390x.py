"""s390x, big-endian: encodings from the z/Architecture Principles of Operation (SA22-7832); relocations from the
s390x ELF ABI supplement, table "Relocation types".

Distances count halfwords from the instruction's first byte. A static branch keeps its distance; patching changes only
the mask, in the high half of its second byte:

    c0 04 distance    branch never          c0 f4 distance    branch always
"""

from __future__ import annotations

from typing import Final

from backends.target import (
    ANY_64,
    SIGNED_32,
    Base,
    Calling,
    Emulation,
    Pairs,
    Patching,
    RelocationType,
    Target,
    Veneer,
    put_32,
    put_64,
    uniform_sleds,
)

_REACH: Final = 1 << 32
_CANARY: Final = (
    "00000006a729000107fea729000207fe"  # to the second; lghi %r2, 1; br %r14; lghi %r2, 2; br %r14
)


def _nop(distance: int) -> bytes:
    return b"\xc0\x04" + _halfwords(distance)


def _jump(distance: int) -> bytes:
    return b"\xc0\xf4" + _halfwords(distance)


def _halfwords(distance: int) -> bytes:
    return (distance >> 1).to_bytes(4, "big", signed=True)


def _fill(length: int) -> bytes:
    return bytes.fromhex("0700") * (length // 2)  # nopr


def _doubled(old: int, value: int) -> int:
    return value >> 1 & 0xFFFFFFFF


_S33: Final = (-_REACH, _REACH)

S390X: Final = Target(
    name="s390x",
    triple="s390x-unknown-linux-gnu",
    machine=22,
    byte_order="big",
    cpu="z10",
    features="",
    abi="",
    disassembly=("CS_ARCH_SYSZ", "CS_MODE_BIG_ENDIAN"),
    patching=Patching(
        length=6,
        unit=1,
        unit_offset=1,
        region=6,
        nop=_nop,
        jump=_jump,
        fill=_fill,
        near_low=-_REACH,
        near_high=_REACH,
        entry=_nop(0),
        canary=(bytes.fromhex("c004" + _CANARY), bytes.fromhex("c0f4" + _CANARY)),
        needs_cache_flush=False,
        sleds=uniform_sleds(bytes.fromhex("c00400000000"), _REACH),
    ),
    veneer=Veneer(bytes.fromhex("c4180000000407f1"), literal=8),  # lgrl %r1, 8; br %r1
    poison=bytes.fromhex("0001"),  # an operation that will never be one
    calling=Calling(
        ("r2", "r3", "r4", "r5", "r6"), "r2", "r15", "r14", 160, bytes.fromhex("07fe"), 4, Pairs.REFERENCE
    ),
    emulation=Emulation(
        "S390X", "BIG_ENDIAN", "S390X", ("a0", "a1"), 32, (("pswm", 0x1_8000_0000),)
    ),  # 64-bit addresses
    numbers={
        4: "R_390_32",
        5: "R_390_PC32",
        19: "R_390_PC32DBL",
        20: "R_390_PLT32DBL",
        22: "R_390_64",
        23: "R_390_PC64",
        26: "R_390_GOTENT",
    },
    relocations={
        "R_390_32": RelocationType(Base.ABSOLUTE, 4, -(2**31), 2**32, put_32),
        "R_390_PC32": RelocationType(Base.RELATIVE, 4, *SIGNED_32, put_32),
        "R_390_PC32DBL": RelocationType(Base.RELATIVE, 4, *_S33, _doubled),
        "R_390_PLT32DBL": RelocationType(Base.BRANCH, 4, *_S33, _doubled),
        "R_390_64": RelocationType(Base.ABSOLUTE, 8, *ANY_64, put_64),
        "R_390_PC64": RelocationType(Base.RELATIVE, 8, *ANY_64, put_64),
        "R_390_GOTENT": RelocationType(Base.GOT, 4, *_S33, _doubled),
    },
    most_programs=27,
)
