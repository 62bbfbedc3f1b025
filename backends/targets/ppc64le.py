"""ppc64le: encodings from the Power ISA 3.0B, book I; relocations and the two entries of a function from the 64-Bit
ELF V2 ABI, sections 3.5.3 and 3.4.1.

Data is reached through r2, the table's base (.TOC.). A function has two entries: the global one computes r2 from its
own address in r12, the local one, behind it, takes r2 as it is. Calls inside an image go to the local entry; calls of
others go through a veneer, which saves r2 and sets r12, and the NOP behind the call restores r2:

    bl f        in the image:  bl f's local entry       else:  bl veneer           veneer:  std r2, 24(r1)
    nop                        nop                             ld r2, 24(r1)                ... r12 = literal; bctr

Callers in the image rely on r2 after the call, so the veneer of an entry site calls, and restores it; arguments in memory
would not survive that, but functions of programs have six at most. The body stands behind the local entry, so others
come to it by a stub that computes r2.
"""

from __future__ import annotations

from typing import Final

from backends.target import (
    ANY_64,
    SIGNED_32,
    Base,
    Calling,
    Hooking,
    Pairs,
    Patching,
    RelocationType,
    Target,
    UserMode,
    Veneer,
    put_32,
    put_64,
    uniform_sleds,
)

# Both find constants late, and fold `li r, -17; xori r, r, 0xb890` as if the second number were negative too (LLVM 16 to 22).
_LLVM_OPTIONS: Final = ("-ppc-convert-rr-to-ri=false", "-ppc-late-peephole=false")
_NOP: Final = (0x60000000).to_bytes(4, "little")
_RESTORE: Final = (0xE8410018).to_bytes(4, "little")  # ld r2, 24(r1)
_REACH: Final = 1 << 25
_VENEER: Final = (
    0xF8410018,  # std r2, 24(r1)
    0x7D6802A6,  # mflr r11
    0x429F0005,  # bcl 20, 31, .+4
    0x7D8802A6,  # mflr r12
    0xE98C0014,  # ld r12, 20(r12)
    0x7D8903A6,  # mtctr r12
    0x7D6803A6,  # mtlr r11
    0x4E800420,  # bctr
)
_HOOK_VENEER: Final = (
    0x7C0802A6,  # mflr r0
    0xF8010010,  # std r0, 16(r1)
    0xF821FFD1,  # stdu r1, -48(r1)
    0xF8410028,  # std r2, 40(r1)
    0x429F0005,  # bcl 20, 31, .+4
    0x7D8802A6,  # mflr r12
    0xE98C0024,  # ld r12, 36(r12)
    0x7D8903A6,  # mtctr r12
    0x4E800421,  # bctrl
    0xE8410028,  # ld r2, 40(r1)
    0x38210030,  # addi r1, r1, 48
    0xE8010010,  # ld r0, 16(r1)
    0x7C0803A6,  # mtlr r0
    0x4E800020,  # blr
)
_SYSCALL: Final = (
    0x7C601B78,  # mr r0, r3
    0x7C832378,  # mr r3, r4
    0x7CA42B78,  # mr r4, r5
    0x7CC53378,  # mr r5, r6
    0x7CE63B78,  # mr r6, r7
    0x7D074378,  # mr r7, r8
    0x7D284B78,  # mr r8, r9
    0x44000002,  # sc
    0x4C830020,  # bnslr
    0x7C6300D0,  # neg r3, r3
    0x4E800020,  # blr
)
_ENTER: Final = (
    0x7C0802A6,  # mflr r0
    0xF8010010,  # std r0, 16(r1)
    0xF82AFFC0,  # std r1, -64(r10)
    0x382AFFC0,  # addi r1, r10, -64
    0x2C2D0000,  # cmpdi r13, 0
    0x40820008,  # bne .+8
    0x7D4D5378,  # mr r13, r10: the thread pointer, any value that stays
    0x7C6C1B78,  # mr r12, r3
    0x7D8903A6,  # mtctr r12
    0x7C832378,  # mr r3, r4
    0x7CA42B78,  # mr r4, r5
    0x7CC53378,  # mr r5, r6
    0x7CE63B78,  # mr r6, r7
    0x7D074378,  # mr r7, r8
    0x7D284B78,  # mr r8, r9
    0xF8410018,  # std r2, 24(r1)
    0x4E800421,  # bctrl
    0xE8410018,  # ld r2, 24(r1)
    0xE8210000,  # ld r1, 0(r1)
    0xE8010010,  # ld r0, 16(r1)
    0x7C0803A6,  # mtlr r0
    0x4E800020,  # blr
)


