"""BTF from a file: raw, as the kernel shows its own, or the .BTF section of an ELF file."""

from __future__ import annotations

from bpfc.elf.file import read_elf
from ir.btf import Btf, read_btf
from ir.diagnostics import Diagnostic, Location, UnreadableError

ELF_MAGIC = b"\x7fELF"


def read_types(data: bytes, name: str) -> Btf:
    """The types in `data`. Raises UnreadableError when there are none."""
    at = Location(file=name)
    if not data.startswith(ELF_MAGIC):
        return read_btf(data, at=at)
    for section in read_elf(data, name).sections:
        if section.name == ".BTF":
            return read_btf(section.data, at=at)
    raise UnreadableError([Diagnostic("no-btf", "file has no section .BTF", at)])
