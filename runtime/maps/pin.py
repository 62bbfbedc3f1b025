"""Maps in files: a map that is pinned lives in its file from then on, and outlives the process.

    page 0     magic 8, version 4, page size 4, bytes of the block 8, type 4, key size 4, value size 4, entries 4,
               flags 4, cpus 4, extra 8, name 64, CRC-32 of all this 4
    from 4096  the block (ir/map_layout.py), as programs use it

Every process that opens the file shares the map: the block has offsets, not pointers, and its locks are in it.
The first to open it (advisory lock of the file; one at a time asks for it, by that of the folder) checks the whole block and
gives back what a dead process held (runtime/maps/body). Maps of programs or of maps hold addresses: one process has them open
at a time, and they start empty.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from errno import EBUSY, EEXIST, EINVAL, EOPNOTSUPP
from pathlib import Path
from typing import Final, final

from ir import map_layout
from ir.diagnostics import Diagnostic, Location, UnreadableError
from ir.kinds import MapType
from ir.map_layout import MapLayout, layout_of
from ir.maps import PAGE, RULES, check_map, needs_cpus
from ir.object import Map
from runtime.maps.block import MapBlock, map_file
from runtime.maps.body import PRIVATE, open_body
from runtime.maps.errors import map_error
from runtime.maps.host import Operations
from runtime.maps.live import LiveMap

MAGIC: Final = b"bpfcmap\0"
VERSION: Final = 1
_HEADER: Final = struct.Struct("=8sIIQIIIIIIQ64s")
_CHECKSUM: Final = struct.Struct("=I")
CHECKSUM_AT: Final = _HEADER.size
_SPECIAL: Final = struct.Struct(f"={2 * map_layout.SPECIAL_MOST}I")


@final
@dataclass(frozen=True, slots=True)
class Pinned:
    """What the first page of a pin file says."""

    declared: Map
    cpus: int
    layout: MapLayout
    special: bytes  # where values have what is no data, as in the block


def pin(live: LiveMap, path: Path) -> None:
    """Move a map into the new file `path`; programs go on with it. RejectedError with EEXIST when the file exists."""
    declared = live.declared
    if live.host.order != sys.byteorder:
        raise map_error(declared, EOPNOTSUPP, "belongs to an emulated machine of another byte order")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise map_error(declared, EEXIST, f"can't be pinned: '{path}' exists") from None
    except OSError as error:
        raise map_error(
            declared, error.errno or EINVAL, f"can't be pinned to '{path}': {error.strerror}"
        ) from None
    size = live.layout.size - live.layout.mirrored
    fcntl.flock(descriptor, fcntl.LOCK_EX if declared.type in PRIVATE else fcntl.LOCK_SH)
    os.ftruncate(descriptor, PAGE + size)
    os.pwrite(descriptor, _pack(declared, live.cpus, size), 0)
    live.block.move_to_file(descriptor, PAGE, live.layout.mirrored)


def open_pin(path: Path, host: Operations, wanted: Map | None = None, cpus: int = 1) -> LiveMap:
    """The map that is pinned at `path`, for programs that see `cpus` cpus.

    Raises UnreadableError when it is no pin file or not whole, RejectedError when it is another map than `wanted` or has
    fewer cpus (EINVAL), or when another process has programs or maps in it (EBUSY); the file is left as it is.
    """
    descriptor = _open(path, os.O_RDWR)
    live: LiveMap | None = None
    is_right = False
    try:
        pinned = _read(path, descriptor)
        if wanted is not None:
            _check_same(path, pinned, wanted, cpus)
        address = map_file(descriptor, PAGE, pinned.layout.size, pinned.layout.mirrored)
        declared = pinned.declared if wanted is None else replace(wanted, initial=None)
        live = LiveMap(declared, MapBlock(address, pinned.layout.size, None, descriptor), host, pinned.cpus)
        with _alone_in_folder(path):
            _enter(path, live, descriptor)
        live.is_frozen = bool(live.block.view[map_layout.FROZEN])
        is_right = True
    finally:
        if live is None:
            os.close(descriptor)
        elif not is_right:
            live.close()
    return live


def read_pin(path: Path) -> Pinned:
    """What a pin file holds, without opening the map."""
    descriptor = _open(path, os.O_RDONLY)
    try:
        return _read(path, descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path, access: int) -> int:
    descriptor = _descriptor(path, access | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _unreadable(path, "not-a-pin-file", "is no file")
    return descriptor


def _descriptor(path: Path, access: int) -> int:
    try:
        return os.open(path, access | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(
            path, "cannot-read", error.strerror or "cannot be opened", error.errno or 0
        ) from None


def _pack(declared: Map, cpus: int, size: int) -> bytes:
    sizes = (declared.type, declared.key_size, declared.value_size, declared.max_entries, declared.flags)
    name = declared.name.encode()[:63]
    header = _HEADER.pack(MAGIC, VERSION, PAGE, size, *sizes, cpus, declared.extra, name)
    return header + _CHECKSUM.pack(zlib.crc32(header))


def _read(path: Path, descriptor: int) -> Pinned:
    data = os.pread(descriptor, _HEADER.size + _CHECKSUM.size, 0)
    if not data.startswith(MAGIC):
        raise _unreadable(
            path, "not-a-pin-file", f"is no pinned map (it starts with {data[:8].hex(' ') or 'nothing'})"
        )
    if len(data) < _HEADER.size + _CHECKSUM.size:
        raise _unreadable(path, "truncated-pin-file", f"ends after {len(data)} bytes of its header")
    header = data[: _HEADER.size]
    fields = _HEADER.unpack(header)
    if zlib.crc32(header) != _CHECKSUM.unpack(data[_HEADER.size :])[0]:
        raise _unreadable(path, "damaged-pin-file", "has a damaged header, or one of another byte order")
    _, version, page, size, type, key, value, entries, flags, cpus, extra, name = fields
    if version != VERSION or page != PAGE:
        raise _unreadable(path, "pin-file-version", f"has version {version}, this is version {VERSION}")
    if type not in RULES:
        raise _unreadable(path, "damaged-pin-file", f"holds a map of unknown type {type}")
    said = name.rstrip(b"\0").decode(errors="replace")
    declared = Map(said, MapType(type), key, value, entries, flags, extra=extra)
    if (problem := check_map(replace(declared, inner=declared))) is not None:
        raise _unreadable(path, "damaged-pin-file", f"has a header that no map has: {problem.message}")
    layout = layout_of(declared, cpus)
    length = os.fstat(descriptor).st_size
    if size != layout.size - layout.mirrored or length != PAGE + size:
        raise _unreadable(path, "truncated-pin-file", f"has {length} bytes, its map needs {PAGE + size}")
    _check_block_header(path, os.pread(descriptor, map_layout.DATA, PAGE), declared, layout, cpus)
    return Pinned(declared, cpus, layout, _special(descriptor))


def _check_block_header(path: Path, block: bytes, declared: Map, layout: MapLayout, cpus: int) -> None:
    """Everything that never changes in the header of a block, but for its seed, which may be anything."""
    (seed,) = struct.unpack_from("=Q", block, map_layout.SEED)
    known = map_layout.pack_header(declared, layout, cpus, seed, "=")[: map_layout.FROZEN]
    fields = _SPECIAL.unpack_from(block, map_layout.SPECIAL)
    if (
        not block.startswith(known)
        or block[map_layout.FROZEN] > 1
        or not all(
            map(_is_field, fields[::2], fields[1::2], [map_layout.value_bytes(declared)] * len(fields))
        )
    ):
        raise _unreadable(path, "damaged-pin-file", "has a block that does not fit its header")


def _is_field(offset: int, size: int, value_size: int) -> bool:
    """Whether these are bytes of a value that are no data; a lock is a word."""
    length = size & (map_layout.SPECIAL_LOCK - 1)
    is_lock = size != length
    return offset + length <= value_size and (not is_lock or (length == 4 and offset % 4 == 0))


def _special(descriptor: int) -> bytes:
    return os.pread(descriptor, _SPECIAL.size, PAGE + map_layout.SPECIAL)


def _check_same(path: Path, pinned: Pinned, wanted: Map, cpus: int) -> None:
    for field in ("type", "key_size", "value_size", "max_entries", "flags", "extra"):
        have, want = getattr(pinned.declared, field), getattr(wanted, field)
        if have != want:
            raise map_error(
                wanted, EINVAL, f"is unlike the one pinned at '{path}': {field} {want}, there {have}"
            )
    if pinned.special != map_layout.pack_special(wanted, "=").ljust(_SPECIAL.size, b"\0"):
        raise map_error(
            wanted, EINVAL, f"is unlike the one pinned at '{path}': locks or pointers are elsewhere in values"
        )
    if needs_cpus(wanted.type) and pinned.cpus < cpus:
        raise map_error(
            wanted, EINVAL, f"is unlike the one pinned at '{path}': {cpus} cpus, there {pinned.cpus}"
        )


@contextmanager
def _alone_in_folder(path: Path) -> Iterator[None]:
    """Let nobody else ask for a pin of the folder: who waits for a file to be checked would not know that it was refused."""
    folder = _descriptor(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)  # for a child that was forked has the descriptor, too
        os.close(folder)


def _enter(path: Path, live: LiveMap, descriptor: int) -> None:
    """Join those who have the map open, or be the first, who checks it and cleans up after a process that died."""
    is_private = live.declared.type in PRIVATE
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if is_private:
            said = f"is in use: what it holds at '{path}' are addresses in another process"
            raise map_error(live.declared, EBUSY, said) from None
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return
    lock = fcntl.LOCK_UN
    try:
        if damage := open_body(live):
            raise _unreadable(path, "damaged-pin-file", damage)
        lock = fcntl.LOCK_EX if is_private else fcntl.LOCK_SH
    finally:
        fcntl.flock(descriptor, lock)


def _unreadable(path: Path, code: str, message: str, errno: int = EINVAL) -> UnreadableError:
    return UnreadableError([Diagnostic(code, message, Location(file=str(path)), errno=errno)])
