"""AArch64: encodings from the Arm ARM (DDI 0487), chapter C6; relocations from the AAELF64 document, section 5.7.

external data     adrp x8, page of the table entry | ldr x8, [x8, low 12 bits]
constants         adrp x8, page                    | ldr q0, [x8, low 12 bits]
calls             bl, to a veneer where the callee is more than 128 MiB away; it changes x16 alone
"""

from __future__ import annotations

from collections.abc import Callable
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

_NOP: Final = (0xD503201F).to_bytes(4, "little")
_REACH: Final = 1 << 27


def _nop(_: int) -> bytes:
    return _NOP


def _jump(distance: int) -> bytes:
    return (0x14000000 | (distance >> 2) & 0x03FFFFFF).to_bytes(4, "little")


def _fill(length: int) -> bytes:
    return _NOP * (length // 4)


def _imm26(old: int, value: int) -> int:
    return old & ~0x03FFFFFF | (value >> 2) & 0x03FFFFFF


def _page(old: int, value: int) -> int:
    """ADRP: the page count's low 2 bits at 29, the other 19 at 5."""
    pages = value >> 12
    return old & ~(3 << 29 | 0x7FFFF << 5) | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5


def _low_12(scale: int) -> Callable[[int, int], int]:
    """ADD, LDR, STR: the low 12 bits of an address, counted in units of 1 << `scale`, at bit 10."""

    def encode(old: int, value: int) -> int:
        return old & ~(0xFFF << 10) | ((value & 0xFFF) >> scale) << 10

    return encode


_S33: Final = (-(2**32), 2**32)
_S28: Final = (-_REACH, _REACH)

AARCH64: Final = Target(
    name="aarch64",
    triple="aarch64-unknown-linux-gnu",
    machine=183,
    byte_order="little",
    cpu="generic",
    features="",
    abi="",
    disassembly=("CS_ARCH_ARM64", "CS_MODE_ARM"),
    patching=Patching(
        length=4,
        unit=4,
        unit_offset=0,
        region=4,
        nop=_nop,
        jump=_jump,
        fill=_fill,
        near_low=-_REACH,
        near_high=_REACH,
        entry=_NOP,
        canary=(bytes.fromhex("20008052c0035fd6"), bytes.fromhex("40008052c0035fd6")),  # mov w0, n; ret
        needs_cache_flush=True,
        sleds=uniform_sleds(_NOP, _REACH, (bytes.fromhex("5f2403d5"),)),  # bti c
    ),
    veneer=Veneer(bytes.fromhex("5000005800021fd6"), literal=8),  # ldr x16, 8; br x16
    poison=bytes.fromhex("000020d4"),  # brk 0
    calling=Calling(
        tuple(f"x{i}" for i in range(8)), "x0", "sp", "lr", 0, bytes.fromhex("c0035fd6"), 64, Pairs.WORDS
    ),
    emulation=Emulation("ARM64", "ARM", "ARM64", ("tpidr_el0",)),
    numbers={
        257: "R_AARCH64_ABS64",
        258: "R_AARCH64_ABS32",
        260: "R_AARCH64_PREL64",
        261: "R_AARCH64_PREL32",
        275: "R_AARCH64_ADR_PREL_PG_HI21",
        277: "R_AARCH64_ADD_ABS_LO12_NC",
        278: "R_AARCH64_LDST8_ABS_LO12_NC",
        282: "R_AARCH64_JUMP26",
        283: "R_AARCH64_CALL26",
        284: "R_AARCH64_LDST16_ABS_LO12_NC",
        285: "R_AARCH64_LDST32_ABS_LO12_NC",
        286: "R_AARCH64_LDST64_ABS_LO12_NC",
        299: "R_AARCH64_LDST128_ABS_LO12_NC",
        311: "R_AARCH64_ADR_GOT_PAGE",
        312: "R_AARCH64_LD64_GOT_LO12_NC",
    },
    relocations={
        "R_AARCH64_ABS64": RelocationType(Base.ABSOLUTE, 8, *ANY_64, put_64),
        "R_AARCH64_ABS32": RelocationType(Base.ABSOLUTE, 4, -(2**31), 2**32, put_32),
        "R_AARCH64_PREL64": RelocationType(Base.RELATIVE, 8, *ANY_64, put_64),
        "R_AARCH64_PREL32": RelocationType(Base.RELATIVE, 4, *SIGNED_32, put_32),
        "R_AARCH64_ADR_PREL_PG_HI21": RelocationType(Base.PAGE, 4, *_S33, _page),
        "R_AARCH64_ADD_ABS_LO12_NC": RelocationType(Base.ABSOLUTE, 4, *ANY_64, _low_12(0)),
        "R_AARCH64_LDST8_ABS_LO12_NC": RelocationType(Base.ABSOLUTE, 4, *ANY_64, _low_12(0)),
        "R_AARCH64_LDST16_ABS_LO12_NC": RelocationType(Base.ABSOLUTE, 4, *ANY_64, _low_12(1)),
        "R_AARCH64_LDST32_ABS_LO12_NC": RelocationType(Base.ABSOLUTE, 4, *ANY_64, _low_12(2)),
        "R_AARCH64_LDST64_ABS_LO12_NC": RelocationType(Base.ABSOLUTE, 4, *ANY_64, _low_12(3)),
        "R_AARCH64_LDST128_ABS_LO12_NC": RelocationType(Base.ABSOLUTE, 4, *ANY_64, _low_12(4)),
        "R_AARCH64_JUMP26": RelocationType(Base.BRANCH, 4, *_S28, _imm26),
        "R_AARCH64_CALL26": RelocationType(Base.BRANCH, 4, *_S28, _imm26),
        "R_AARCH64_ADR_GOT_PAGE": RelocationType(Base.GOT_PAGE, 4, *_S33, _page),
        "R_AARCH64_LD64_GOT_LO12_NC": RelocationType(Base.GOT_LOW, 4, 0, 4096, _low_12(3)),
    },
)
