"""The pointers by which a loaded library calls functions of others: entries of its global offset table.

    libfoo: call crc32@plt ──► table entry of crc32 ──► libz: crc32        a hook changes the entry

Read from the library's own dynamic section in memory (System V gABI, chapter 5); x86-64 and others whose relocations
carry addends and whose entries are 64 bits.
"""

from __future__ import annotations

import ctypes
import struct
from errno import EINVAL, ENOENT
from pathlib import Path
from typing import Final

from ir.diagnostics import Diagnostic, RejectedError
from ir.function_model import UNKNOWN_MODEL, Model
from runtime.native_entry import NativeFunction
from runtime.region import PAGE, READ, WRITE

_DYNAMIC: Final = 2
_LOAD: Final = 1
_STRTAB, _SYMTAB, _RELA, _RELASZ, _PLTRELSZ, _JMPREL = 5, 6, 7, 8, 2, 23
_SYMBOL_SIZE: Final = 24


def imported(
    library: str, symbol: str, model: Model = UNKNOWN_MODEL, may_override: bool = False
) -> NativeFunction:
    """Function `symbol` as the loaded library whose file name begins with `library` calls it.

    RejectedError (ENOENT) when no such library is loaded, or it does not import the function.
    """
    base = _base(library)
    slot = _slot(base, symbol)
    if slot is None:
        raise _missing(f"'{library}' does not import '{symbol}'")
    target = ctypes.cast(getattr(ctypes.CDLL(None), symbol, None) or 0, ctypes.c_void_p).value
    if target is None:
        raise _missing(f"nothing that this process exports is called '{symbol}'")
    _make_writable(slot)
    # Safe because the entry belongs to a loaded library and is writable now. A lazily bound one would be overwritten
    # by the dynamic linker at the first call, so it is bound here.
    ctypes.c_uint64.from_address(slot).value = target
    return NativeFunction(symbol, slot, model, may_override, None)


def _base(library: str) -> int:
    """Where the first page of a library is mapped."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and Path(fields[5]).name.startswith(library) and int(fields[2], 16) == 0:
            return int(fields[0].split("-")[0], 16)
    raise _missing(f"no library '{library}' is loaded")


def _slot(base: int, symbol: str) -> int | None:
    """The address of the table entry for a symbol."""
    header = _read(base, 64)
    if header[:5] != b"\x7fELF\x02":
        raise RejectedError([Diagnostic("bad-library", "wanted a 64-bit ELF library", errno=EINVAL)])
    (programs,) = struct.unpack_from("=Q", header, 32)
    size, count = struct.unpack_from("=HH", header, 54)
    rows = [struct.unpack("=IIQQQQQQ", _read(base + programs + size * n, 56)) for n in range(count)]
    bias = base - min(row[3] for row in rows if row[0] == _LOAD) // PAGE * PAGE
    dynamic = next((row for row in rows if row[0] == _DYNAMIC), None)
    if dynamic is None:
        return None
    words = struct.iter_unpack("=QQ", _read(bias + dynamic[3], dynamic[6] // 16 * 16))
    found = dict(reversed([(tag, value) for tag, value in words if tag]))

    def place(tag: int) -> int:
        """glibc relocates these pointers in memory, others do not."""
        value: int = found.get(tag, 0)
        return value if value >= base else value + bias

    for table, length in ((_JMPREL, _PLTRELSZ), (_RELA, _RELASZ)):
        relocations = _read(place(table), found.get(length, 0)) if table in found else b""
        for offset, info, _ in struct.iter_unpack("=QQq", relocations):
            if info >> 32:
                (name,) = struct.unpack("=I", _read(place(_SYMTAB) + (info >> 32) * _SYMBOL_SIZE, 4))
                # Safe because symbol names of a loaded library are NUL-ended strings in its memory.
                if ctypes.string_at(place(_STRTAB) + name) == symbol.encode():
                    return int(bias + offset)
    return None


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
