"""x86-64: encodings from the Intel SDM volume 2, relocations from the System V psABI, tables 4.9 and B.1.

A static branch is a 5-byte NOP or jump inside one aligned 8-byte word. LLVM leaves 9 bytes, in which one
always fits:

    region mod 8 = 6     | 6 7 | 0 1 2 3 4 | 5 6 |
                          fill   the site   fill
"""

from __future__ import annotations

from typing import Final

from backends.target import Base, Calling, Emulation, Patching, Relaxation, RelocationType, Target, Veneer

_FILL: Final = (
    "",
    "90",
    "6690",
    "0f1f00",
    "0f1f4000",
    "0f1f440000",
    "660f1f440000",
    "0f1f8000000000",
    "0f1f840000000000",
    "660f1f840000000000",
)
_NOP: Final = bytes.fromhex(_FILL[5])
_RIP_RELATIVE: Final = 0x05  # ModRM: mod 00, r/m 101, register field clear


def _jump(distance: int) -> bytes:
    return b"\xe9" + _displacement(distance - 5)


def _nop(_: int) -> bytes:
    return _NOP


def _displacement(distance: int) -> bytes:
    return distance.to_bytes(4, "little", signed=True)


def _fill(length: int) -> bytes:
    longest = len(_FILL) - 1
    return bytes.fromhex(_FILL[longest] * (length // longest) + _FILL[length % longest])


def _direct_access(old: bytes, distance: int) -> bytes | None:
    """The form of a GOTPCREL(X) access that does not read the table; psABI B.2. `distance` is S + A - P.

    call *f@GOT(%rip)    ff 15 d32  ->  67 e8 d32    call f with a prefix without meaning: same length, same
    return address jmp  *f@GOT(%rip)    ff 25 d32  ->  67 e9 d32 mov  s@GOT(%rip), r  8b /r d32  ->  8d /r d32
    lea s(%rip), r
    """
    opcode, modrm = old[-6], old[-5]
    if (opcode, modrm) == (0xFF, 0x15):
        return old[:-6] + b"\x67\xe8" + _displacement(distance)
    if (opcode, modrm) == (0xFF, 0x25):
        return old[:-6] + b"\x67\xe9" + _displacement(distance)
    if opcode == 0x8B and modrm & 0xC7 == _RIP_RELATIVE:
        return old[:-6] + bytes([0x8D, modrm]) + _displacement(distance)
    return None


def _is_call(old: bytes) -> bool:
    return old[-6] == 0xFF and old[-5] in (0x15, 0x25)


def _low_32(_: int, value: int) -> int:
    return value & 0xFFFFFFFF


def _low_64(_: int, value: int) -> int:
    return value & 0xFFFFFFFFFFFFFFFF


_S32: Final = (-(2**31), 2**31)
_RELAX: Final = Relaxation(before=2, size=4, direct=_direct_access, is_call=_is_call)

X86_64: Final = Target(
    name="x86_64",
    triple="x86_64-unknown-linux-gnu",
    machine=62,
    byte_order="little",
    cpu="x86-64",
    features="",
    abi="",
    disassembly=("CS_ARCH_X86", "CS_MODE_64"),
    patching=Patching(
        length=5,
        unit=8,
        unit_offset=0,
        region=9,
        nop=_nop,
        jump=_jump,
        fill=_fill,
        near_low=-(2**31) + 5,
        near_high=2**31 + 5,
        entry=_NOP,
        canary=(bytes.fromhex("b801000000c3cccc"), bytes.fromhex("b802000000c3cccc")),  # mov eax, n; ret
        needs_cache_flush=False,
    ),
    veneer=Veneer(bytes.fromhex("ff2502000000cccc"), literal=8),
    poison=b"\xcc",
    calling=Calling(("rdi", "rsi", "rdx", "rcx", "r8", "r9"), "rax", "rsp", "", 0, b"\xc3", 64),
    emulation=Emulation("X86", "64", "X86", ("fs_base",)),
    numbers={
        1: "R_X86_64_64",
        2: "R_X86_64_PC32",
        4: "R_X86_64_PLT32",
        9: "R_X86_64_GOTPCREL",
        10: "R_X86_64_32",
        11: "R_X86_64_32S",
        24: "R_X86_64_PC64",
        41: "R_X86_64_GOTPCRELX",
        42: "R_X86_64_REX_GOTPCRELX",
    },
    relocations={
        "R_X86_64_64": RelocationType(Base.ABSOLUTE, 8, -(2**63), 2**64, _low_64),
        "R_X86_64_PC32": RelocationType(Base.RELATIVE, 4, *_S32, _low_32),
        "R_X86_64_PLT32": RelocationType(Base.BRANCH, 4, *_S32, _low_32),
        "R_X86_64_GOTPCREL": RelocationType(Base.GOT, 4, *_S32, _low_32),
        "R_X86_64_32": RelocationType(Base.ABSOLUTE, 4, 0, 2**32, _low_32),
        "R_X86_64_32S": RelocationType(Base.ABSOLUTE, 4, *_S32, _low_32),
        "R_X86_64_PC64": RelocationType(Base.RELATIVE, 8, -(2**63), 2**63, _low_64),
        "R_X86_64_GOTPCRELX": RelocationType(Base.GOT, 4, *_S32, _low_32, _RELAX),
        "R_X86_64_REX_GOTPCRELX": RelocationType(Base.GOT, 4, *_S32, _low_32, _RELAX),
    },
)
