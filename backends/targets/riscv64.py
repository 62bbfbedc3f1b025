"""RV64GC without compressed code: encodings from the unprivileged ISA manual, chapter 2; relocations from the RISC-V
ELF psABI, section 8.4.

Compressed code is left out so that every patch site is 4-byte aligned. A high part is rounded, because the low part
that a later insn adds is signed:

    hi:  auipc a0, (value + 0x800) >> 12        GOT_HI20, PCREL_HI20, first half of CALL_PLT
         ld    a0, value & 0xfff (a0)           PCREL_LO12_I: its symbol is `hi`, its value that of the relocation there
"""

from __future__ import annotations

from typing import Final

from backends.target import (
    ANY_64,
    Base,
    Calling,
    Emulation,
    FarBranch,
    Pairs,
    Patching,
    RelocationType,
    Target,
    Veneer,
    put_32,
    put_64,
    uniform_sleds,
)

_NOP: Final = (0x00000013).to_bytes(4, "little")
_NEAR: Final = 1 << 20


def _nop(_: int) -> bytes:
    return _NOP


def _jump(distance: int) -> bytes:
    return _jal(0x6F, distance).to_bytes(4, "little")


def _fill(length: int) -> bytes:
    return _NOP * (length // 4)


def _add_word(old: int, value: int) -> int:
    return old + value & 0xFFFFFFFF


def _subtract_word(old: int, value: int) -> int:
    return old - value & 0xFFFFFFFF


def _jal(old: int, value: int) -> int:
    """J-type: bits 20, 10:1, 11, 19:12 of the distance from bit 31 down to 12."""
    fields = value >> 20 & 1, value >> 1 & 0x3FF, value >> 11 & 1, value >> 12 & 0xFF
    return old & 0xFFF | fields[0] << 31 | fields[1] << 21 | fields[2] << 20 | fields[3] << 12


def _branch(old: int, value: int) -> int:
    """B-type: bits 12, 10:5 of the distance at 31 and 25, bits 4:1, 11 at 8 and 7."""
    high = (value >> 12 & 1) << 31 | (value >> 5 & 0x3F) << 25
    return old & 0x01FFF07F | high | (value >> 1 & 0xF) << 8 | (value >> 11 & 1) << 7


def _high_20(old: int, value: int) -> int:
    return old & 0xFFF | (value + 0x800 & 0xFFFFF000)


def _low_load(old: int, value: int) -> int:
    return old & 0xFFFFF | (value & 0xFFF) << 20


def _low_store(old: int, value: int) -> int:
    return old & 0x01FFF07F | (value >> 5 & 0x7F) << 25 | (value & 0x1F) << 7


def _far_prefix(distance: int) -> bytes:
    """auipc t6, of the instruction before a site."""
    return _high_20(0x17 | 31 << 7, distance + 4).to_bytes(4, "little")


def _far_jump(distance: int) -> bytes:
    """jr low(t6), behind it."""
    return _low_load(0x67 | 31 << 15, distance + 4).to_bytes(4, "little")


def _call(old: int, value: int) -> int:
    """AUIPC and the JALR behind it, as one 8-byte word."""
    return _high_20(old & 0xFFFFFFFF, value) | _low_load(old >> 32, value) << 32


_PAIR: Final = (-(2**31) - 2**11, 2**31 - 2**11)

RISCV64: Final = Target(
    name="riscv64",
    triple="riscv64-unknown-linux-gnu",
    machine=243,
    byte_order="little",
    cpu="generic-rv64",
    features="+m,+a,+f,+d,+reserve-x31",  # t6 is for far static branches
    abi="lp64d",
    disassembly=("CS_ARCH_RISCV", "CS_MODE_RISCV64"),
    patching=Patching(
        length=4,
        unit=4,
        unit_offset=0,
        region=4,
        nop=_nop,
        jump=_jump,
        fill=_fill,
        near_low=-_NEAR,
        near_high=_NEAR,
        entry=_NOP,
        canary=(bytes.fromhex("1305100067800000"), bytes.fromhex("1305200067800000")),  # li a0, n; ret
        needs_cache_flush=True,
        sleds=uniform_sleds(_NOP, _NEAR),
        far=FarBranch(8, _far_prefix, _far_jump, _PAIR[0] - 4, _PAIR[1] - 4),
    ),
    veneer=Veneer(bytes.fromhex("17030000033303016700030013000000"), literal=16),  # auipc, ld, jr t1; nop
    poison=bytes.fromhex("73001000"),  # ebreak
    calling=Calling(
        tuple(f"a{i}" for i in range(8)), "a0", "sp", "ra", 0, bytes.fromhex("67800000"), 8, Pairs.WORDS
    ),
    emulation=Emulation("RISCV", "RISCV64", "RISCV", ("tp",)),
    numbers={
        1: "R_RISCV_32",
        2: "R_RISCV_64",
        16: "R_RISCV_BRANCH",
        17: "R_RISCV_JAL",
        19: "R_RISCV_CALL_PLT",
        20: "R_RISCV_GOT_HI20",
        23: "R_RISCV_PCREL_HI20",
        24: "R_RISCV_PCREL_LO12_I",
        25: "R_RISCV_PCREL_LO12_S",
        35: "R_RISCV_ADD32",
        39: "R_RISCV_SUB32",
        51: "R_RISCV_RELAX",
        57: "R_RISCV_32_PCREL",
    },
    relocations={
        "R_RISCV_32": RelocationType(Base.ABSOLUTE, 4, -(2**31), 2**32, put_32),
        "R_RISCV_64": RelocationType(Base.ABSOLUTE, 8, *ANY_64, put_64),
        "R_RISCV_BRANCH": RelocationType(Base.RELATIVE, 4, -4096, 4096, _branch),
        "R_RISCV_JAL": RelocationType(Base.BRANCH, 4, -_NEAR, _NEAR, _jal),
        "R_RISCV_CALL_PLT": RelocationType(Base.BRANCH, 8, *_PAIR, _call),
        "R_RISCV_GOT_HI20": RelocationType(Base.GOT, 4, *_PAIR, _high_20),
        "R_RISCV_PCREL_HI20": RelocationType(Base.RELATIVE, 4, *_PAIR, _high_20),
        "R_RISCV_PCREL_LO12_I": RelocationType(Base.PAIRED, 4, *_PAIR, _low_load),
        "R_RISCV_PCREL_LO12_S": RelocationType(Base.PAIRED, 4, *_PAIR, _low_store),
        "R_RISCV_ADD32": RelocationType(Base.ADD, 4, *ANY_64, _add_word),
        "R_RISCV_SUB32": RelocationType(Base.SUBTRACT, 4, *ANY_64, _subtract_word),
        "R_RISCV_RELAX": RelocationType(Base.HINT, 4, *ANY_64, put_32),
        "R_RISCV_32_PCREL": RelocationType(Base.RELATIVE, 4, -(2**31), 2**31, put_32),
    },
)
