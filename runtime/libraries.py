"""The libraries that are loaded in this process: where they are, their symbols, and where compilers left room for hooks.

    file        section headers, .symtab, .dynsym          addresses as linked
    memory      address in the file + base                 `base` is 0 for an executable at a fixed address

Read from the file that is mapped (System V gABI, chapters 4 and 5); section headers are not loaded.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from errno import EINVAL, ENOENT
from pathlib import Path
from typing import Final, final

from ir.diagnostics import Diagnostic, RejectedError
from runtime.region import PAGE

_HEADER: Final = struct.Struct("=16sHHIQQQIHHHHHH")
_PROGRAM: Final = struct.Struct("=IIQQQQQQ")
_SECTION: Final = struct.Struct("=IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("=IBBHQQ")
_LOAD, _DYNAMIC = 1, 2
_SYMTAB, _DYNSYM = 2, 11
_FUNCTION, _INDIRECT = 2, 10
_WORD: Final = 8
_LINK_MAP: Final = 2  # RTLD_DI_LINKMAP


@final
@dataclass(frozen=True, slots=True)
class NativeSymbol:
    """A function of a library: its address in memory and its size in bytes."""

    name: str
    address: int
    size: int
    is_indirect: bool


@final
class Library:
    """A loaded library, by the path of its file."""

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise _bad(path, f"can't be read: {error.strerror}") from error
        if self.data[:6] != b"\x7fELF\x02\x01" and self.data[:6] != b"\x7fELF\x02\x02":
            raise _bad(path, "is no 64-bit ELF file")
        try:
            self._read(start)
        except (struct.error, IndexError, ValueError) as error:
            raise _bad(path, "has broken headers") from error

    def stay(self) -> ctypes.CDLL:
        """Let the library never be unloaded: something in it was changed. It, opened again. RejectedError (ENOENT)."""
        name = None if self.is_program else str(self.path)
        try:
            # Safe because the library is loaded: this counts one more user, and runs nothing.
            return ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        except OSError as error:
            raise _missing(f"'{self.path}' is mapped, but was not loaded as a library") from error

    def function(self, name: str) -> NativeSymbol:
        """The function called `name`, exported or not. RejectedError (ENOENT, EINVAL)."""
        found = {symbol for symbol in self._functions() if symbol.name == name}
        if not found:
            raise _missing(f"'{self.path.name}' has no function '{name}'")
        if len({symbol.address for symbol in found}) > 1:
            said = f"'{self.path.name}' has {len(found)} functions '{name}'"
            raise RejectedError([Diagnostic("ambiguous-function", said, errno=EINVAL)])
        return found.pop()

    def words(self, section: str) -> tuple[int, ...]:
        """The 64-bit words of a loaded section, as the dynamic linker left them; none when there is no such section."""
        words: list[int] = []
        for _, address, size in (row for row in self._sections if row[0] == section):
            # Safe because a section with an address is mapped as long as its library is.
            data = ctypes.string_at(self.base + address, size) if address else b""
            words += [word for (word,) in struct.iter_unpack("=Q", data[: size // _WORD * _WORD])]
        return tuple(words)

    def contains(self, address: int) -> bool:
        """Whether an address is in a loaded segment."""
        return any(start <= address < end for start, end in self._ranges)

    @property
    def dynamic(self) -> bytes:
        """The dynamic section as it is in memory: whole pairs of words."""
        # Safe because the segment is loaded with the library; its size is cut to what whole pairs take.
        return b"".join(ctypes.string_at(start, size // 16 * 16) for start, size in self._dynamic[:1])

    @property
    def is_program(self) -> bool:
        """Whether it is the main program."""
        return self.path == Path("/proc/self/exe").resolve()

    def function_at(self, address: int) -> NativeSymbol | None:
        """The function that starts at an address."""
        return next((symbol for symbol in self._functions() if symbol.address == address), None)

    def _read(self, start: int) -> None:
        header = _HEADER.unpack_from(self.data)
        programs, sections = header[5], header[6]
        rows = [
            _PROGRAM.unpack_from(self.data, programs + header[9] * number) for number in range(header[10])
        ]
        loaded = [row for row in rows if row[0] == _LOAD]
        first = min(row[3] for row in loaded)
        self.base = start - first // PAGE * PAGE
        self._ranges = [(self.base + row[3], self.base + row[3] + row[6]) for row in loaded]
        self._dynamic = [(self.base + row[3], row[6]) for row in rows if row[0] == _DYNAMIC]
        table = [
            _SECTION.unpack_from(self.data, sections + header[11] * number) for number in range(header[12])
        ]
        names = table[header[13]] if table else None
        self._sections = [
            (self._text(names[4] + row[0]) if names is not None else "", row[3], row[5]) for row in table
        ]
        self._tables = [(row, table[row[6]]) for row in table if row[1] in (_SYMTAB, _DYNSYM)]

    def _functions(self) -> Iterator[NativeSymbol]:
        for table, strings in self._tables:
            content = self.data[table[4] : table[4] + table[5] // _SYMBOL.size * _SYMBOL.size]
            for name, info, _, section, value, size in _SYMBOL.iter_unpack(content):
                if info & 15 in (_FUNCTION, _INDIRECT) and section and value:
                    is_indirect = info & 15 == _INDIRECT
                    yield NativeSymbol(self._text(strings[4] + name), self.base + value, size, is_indirect)

    def _text(self, offset: int) -> str:
        return self.data[offset : self.data.index(b"\0", offset)].decode(errors="replace")


def library(name: object) -> Library:
    """The loaded library that a ctypes library object is, or whose path or file name is `name` or begins with it.

    RejectedError (ENOENT) when none is loaded.
    """
    found = dict(reversed([(path, start) for path, start in _mapped()]))
    wanted = _path_of(name) if isinstance(name, ctypes.CDLL) else Path(str(name))
    for matches in (
        [path for path in found if path == wanted.resolve()],
        [path for path in found if path.name == str(wanted)],
        [path for path in found if path.name.startswith(str(wanted))],
    ):
        if len(matches) > 1:
            said = f"'{wanted}' may be any of {', '.join(sorted(str(path) for path in matches))}"
            raise RejectedError([Diagnostic("ambiguous-library", said, errno=EINVAL)])
        if matches:
            return Library(matches[0], found[matches[0]])
    raise _missing(f"no library '{wanted}' is loaded; load it first, as with ctypes.CDLL")


class _LinkMap(ctypes.Structure):
    """The start of glibc's struct link_map (link.h)."""

    _fields_ = [("address", ctypes.c_void_p), ("name", ctypes.c_char_p)]  # as ctypes wants it


