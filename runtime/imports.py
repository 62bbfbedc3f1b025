"""The pointers by which a loaded library calls functions of others: entries of its global offset table.

    libfoo: call crc32@plt ──► table entry of crc32 ──► libz: crc32        a hook changes the entry

Read from the library's own dynamic section in memory (System V gABI, chapter 5); x86-64 and others whose relocations
carry addends and whose entries are 64 bits.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from errno import ENOENT
from typing import Final

from ir.diagnostics import Diagnostic, RejectedError
from ir.function_model import UNKNOWN_MODEL, Model
from runtime.libraries import Library, library
from runtime.native_entry import NativeFunction, hook_at, is_hooked
from runtime.region import PAGE, READ, WRITE

_STRTAB, _SYMTAB, _RELA, _RELASZ, _PLTRELSZ, _JMPREL = 5, 6, 7, 8, 2, 23
_SYMBOL_SIZE: Final = 24


def imported(
    of: object, symbol: str, model: Model = UNKNOWN_MODEL, may_override: bool = False
) -> NativeFunction:
    """Function `symbol` as a loaded library calls it; `of` as for `runtime.libraries.library`.

    RejectedError (ENOENT) when no such library is loaded, or it does not import the function.
    """
    found = library(of)
    slots = import_slots(found, symbol)
    if not is_hooked(slots[0]):
        _bind(found, symbol, slots)
    return NativeFunction(symbol, model, hook_at(symbol, slots, None), may_override)


def import_slots(found: Library, symbol: str) -> tuple[int, ...]:
    """The addresses of a library's pointers to a function of another. RejectedError (ENOENT) when it has none."""
    slots = tuple(sorted(set(_slots(found, symbol))))
    if not slots:
        raise _missing(f"'{found.path.name}' does not import '{symbol}'")
    return slots


def imported_address(found: Library, symbol: str) -> int:
    """Where a library's calls of a function go, asked of the dynamic linker. RejectedError (ENOENT)."""
    try:
        address = ctypes.cast(getattr(found.stay(), symbol), ctypes.c_void_p).value
    except AttributeError as error:
        raise _missing(f"nothing that '{found.path.name}' can reach is called '{symbol}'") from error
    assert address, "the dynamic linker found it"
    return address


def _bind(found: Library, symbol: str, slots: tuple[int, ...]) -> None:
    """Make the pointers writable, and let those that wait for a first call (into the library's own stubs) be bound."""
    found.stay()
    for slot in slots:
        _make_writable(slot)
        # Safe because the entry belongs to a loaded library and is writable now. A lazily bound one would be
        # overwritten by the dynamic linker at the first call, so it is bound here.
        word = ctypes.c_uint64.from_address(slot)
        if found.contains(word.value) or not word.value:
            word.value = imported_address(found, symbol)


def _slots(found: Library, symbol: str) -> Iterator[int]:
    words = struct.iter_unpack("=QQ", found.dynamic)
    tags = dict(reversed([(tag, value) for tag, value in words if tag]))

    def place(tag: int) -> int:
        """glibc relocates these pointers in memory, others do not."""
        value: int = tags.get(tag, 0)
        return value if value >= found.base else value + found.base

    wanted = symbol.encode()
    for table, length in ((_JMPREL, _PLTRELSZ), (_RELA, _RELASZ)):
        relocations = _read(place(table), tags.get(length, 0)) if table in tags else b""
        for offset, info, _ in struct.iter_unpack("=QQq", relocations):
            if info >> 32:
                (name,) = struct.unpack("=I", _read(place(_SYMTAB) + (info >> 32) * _SYMBOL_SIZE, 4))
                # Safe because symbol names of a loaded library are NUL-ended strings in its memory.
                if ctypes.string_at(place(_STRTAB) + name) == wanted:
                    yield found.base + offset


def _read(address: int, size: int) -> bytes:
    # Safe because the addresses come from the headers of a library that the dynamic linker has mapped.
    return ctypes.string_at(address, size)


def _make_writable(slot: int) -> None:
    """The dynamic linker may have made the table read-only after binding (RELRO)."""
    # Safe because the page holds data of a library, and writing was allowed while it was loaded.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if libc.mprotect(slot // PAGE * PAGE, PAGE, READ | WRITE):
        raise RejectedError(
            [Diagnostic("read-only-table", "the table can't be made writable", errno=ctypes.get_errno())]
        )


def _missing(message: str) -> RejectedError:
    return RejectedError([Diagnostic("no-such-import", message, errno=ENOENT)])
