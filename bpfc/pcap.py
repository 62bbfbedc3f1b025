"""Classic pcap files, read and written: packets with their time stamps (both byte orders, micro- and nanoseconds)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, final

from ir.diagnostics import Diagnostic, Location, UnreadableError

ETHERNET: Final = 1
_MICROSECONDS: Final = 0xA1B2C3D4
_NANOSECONDS: Final = 0xA1B23C4D
_LARGEST: Final = 1 << 24
_FILE_HEADER: Final = 24
_RECORD_HEADER: Final = 16


@final
@dataclass(frozen=True, slots=True)
class Packet:
    """A captured packet: its bytes, when (nanoseconds since 1970) and how long it was on the wire."""

    data: bytes
    time_ns: int = 0
    wire_length: int = 0

    def __bytes__(self) -> bytes:
        return self.data


def read_pcap(path: str | Path) -> Iterator[Packet]:
    """The packets of the pcap file at `path`, one by one. Raises UnreadableError where the file is not one."""
    name = str(path)
    with open(path, "rb") as file:
        order, scale = _read_file_header(file, name)
        record = struct.Struct(order + "IIII")
        offset = _FILE_HEADER
        while header := file.read(_RECORD_HEADER):
            if len(header) < _RECORD_HEADER:
                raise _unreadable("packet header is cut off", name, offset)
            seconds, fraction, length, wire_length = record.unpack(header)
            if length > _LARGEST:
                raise _unreadable(f"packet of {length} bytes, {_LARGEST} are the most", name, offset)
            data = file.read(length)
            if len(data) < length:
                raise _unreadable(f"packet of {length} bytes is cut off after {len(data)}", name, offset)
            offset += _RECORD_HEADER + length
            yield Packet(data, seconds * 1_000_000_000 + fraction * scale, wire_length)


def _read_file_header(file: IO[bytes], name: str) -> tuple[str, int]:
    header = file.read(_FILE_HEADER)
    if len(header) == _FILE_HEADER:
        for order in "<>":
            (magic,) = struct.unpack_from(order + "I", header)
            if magic in (_MICROSECONDS, _NANOSECONDS):
                return order, 1000 if magic == _MICROSECONDS else 1
        if header[:4] == b"\x0a\x0d\x0d\x0a":
            raise _unreadable("pcapng file; convert it with 'editcap -F pcap'", name, 0)
    raise _unreadable("not a pcap file", name, 0)


def _unreadable(message: str, name: str, offset: int) -> UnreadableError:
    return UnreadableError([Diagnostic("bad-pcap", message, Location(file=name, offset=offset))])


@final
class PcapWriter:
    """Writes packets to a pcap file; a context manager."""

    def __init__(self, path: str | Path, link_type: int = ETHERNET) -> None:
        self._file = open(path, "wb")  # noqa: SIM115  # closed by close()
        self._file.write(struct.pack("<IHHiIII", _NANOSECONDS, 2, 4, 0, 0, 1 << 18, link_type))

    def write(self, packet: Packet) -> None:
        """Append one packet."""
        seconds, fraction = divmod(packet.time_ns, 1_000_000_000)
        length = len(packet.data)
        self._file.write(struct.pack("<IIII", seconds, fraction, length, max(length, packet.wire_length)))
        self._file.write(packet.data)

    def close(self) -> None:
        """Finish the file; closing twice is fine."""
        self._file.close()

    def __enter__(self) -> PcapWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
