"""The kernel's printf for programs: bpf_trace_printk, bpf_snprintf, bpf_seq_printf (bpf_bprintf_prepare in
kernel/bpf/helpers.c).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from errno import EINVAL
from typing import Final

from ir.diagnostics import Diagnostic, RejectedError

_CONVERSION: Final = re.compile(
    rb"%(?:(%)|([-+ #0]*)(\d*)(?:\.(\d+))?(?:(s|c|[pP][\w]*)|(hh|h|ll|l|)([diuxX])))"
)
LONGEST: Final = 1024  # MAX_BPRINTF_BUF: what a width can ask for
_BITS: Final = {b"hh": 8, b"h": 16, b"": 32, b"l": 64, b"ll": 64}
_ADDRESS_BYTES: Final = {b"4": 4, b"6": 16}


def format_text(format: bytes, arguments: Iterable[int], read: Callable[[int, int], bytes]) -> bytes:
    """`format` with its arguments filled in; `read(address, size)` gives memory, size 0 a NUL-ended string.

    Raises RejectedError (EINVAL) for a conversion that the kernel does not have.
    """
    given = iter(arguments)
    out = bytearray()
    position = 0
    while position < len(format):
        found = format.find(b"%", position)
        if found < 0:
            out += format[position:]
            break
        out += format[position:found]
        match = _CONVERSION.match(format, found)
        if match is None:
            raise _bad(format, found)
        out += b"%" if match[1] else _convert(match, next(given, 0), read)
        position = match.end()
    return bytes(out)


def _convert(match: re.Match[bytes], value: int, read: Callable[[int, int], bytes]) -> bytes:
    flags, width = match[2], min(int(match[3] or 0), LONGEST)
    if match[5]:
        text = _pointer_or_string(match[5], value, read)
        return text.ljust(width) if b"-" in flags else text.rjust(width)
    bits = _BITS[match[6]]
    value &= (1 << bits) - 1
    if match[7] in b"di" and value >> (bits - 1):
        value -= 1 << bits
    spec = f"%{flags.decode()}{width or ''}" + match[7].decode().replace("i", "d").replace("u", "d")
    return (spec % value).encode()


def _pointer_or_string(kind: bytes, value: int, read: Callable[[int, int], bytes]) -> bytes:
    if kind == b"s":
        return read(value, 0) if value else b"(null)"
    if kind == b"c":
        return bytes([value & 0xFF])
    if kind[1:3] in (b"i4", b"I4", b"i6", b"I6"):
        return _address(kind[1:2], read(value, _ADDRESS_BYTES[kind[2:3]]))
    if kind[1:2] in (b"k", b"u") and kind[2:3] == b"s":
        return read(value, 0)
    return b"%016x" % value


def _address(form: bytes, raw: bytes) -> bytes:
    if len(raw) == 4:
        return b".".join(b"%03d" % byte if form == b"i" else b"%d" % byte for byte in raw)
    groups = [raw[i : i + 2].hex().encode() for i in range(0, 16, 2)]
    return b"".join(groups) if form == b"i" else b":".join(groups)


def _bad(format: bytes, position: int) -> RejectedError:
    shown = format[position : position + 8].decode(errors="replace")
    said = f"no conversion '{shown}' in a bpf format string"
    return RejectedError([Diagnostic("bad-format", said, errno=EINVAL)])
