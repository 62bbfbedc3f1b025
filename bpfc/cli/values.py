"""Values of maps and variables as people read them (`{packets: 38}`) and write them (`--set debug=1`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from ir.diagnostics import Diagnostic, RejectedError

if TYPE_CHECKING:
    from ir.btf import Btf

_DECLARED: Final = "\N{OBJECT REPLACEMENT CHARACTER}"  # a name that no type contains


def type_name(btf: Btf | None, type_id: int) -> str:
    """A type as C writes it, members left out; '' when there is none."""
    if btf is None or not type_id:
        return ""
    from ir.btf_c import c_declaration  # late: only who shows types needs it

    text = c_declaration(btf, type_id, _DECLARED)
    before, brace, rest = text.partition("{")
    if brace:
        text = f"{before}{{...}}{rest.rpartition('}')[2]}"
    return text.replace(f" {_DECLARED}", "").replace(_DECLARED, "")


def show_value(value: object, type: str = "") -> str:
    """A value on one line; an address in network byte order (by its C `type`) as such."""
    match value:
        case Mapping():
            return "{" + ", ".join(f"{name}: {show_value(one)}" for name, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(show_value(one) for one in value) + "]"
        case bytes():
            return value.hex(" ") or "nothing"
        case str():
            return f'"{value}"'
        case bool():
            return str(value).lower()
        case int() if type == "__be32":
            return str(ip_address(value.to_bytes(4, "little")))
        case _:
            return str(value)


def read_value(text: str) -> object:
    """What somebody wrote: a number, JSON, `hex:..`, or text as it stands. Raises RejectedError."""
    if text.startswith("hex:"):
        return read_hex(text[4:])
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value


def read_hex(text: str) -> bytes:
    """Bytes from hexadecimal text, spaces allowed. Raises RejectedError."""
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise RejectedError([Diagnostic("not-hex", f"'{text[:40]}' is not hexadecimal: {error}")]) from None
