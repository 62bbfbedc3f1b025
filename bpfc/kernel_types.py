"""The types of the kernel that is running here, read when first asked for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ir.diagnostics import Location

if TYPE_CHECKING:
    from ir.btf import Btf

KERNEL_TYPES: Final = "/sys/kernel/btf/vmlinux"


@cache
def running_kernel() -> Btf | None:
    """Its BTF, None where there is none (an older Linux, another system). Raises UnreadableError."""
    from ir.btf import read_btf  # late: whoever loads an object knows where the types are, few need them

    path = Path(KERNEL_TYPES)
    return read_btf(path.read_bytes(), at=Location(file=KERNEL_TYPES)) if path.exists() else None
