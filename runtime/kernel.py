"""What the running kernel lets this process do with bpf(2)."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Final

KERNEL_BTF: Final = Path("/sys/kernel/btf/vmlinux")
_BPF: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_MAP_CREATE: Final = 0
_ATTR_SIZE: Final = 32


def bpf_refusal() -> str:
    """Why the kernel does not let us create a map, '' when it does. The map is closed again at once."""
    number = _BPF.get(platform.machine())
    if number is None:
        return f"the number of bpf(2) on {platform.machine()} is not known"
    # map_type 2 is BPF_MAP_TYPE_ARRAY, then key_size, value_size, max_entries.
    attributes = (ctypes.c_uint32 * (_ATTR_SIZE // 4))(2, 4, 8, 1)
    # Safe because bpf(2) reads _ATTR_SIZE bytes of `attributes`, which are there, and keeps nothing.
    call = ctypes.CDLL(None, use_errno=True).syscall
    descriptor: int = call(number, _MAP_CREATE, ctypes.byref(attributes), _ATTR_SIZE)
    if descriptor < 0:
        return os.strerror(ctypes.get_errno())
    os.close(descriptor)
    return ""


def has_kernel_btf() -> bool:
    """Whether the kernel shows its types, which CO-RE needs."""
    return KERNEL_BTF.is_file()