def _path_of(library: ctypes.CDLL) -> Path:
    """The file of an open library, as the dynamic linker knows it; of the main program when it has no name there."""
    dlinfo = ctypes.CDLL(None).dlinfo
    dlinfo.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    found = ctypes.POINTER(_LinkMap)()
    # Safe because the handle is open as long as its object lives, and the request fills one pointer.
    if dlinfo(library._handle, _LINK_MAP, ctypes.byref(found)):
        raise _missing(f"{library!r} is not open")
    name = found.contents.name
    return Path(os.fsdecode(name)) if name else Path("/proc/self/exe")


def library_at(address: int) -> Library | None:
    """The library that an address is in, None for memory of no file."""
    for path, start in _mapped(address):
        return Library(path, start)
    return None


def _mapped(around: int | None = None) -> Iterator[tuple[Path, int]]:
    """Files, and where their first bytes are mapped; only the one that has something mapped at `around`."""
    first: dict[str, int] = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or not fields[5].startswith("/"):
            continue
        start, end = (int(text, 16) for text in fields[0].split("-"))
        if int(fields[2], 16) == 0:
            first[fields[5]] = start
            if around is None:
                yield Path(fields[5]), start
        if around is not None and start <= around < end and fields[5] in first:
            yield Path(fields[5]), first[fields[5]]


def _missing(message: str) -> RejectedError:
    return RejectedError([Diagnostic("no-such-library", message, errno=ENOENT)])


def _bad(path: Path, why: str) -> RejectedError:
    return RejectedError([Diagnostic("bad-library", f"'{path}' {why}", errno=EINVAL)])
