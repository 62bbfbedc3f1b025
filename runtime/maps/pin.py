"""Maps in files: a map that is pinned lives in its file from then on, and outlives the process.

    page 0     magic 8, version 4, page size 4, bytes of the block 8, type 4, key size 4, value size 4, entries 4,
               flags 4, cpus 4, extra 8, name 64, CRC-32 of all this 4
    from 4096  the block (ir/map_layout.py), as programs use it

Every process that opens the file shares the map: the block has offsets, not pointers, and its locks are in it.
The first to open it (advisory lock of the file) gives locks back that a dead process held, and empties the slots
that held addresses of programs or maps of another process.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import zlib
from dataclasses import dataclass, replace
from errno import EEXIST, EINVAL, EOPNOTSUPP
from pathlib import Path
from typing import Final, final

from ir import map_layout
from ir.diagnostics import Diagnostic, Location, UnreadableError
from ir.kinds import MapType
from ir.map_layout import MapLayout, layout_of
from ir.maps import HASHES, PAGE, RULES
from ir.object import Map
from runtime.maps.block import MapBlock, map_file
from runtime.maps.errors import map_error
from runtime.maps.host import Operations
from runtime.maps.live import LiveMap

MAGIC: Final = b"bpfcmap\0"
VERSION: Final = 1
_HEADER: Final = struct.Struct("=8sIIQIIIIIIQ64s")
_CHECKSUM: Final = struct.Struct("=I")
CHECKSUM_AT: Final = _HEADER.size
_HANDLES: Final = (MapType.PROG_ARRAY, MapType.ARRAY_OF_MAPS)


@final
@dataclass(frozen=True, slots=True)
class Pinned:
    """What the first page of a pin file says."""

    declared: Map
    cpus: int
    layout: MapLayout


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
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.ftruncate(descriptor, PAGE + size)
    os.pwrite(descriptor, _pack(declared, live.cpus, size), 0)
    live.block.move_to_file(descriptor, PAGE, live.layout.mirrored)


def open_pin(path: Path, host: Operations, wanted: Map | None = None) -> LiveMap:
    """The map that is pinned at `path`.

    Raises UnreadableError when it is no pin file or not whole, RejectedError (EINVAL) when it is another map than
    `wanted`; the file is left as it is.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(
            path, "cannot-read", error.strerror or "cannot be opened", error.errno or 0
        ) from None
    found = False
    try:
        pinned = _read(path, descriptor)
        if wanted is not None:
            _check_same(path, pinned.declared, wanted)
        address = map_file(descriptor, PAGE, pinned.layout.size, pinned.layout.mirrored)
        found = True
    finally:
        if not found:
            os.close(descriptor)
    block = MapBlock(address, pinned.layout.size, None, descriptor)
    _recover(block, pinned, descriptor)
    declared = pinned.declared if wanted is None else replace(wanted, initial=None)
    live = LiveMap(declared, block, host, pinned.cpus)
    live.is_frozen = bool(block.view[map_layout.FROZEN])
    return live


def read_pin(path: Path) -> Pinned:
    """What a pin file holds, without opening the map."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read(path, descriptor)
    finally:
        os.close(descriptor)


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
    layout = layout_of(declared, cpus)
    length = os.fstat(descriptor).st_size
    if size != layout.size - layout.mirrored or length != PAGE + size:
        raise _unreadable(path, "truncated-pin-file", f"has {length} bytes, its map needs {PAGE + size}")
    block = os.pread(descriptor, map_layout.SEED, PAGE)
    if block != map_layout.pack_header(declared, layout, cpus, 0, "=")[: map_layout.SEED]:
        raise _unreadable(path, "damaged-pin-file", "has a block that does not fit its header")
    return Pinned(declared, cpus, layout)


def _check_same(path: Path, found: Map, wanted: Map) -> None:
    for field in ("type", "key_size", "value_size", "max_entries", "flags", "extra"):
        have, want = getattr(found, field), getattr(wanted, field)
        if have != want:
            raise map_error(
                wanted, EINVAL, f"is unlike the one pinned at '{path}': {field} {want}, there {have}"
            )


def _recover(block: MapBlock, pinned: Pinned, descriptor: int) -> None:
    """Clean up after a process that died, unless others have the map open; then share it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return
    view = block.view
    view[map_layout.LOCK : map_layout.LOCK + 4] = bytes(4)
    if pinned.declared.type in HASHES:
        buckets = view[map_layout.DATA : map_layout.DATA + 4 * (pinned.layout.bucket_mask + 1)].cast("I")
        for number, word in enumerate(buckets):
            if word & map_layout.BUCKET_LOCKED:
                buckets[number] = word & ~map_layout.BUCKET_LOCKED
        buckets.release()
    if pinned.declared.type in _HANDLES:
        view[map_layout.DATA : pinned.layout.size] = bytes(pinned.layout.size - map_layout.DATA)
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def _unreadable(path: Path, code: str, message: str, errno: int = EINVAL) -> UnreadableError:
    return UnreadableError([Diagnostic(code, message, Location(file=str(path)), errno=errno)])