def _words(*words: int) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in words)


def _nop(_: int) -> bytes:
    return _NOP


def _jump(distance: int) -> bytes:
    return _imm24(0x48000000, distance).to_bytes(4, "little")


def _body(table: int, body: int) -> bytes:
    """addis r2, r12, table@ha; addi r2, r2, table@l; b body."""
    high, low = _high_adjusted(0, table), _low(0, table)
    return _words(0x3C4C0000 | high, 0x38420000 | low) + _jump(body - 8)


def _fill(length: int) -> bytes:
    return _NOP * (length // 4)


def _imm24(old: int, value: int) -> int:
    return old & ~0x03FFFFFC | value & 0x03FFFFFC


def _low(old: int, value: int) -> int:
    return value & 0xFFFF


def _low_words(old: int, value: int) -> int:
    """DS-form: the low two bits are part of the opcode."""
    return old & 3 | value & 0xFFFC


def _high_adjusted(old: int, value: int) -> int:
    return value + 0x8000 >> 16 & 0xFFFF


_S16: Final = (-(2**15), 2**15)
_HA: Final = (-(2**31) - 2**15, 2**31 - 2**15)

PPC64LE: Final = Target(
    name="ppc64le",
    triple="powerpc64le-unknown-linux-gnu",
    machine=21,
    byte_order="little",
    cpu="ppc64le",
    features="",
    abi="elfv2",
    disassembly=("CS_ARCH_PPC", "CS_MODE_64"),
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
        canary=(bytes.fromhex("010060382000804e"), bytes.fromhex("020060382000804e")),  # li r3, n; blr
        needs_cache_flush=True,
        sleds=uniform_sleds(_NOP, _REACH),
    ),
    veneer=Veneer(
        _words(*_VENEER),
        literal=32,
        sets_up=True,
        restore=(_NOP, _RESTORE),
    ),
    poison=bytes.fromhex("0800e07f"),  # trap
    table_base=".TOC.",
    hooking=Hooking(Veneer(_words(*_HOOK_VENEER), literal=56), 12, _body),
    calling=Calling(
        tuple(f"r{i}" for i in range(3, 11)),
        "r3",
        "r1",
        "lr",
        32,
        bytes.fromhex("2000804e"),
        pairs=Pairs.WORDS,
    ),
    emulation=None,
    user_mode=UserMode("qemu-ppc64le", _words(*_SYSCALL), _words(*_ENTER), 3, 4, 90, 91, 286, 6, 1, flags=2),
    numbers={
        1: "R_PPC64_ADDR32",
        10: "R_PPC64_REL24",
        26: "R_PPC64_REL32",
        38: "R_PPC64_ADDR64",
        44: "R_PPC64_REL64",
        47: "R_PPC64_TOC16",
        48: "R_PPC64_TOC16_LO",
        50: "R_PPC64_TOC16_HA",
        63: "R_PPC64_TOC16_DS",
        64: "R_PPC64_TOC16_LO_DS",
        250: "R_PPC64_REL16_LO",
        252: "R_PPC64_REL16_HA",
    },
    llvm_options=_LLVM_OPTIONS,
    relocations={
        "R_PPC64_ADDR32": RelocationType(Base.ABSOLUTE, 4, -(2**31), 2**32, put_32),
        "R_PPC64_REL24": RelocationType(Base.BRANCH, 4, -_REACH, _REACH, _imm24),
        "R_PPC64_REL32": RelocationType(Base.RELATIVE, 4, *SIGNED_32, put_32),
        "R_PPC64_ADDR64": RelocationType(Base.ABSOLUTE, 8, *ANY_64, put_64),
        "R_PPC64_REL64": RelocationType(Base.RELATIVE, 8, *ANY_64, put_64),
        "R_PPC64_TOC16": RelocationType(Base.TABLE, 2, *_S16, _low),
        "R_PPC64_TOC16_LO": RelocationType(Base.TABLE, 2, *_HA, _low),
        "R_PPC64_TOC16_HA": RelocationType(Base.TABLE, 2, *_HA, _high_adjusted),
        "R_PPC64_TOC16_DS": RelocationType(Base.TABLE, 2, *_S16, _low_words),
        "R_PPC64_TOC16_LO_DS": RelocationType(Base.TABLE, 2, *_HA, _low_words),
        "R_PPC64_REL16_LO": RelocationType(Base.RELATIVE, 2, *_HA, _low),
        "R_PPC64_REL16_HA": RelocationType(Base.RELATIVE, 2, *_HA, _high_adjusted),
    },
)
