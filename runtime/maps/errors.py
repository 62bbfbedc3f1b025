"""What goes wrong with maps, as Diagnostics with Linux's errno."""

from __future__ import annotations

import os
from errno import E2BIG, EBUSY, EEXIST, EINVAL, ENOENT, EPERM
from typing import Final

from ir.diagnostics import Diagnostic, RejectedError
from ir.object import Map

_SAID: Final = {
    E2BIG: ("map-full", "has no room for another entry"),
    EEXIST: ("key-exists", "has this key already"),
    ENOENT: ("no-such-key", "does not have this key"),
    EINVAL: ("map-operation", "does not have this operation"),
    EPERM: ("map-frozen", "is frozen: only programs may change it"),
    EBUSY: ("map-busy", "is in use"),
}


def map_error(map: Map, errno: int, said: str = "") -> RejectedError:
    """The error for an operation on `map` that Linux answers with `errno`."""
    code, usual = _SAID.get(errno, ("map-operation", f"refuses: {os.strerror(errno)}"))
    kind = map.type.name.lower()
    return RejectedError([Diagnostic(code, f"map {map.name} ({kind}) {said or usual}", errno=errno)])
