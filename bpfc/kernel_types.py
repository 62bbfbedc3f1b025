"""The types of the kernel that is running here, read when first asked for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from bpfc.elf.types import read_types
from ir.btf import Btf

KERNEL_TYPES: Final = "/sys/kernel/btf/vmlinux"


@cache
def running_kernel() -> Btf | None:
    """Its BTF, None where there is none (an older Linux, another system). Raises UnreadableError."""
    path = Path(KERNEL_TYPES)
    return read_types(path.read_bytes(), KERNEL_TYPES) if path.exists() else None
