"""IA-32: encodings from the Intel SDM volume 2, relocations from the i386 System V psABI, table A.1.

All arguments are on the stack, the result in edx:eax. Every near jump reaches the whole address space, so calls need no
veneers; entry slots have one, because a hook is changed by a store to its literal:

    call +0; pop ecx; jmp *[ecx + 11]; nop ...; literal       ecx is the caller's to lose

External data is reached through the global offset table, whose address each function finds by its own:

    call +0; pop ebx; add ebx, GOT - here      mov ecx, [ebx + s@GOT]; ...
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
)
from backends.targets.x86_64 import X86_64

_ENTRY: Final = X86_64.patching


I386: Final = Target(
    name="i386",
    triple="i686-unknown-linux-gnu",
    machine=3,
    byte_order="little",
    word=4,
    cpu="i686",
    features="",
    abi="",
    disassembly=("CS_ARCH_X86", "CS_MODE_32"),
    patching=Patching(
        length=5,
        unit=8,
        unit_offset=0,
        region=0,
        nop=_ENTRY.nop,
        jump=_ENTRY.jump,
        fill=_ENTRY.fill,
        near_low=-(2**31) + 5,
        near_high=2**31 + 5,
        entry=_ENTRY.entry,
        canary=(
            bytes.fromhex("b80100000031d2c3"),
            bytes.fromhex("b80200000031d2c3"),
        ),  # mov eax, n; xor edx, edx; ret
        needs_cache_flush=False,
        sleds=_ENTRY.sleds,
    ),
    flags=flag_words("little"),
    veneer=Veneer(bytes.fromhex("e80000000059ff610bcccccccccccccc"), literal=16),
    poison=b"\xcc",
    calling=Calling((), "eax", "esp", "", 0, b"\xc3", 64, result_high="edx"),
    emulation=Emulation("X86", "32", "X86", (), segment="gs"),
    numbers={
        1: "R_386_32",
        2: "R_386_PC32",
        3: "R_386_GOT32",
        4: "R_386_PLT32",
        9: "R_386_GOTOFF",
        10: "R_386_GOTPC",
        43: "R_386_GOT32X",
    },
    relocations={
        "R_386_32": RelocationType(Base.ABSOLUTE, 4, *ANY_32, put_32, addend=stored_32),
        "R_386_PC32": RelocationType(Base.RELATIVE, 4, *ANY_32, put_32, addend=stored_32),
        "R_386_GOT32": RelocationType(Base.GOT_TABLE, 4, *ANY_32, put_32, addend=stored_32),
        "R_386_PLT32": RelocationType(Base.BRANCH, 4, *ANY_32, put_32, addend=stored_32),
        "R_386_GOTOFF": RelocationType(Base.TABLE, 4, *ANY_32, put_32, addend=stored_32),
        "R_386_GOTPC": RelocationType(Base.RELATIVE, 4, *ANY_32, put_32, addend=stored_32),
        "R_386_GOT32X": RelocationType(Base.GOT_TABLE, 4, *ANY_32, put_32, addend=stored_32),
    },
    table_base="_GLOBAL_OFFSET_TABLE_",
    can_hurry=False,  # cmpxchg8b wants four of six
)
