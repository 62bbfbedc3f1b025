"""x86-64: encodings from the Intel SDM volume 2, relocations from the System V psABI, tables 4.9 and B.1.

A static branch is a 5-byte NOP or jump inside one aligned 8-byte word. LLVM leaves 9 bytes, in which one
always fits:

    region mod 8 = 6     | 6 7 | 0 1 2 3 4 | 5 6 |
                          fill   the site   fill
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from backends.target import (
    SIGNED_32,
    Base,
    Calling,
    Emulation,
    Pairs,
    Patching,
    Relaxation,
    RelocationType,
    Sleds,
    Target,
    Veneer,
    put_32,
    put_64,
)

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
_ALONE: Final = (0x90, 0xF8, 0xF9, 0xFC, 0xF5)  # nop, clc, stc, cld, cmc
_FWAIT: Final = 0x9B
_PREFIXES: Final = (0x26, 0x2E, 0x36, 0x3E)  # segments, which mean nothing here
_REX: Final = (0x40, 0x42, 0x44, 0x46, 0x48, 0x4A, 0x4C, 0x4E)  # without the bit that makes 90 an xchg
_RIP_RELATIVE: Final = 0x05  # ModRM: mod 00, r/m 101, register field clear


def _jump(distance: int) -> bytes:
    return b"\xe9" + _displacement(distance - 5)


def _nop(_: int) -> bytes:
    return _NOP


def _nop_lengths(code: bytes) -> tuple[int, ...]:
    """The NOPs that code starts with: 90 and 0f 1f /0 of any length, with prefixes (SDM volume 2, NOP)."""
    lengths: list[int] = []
    start = 0
    while True:
        at = start
        while code[at : at + 1] in (b"\x66", b"\x2e"):
            at += 1
        if code[at : at + 1] == b"\x90":
            end = at + 1
        elif code[at : at + 2] == b"\x0f\x1f" and len(code) > at + 2:
            mode, base = code[at + 2] >> 6, code[at + 2] & 7
            end = at + 3 + (base == 4 and mode != 3) + (0, 1, 4, 0)[mode] + 4 * (mode == 0 and base == 5)
        else:
            return tuple(lengths)
        if end > len(code):
            return tuple(lengths)
        lengths.append(end - start)
        start = end


def _quiet_distances(address: int) -> Iterator[int]:
    """Jumps whose displacement is made of instructions that change nothing a function may rely on when it is entered.

        e9 9b 90 f8 26   jmp     entered behind the first byte: fwait; nop; clc; es

    The last byte chooses the direction: -64 to -176 MB, +640 to 1056 MB, or -1.9 GB.
    """
    for last in (*_ALONE[1:], *_PREFIXES, _ALONE[0]):
        for third in (*_ALONE, *_PREFIXES, *_REX):
            for second in (*_ALONE, *_PREFIXES, *_REX):
                for first in (*_ALONE, _FWAIT, *_PREFIXES, *_REX):
                    distance = 5 + int.from_bytes((first, second, third, last), "little", signed=True)
                    if (address + distance) % 8 == 0:
                        yield distance


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
        sleds=Sleds(_nop_lengths, _quiet_distances, (bytes.fromhex("f30f1efa"),)),  # endbr64
    ),
    veneer=Veneer(bytes.fromhex("ff2502000000cccc"), literal=8),
    poison=b"\xcc",
    calling=Calling(
        ("rdi", "rsi", "rdx", "rcx", "r8", "r9"), "rax", "rsp", "", 0, b"\xc3", 64, pairs=Pairs.TOGETHER
    ),
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
        "R_X86_64_64": RelocationType(Base.ABSOLUTE, 8, -(2**63), 2**64, put_64),
        "R_X86_64_PC32": RelocationType(Base.RELATIVE, 4, *SIGNED_32, put_32),
        "R_X86_64_PLT32": RelocationType(Base.BRANCH, 4, *SIGNED_32, put_32),
        "R_X86_64_GOTPCREL": RelocationType(Base.GOT, 4, *SIGNED_32, put_32),
        "R_X86_64_32": RelocationType(Base.ABSOLUTE, 4, 0, 2**32, put_32),
        "R_X86_64_32S": RelocationType(Base.ABSOLUTE, 4, *SIGNED_32, put_32),
        "R_X86_64_PC64": RelocationType(Base.RELATIVE, 8, -(2**63), 2**63, put_64),
        "R_X86_64_GOTPCRELX": RelocationType(Base.GOT, 4, *SIGNED_32, put_32, _RELAX),
        "R_X86_64_REX_GOTPCRELX": RelocationType(Base.GOT, 4, *SIGNED_32, put_32, _RELAX),
    },
)
