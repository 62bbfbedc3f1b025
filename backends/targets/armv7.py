"""ARMv7-A in ARM state, little-endian, hard float: encodings from the Arm ARM (DDI 0406), chapter A8; relocations from the
AAELF32 document, section 5.6.

Arguments take r0 to r3, 64-bit ones an even pair, then the stack; the result is in r1:r0. A branch reaches 32 MiB both ways:

    external data     ldr r0, [pc, constant]; ldr r0, [pc, r0]     R_ARM_GOT_PREL of the constant
    a far callee      veneer: ldr pc, [pc]; udf; literal           changes no register
"""

from __future__ import annotations

from typing import Final

from backends.target import (
    ANY_32,
    Base,
    Calling,
    Emulation,
    Patching,
    RelocationType,
    Target,
    Veneer,
    flag_words,
    put_32,
    stored_32,
    uniform_sleds,
)

_NOP: Final = (0xE320F000).to_bytes(4, "little")
_REACH: Final = 1 << 25
_AHEAD: Final = 8  # what pc reads as, beyond the instruction


def _nop(_: int) -> bytes:
    return _NOP


def _jump(distance: int) -> bytes:
    return _imm24(0xEA000000, distance - _AHEAD).to_bytes(4, "little")


def _fill(length: int) -> bytes:
    return _NOP * (length // 4)


def _imm24(old: int, value: int) -> int:
    return old & 0xFF000000 | (value >> 2) & 0x00FFFFFF


def _stored_24(word: int) -> int:
    return (((word & 0x00FFFFFF) ^ 0x00800000) - 0x00800000) << 2


def _imm16(old: int, value: int) -> int:
    """MOVW, MOVT: bits 15:12 of the value at 16, the others at 0."""
    return old & 0xFFF0F000 | (value & 0xF000) << 4 | value & 0xFFF


def _high_16(old: int, value: int) -> int:
    return _imm16(old, value >> 16)


def _stored_16(word: int) -> int:
    return (((word >> 4 & 0xF000) | word & 0xFFF) ^ 0x8000) - 0x8000


_S26: Final = (-_REACH, _REACH)

ARMV7: Final = Target(
    name="armv7",
    triple="armv7-unknown-linux-gnueabihf",
    machine=40,
    byte_order="little",
    word=4,
    tools="arm-linux-gnueabihf",
    cpu="cortex-a15",
    features="+hwdiv-arm,+read-tp-tpidruro",
    abi="",
    disassembly=("CS_ARCH_ARM", "CS_MODE_ARM"),
    patching=Patching(
        length=4,
        unit=4,
        unit_offset=0,
        region=0,
        nop=_nop,
        jump=_jump,
        fill=_fill,
        near_low=-_REACH + _AHEAD,
        near_high=_REACH + _AHEAD,
        entry=_NOP,
        # mov r0, n; mov r1, 0; bx lr
        canary=(bytes.fromhex("0100a0e30010a0e31eff2fe1"), bytes.fromhex("0200a0e30010a0e31eff2fe1")),
        needs_cache_flush=True,
        sleds=uniform_sleds(_NOP, _REACH),
    ),
    flags=flag_words("little"),
    veneer=Veneer(bytes.fromhex("00f09fe5f000f0e7"), literal=8),
    poison=bytes.fromhex("f000f0e7"),  # udf 0
    calling=Calling(
        ("r0", "r1", "r2", "r3"),
        "r0",
        "sp",
        "lr",
        0,
        bytes.fromhex("1eff2fe1"),
        2,
        result_high="r1",
        aligns_pairs=True,
    ),
    emulation=Emulation(
        "ARM",
        "ARM",
        "ARM",
        ("c13_c0_3",),
        32,
        (("c1_c0_2", 0xF << 20), ("fpexc", 1 << 30)),  # floating point on
    ),
    numbers={
        2: "R_ARM_ABS32",
        3: "R_ARM_REL32",
        28: "R_ARM_CALL",
        29: "R_ARM_JUMP24",
        45: "R_ARM_MOVW_PREL_NC",
        46: "R_ARM_MOVT_PREL",
        96: "R_ARM_GOT_PREL",
    },
    relocations={
        "R_ARM_ABS32": RelocationType(Base.ABSOLUTE, 4, *ANY_32, put_32, addend=stored_32),
        "R_ARM_REL32": RelocationType(Base.RELATIVE, 4, *ANY_32, put_32, addend=stored_32),
        "R_ARM_CALL": RelocationType(Base.BRANCH, 4, *_S26, _imm24, addend=_stored_24),
        "R_ARM_JUMP24": RelocationType(Base.BRANCH, 4, *_S26, _imm24, addend=_stored_24),
        "R_ARM_MOVW_PREL_NC": RelocationType(Base.RELATIVE, 4, *ANY_32, _imm16, addend=_stored_16),
        "R_ARM_MOVT_PREL": RelocationType(Base.RELATIVE, 4, *ANY_32, _high_16, addend=_stored_16),
        "R_ARM_GOT_PREL": RelocationType(Base.GOT, 4, *ANY_32, put_32, addend=stored_32),
    },
)
