"""What the running kernel lets this process do with bpf(2)."""

from __future__ import annotations

import os
import platform
import struct
from pathlib import Path
from typing import Final

from ir.kinds import MapType
from runtime.bpf_syscall import NUMBERS, Command, KernelError, bpf

KERNEL_BTF: Final = Path("/sys/kernel/btf/vmlinux")


def bpf_refusal() -> str:
    """Why the kernel does not let us create a map, '' when it does. The map is closed again at once."""
    if platform.machine() not in NUMBERS:
        return f"the number of bpf(2) on {platform.machine()} is not known"
    key_size, value_size, max_entries = 4, 8, 1
    attributes = struct.pack("=4I", MapType.ARRAY, key_size, value_size, max_entries)
    try:
        descriptor, _ = bpf(Command.MAP_CREATE, attributes, "create a map")
    except KernelError as error:
        return os.strerror(error.errno)
    os.close(descriptor)
    return ""


def has_kernel_btf() -> bool:
    """Whether the kernel shows its types, which CO-RE needs."""
    return KERNEL_BTF.is_file()
