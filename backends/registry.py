"""The targets by name; each file is imported when its target is first asked for."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Final

from backends.target import Target
from ir.diagnostics import Diagnostic, UnsupportedError

_FILES: Final = {
    "x86_64": "X86_64",
    "aarch64": "AARCH64",
    "riscv64": "RISCV64",
    "s390x": "S390X",
    "ppc64le": "PPC64LE",
    "i386": "I386",
    "armv7": "ARMV7",
}
_ALIASES: Final = {
    "amd64": "x86_64",
    "x86-64": "x86_64",
    "arm64": "aarch64",
    "powerpc64le": "ppc64le",
    "i686": "i386",
    "armv7l": "armv7",
}

NAMES: Final = tuple(_FILES)


def target_named(name: str) -> Target:
    """The target called `name` (as `uname -m` says it, or a usual alias); UnsupportedError for any other."""
    known = _ALIASES.get(name, name)
    if known not in _FILES:
        wanted = ", ".join(NAMES)
        raise UnsupportedError(
            [Diagnostic("unknown-target", f"no target '{name}', wanted one of {wanted}", errno=95)]
        )
    found = getattr(import_module(f"{__package__}.targets.{known}"), _FILES[known])
    assert isinstance(found, Target)
    return found


def host() -> Target:
    """The machine this process runs on."""
    return target_named(os.uname().machine)
