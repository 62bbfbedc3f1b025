"""Names for gdb: symbol files of images, announced by the JIT interface of the debugger.

    __jit_debug_descriptor     version u32 | action u32 | relevant entry | first entry
    entry                      next | previous | symbol file | its size u64
    __jit_debug_register_code  a function in which gdb has a breakpoint: called after each change

gdb looks for these two names in libraries, so we write one, as small as a library can be, and load it when the first
image is announced. Source: gdb's manual, "JIT Compilation Interface".
"""

from __future__ import annotations

import ctypes
import os
import struct
import tempfile
import threading
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from backends.registry import host
from backends.target import Target

_PAGE: Final = 0x10000  # the largest that machines have
_NAMES: Final = ("__jit_debug_register_code", "__jit_debug_descriptor")
_NOTHING, _REGISTER, _UNREGISTER = 0, 1, 2
_DYNAMIC, _HASH, _LIBRARY_SYMBOLS = 6, 5, 11


class _Entry(ctypes.Structure):
    pass


_Entry._fields_ = [
    ("next", ctypes.POINTER(_Entry)),
    ("previous", ctypes.POINTER(_Entry)),
    ("file", ctypes.c_void_p),
    ("size", ctypes.c_uint64),
]


class _Descriptor(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_uint32),
        ("action", ctypes.c_uint32),
        ("relevant", ctypes.POINTER(_Entry)),
        ("first", ctypes.POINTER(_Entry)),
    ]


@final
class Announced:
    """A symbol file that gdb knows; to be closed before the code goes. A context manager."""

    def __init__(self, file: bytes) -> None:
        self._file = ctypes.create_string_buffer(file, len(file))
        self._entry = _Entry(None, None, ctypes.addressof(self._file), len(file))
        self._is_open = True
        _interface().add(self._entry)

    def close(self) -> None:
        """Let gdb forget it; twice is fine."""
        if self._is_open:
            self._is_open = False
            _interface().remove(self._entry)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@final
class _Interface:
    """The list of entries, and the function that tells gdb to look at it."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory(prefix="bpfc-") as folder:
            path = Path(folder) / "libbpfc-jit.so"
            path.write_bytes(library(host()))
            loaded = ctypes.CDLL(os.fspath(path))
        # Safe because the library is ours, stays loaded for ever, and has a descriptor and a function without arguments.
        self._descriptor = _Descriptor.in_dll(loaded, _NAMES[1])
        self._tell = getattr(loaded, _NAMES[0])
        self._tell.restype = None
        self._lock = threading.Lock()

    def add(self, entry: _Entry) -> None:
        with self._lock:
            entry.next = self._descriptor.first
            if entry.next:
                entry.next.contents.previous = ctypes.pointer(entry)
            self._descriptor.first = ctypes.pointer(entry)
            self._say(_REGISTER, entry)

    def remove(self, entry: _Entry) -> None:
        with self._lock:
            if entry.previous:
                entry.previous.contents.next = entry.next
            else:
                self._descriptor.first = entry.next
            if entry.next:
                entry.next.contents.previous = entry.previous
            self._say(_UNREGISTER, entry)

    def _say(self, action: int, entry: _Entry) -> None:
        self._descriptor.action = action
        self._descriptor.relevant = ctypes.pointer(entry)
        self._tell()
        self._descriptor.action = _NOTHING


@cache
def _interface() -> _Interface:
    return _Interface()


def library(target: Target) -> bytes:
    """A shared library for `target` with the two names.

    at 0      | ELF and program headers | .hash | .dynsym | .dynstr | .text |     read, execute
    at _PAGE  | .dynamic | .data |                                                read, write
    """
    order = "<" if target.byte_order == "little" else ">"
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in _NAMES)
    code, descriptor = target.calling.ret, struct.pack(order + "IIQQ", 1, 0, 0, 0)
    hashes = struct.pack(order + "6I", 1, 3, 1, 0, 2, 0)  # one bucket: symbol 1, then 2
    at_hash = 64 + 3 * 56
    at_symbols = at_hash + len(hashes)
    at_strings = at_symbols + 3 * 24
    at_code = -(-(at_strings + len(strings)) // 16) * 16
    end_code = at_code + len(code)
    tags = ((4, at_hash), (5, at_strings), (6, at_symbols), (10, len(strings)), (11, 24), (0, 0))
    dynamic = b"".join(struct.pack(order + "QQ", *tag) for tag in tags)
    at_data = _PAGE + len(dynamic)
    end = at_data + len(descriptor)
    symbols = bytes(24)
    for name, kind, section, value, size in (
        (_NAMES[0], 0x12, 4, at_code, len(code)),
        (_NAMES[1], 0x11, 6, at_data, len(descriptor)),
    ):
        symbols += struct.pack(order + "IBBHQQ", strings.index(name.encode()), kind, 0, section, value, size)
    segments = struct.pack(order + "IIQQQQQQ", 1, 5, 0, 0, 0, end_code, end_code, _PAGE)
    segments += struct.pack(order + "IIQQQQQQ", 1, 6, _PAGE, _PAGE, _PAGE, end - _PAGE, end - _PAGE, _PAGE)
    segments += struct.pack(order + "IIQQQQQQ", 2, 6, _PAGE, _PAGE, _PAGE, len(dynamic), len(dynamic), 8)
    names = b"\0.hash\0.dynsym\0.dynstr\0.text\0.dynamic\0.data\0.shstrtab\0"
    sections = (
        (".hash", _HASH, 2, at_hash, len(hashes), 2, 0, 4),
        (".dynsym", _LIBRARY_SYMBOLS, 2, at_symbols, len(symbols), 3, 1, 24),
        (".dynstr", 3, 2, at_strings, len(strings), 0, 0, 0),
        (".text", 1, 6, at_code, len(code), 0, 0, 0),
        (".dynamic", _DYNAMIC, 3, _PAGE, len(dynamic), 3, 0, 16),
        (".data", 1, 3, at_data, len(descriptor), 0, 0, 0),
        (".shstrtab", 3, 0, end, len(names), 0, 0, 0),
    )
    at_headers = -(-(end + len(names)) // 8) * 8
    headers = bytes(64)
    for name, kind, flags, place, size, link, info, entry in sections:
        where = names.index(b"\0" + name.encode() + b"\0") + 1
        address = place if flags else 0
        headers += struct.pack(
            order + "IIQQQQIIQQ", where, kind, flags, address, place, size, link, info, 8, entry
        )
    identity = b"\x7fELF\2" + (b"\1" if order == "<" else b"\2") + b"\1" + bytes(9)
    flags_of_machine = target.user_mode.flags if target.user_mode is not None else 0
    fields = (3, target.machine, 1, 0, 64, at_headers, flags_of_machine, 64, 56, 3, 64, 8, 7)
    image = bytearray(identity + struct.pack(order + "HHIQQQIHHHHHH", *fields) + segments)
    image += hashes + symbols + strings
    image = image.ljust(at_code, b"\0") + code
    image = image.ljust(_PAGE, b"\0") + dynamic + descriptor + names
    return bytes(image.ljust(at_headers, b"\0")) + headers
