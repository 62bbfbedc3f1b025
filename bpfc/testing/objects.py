"""A case as an ELF object: its program in a section, its maps declared the old way, global data, a licence."""

from __future__ import annotations

import struct
from typing import Final

from bpfc.testing.case import LICENSE, Case
from bpfc.testing.elf_writer import ALLOCATED, NO_TYPE, OBJECT, WRITE, Part, Reloc, Sym, code, write_elf
from ir.encoding import encode
from ir.object import ReferenceKind

_WIDE: Final = 1  # R_BPF_64_64


def write_object(case: Case) -> bytes:
    """The bytes of a relocatable object that reads back as the case's program."""
    program = case.program
    assert program is not None, "a case of instructions"
    section = program.section or "socket"
    declared = [(name, map_) for name, map_ in case.maps.items() if map_.initial is None]
    variables = [(name, map_) for name, map_ in case.maps.items() if map_.initial is not None]
    relocations = [
        Reloc(8 * slot, _WIDE, reference.name) for slot, reference in sorted(program.references.items())
    ]
    insns = [
        insn._replace(src=0, imm=reference.offset)
        if (reference := program.references.get(slot)) is not None
        and reference.kind is ReferenceKind.MAP_VALUE
        else insn._replace(src=0)
        if reference is not None
        else insn
        for slot, insn in zip(program.starts, program.insns, strict=False)
    ]
    maps = b"".join(
        struct.pack("<5I", map_.type, map_.key_size, map_.value_size, map_.max_entries, map_.flags)
        for _, map_ in declared
    )
    parts = [
        code(section, encode(insns), *relocations),
        Part("maps", maps, ALLOCATED | WRITE),
        Part("license", LICENSE.encode() + b"\0", ALLOCATED),
        *(
            Part(_section_of(map_.is_read_only), map_.initial or b"", ALLOCATED if map_.is_read_only else 3)
            for _, map_ in variables
        ),
    ]
    symbols = [
        *(Sym(each.name, section, 8 * each.start, 8 * each.slots) for each in program.functions),
        *(Sym(name, "maps", 20 * number, 20, OBJECT) for number, (name, _) in enumerate(declared)),
        *(Sym(name, _section_of(map_.is_read_only), 0, map_.value_size, OBJECT) for name, map_ in variables),
        Sym("license", "license", 0, len(LICENSE) + 1, NO_TYPE),
    ]
    return write_elf(parts, symbols)


def _section_of(is_read_only: bool) -> str:
    return ".rodata" if is_read_only else ".data"
