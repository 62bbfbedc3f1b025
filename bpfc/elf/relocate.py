"""Relocations of code: each relocated instruction gets the name of what it refers to.

r1 = 0 ll    R_BPF_64_64 counter   ->   r1 = map_value(0, 16) ll    Reference(MAP_VALUE, "name.bss", 16)
call -1      R_BPF_64_32 helper    ->   call pc+?                   target: helper, placed when linking
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from bpfc.elf.file import ElfRelocation, Section
from bpfc.elf.functions import CALL_OPCODE, WIDE_OPCODE, Code, calls_within
from bpfc.elf.image import R_BPF_64_32, R_BPF_64_64, RELOCATION_NAMES, Image
from ir.isa import Callee, Wide
from ir.object import Extern, Map, Reference, ReferenceKind


@final
@dataclass(frozen=True, slots=True)
class Targets:
    """What relocations may refer to: maps by (section, offset), global data by section, externs by name."""

    declared: Mapping[tuple[str, int], Map]
    data: Mapping[str, Map]
    externs: Mapping[str, Extern]
    kconfig: str


def relocate_code(image: Image, codes: Sequence[Code], targets: Targets) -> None:
    """Resolve the relocations of every code section into the `targets` and `references` of its Codes."""
    by_section: dict[int, list[Code]] = {}
    for code in codes:
        by_section.setdefault(code.section.number, []).append(code)
    for number, group in by_section.items():
        group.sort(key=lambda code: code.offset)
        begins = [code.offset for code in group]
        for relocation in image.relocations(image.file.sections[number]):
            last = bisect_right(begins, relocation.offset) - 1
            for code in group[bisect_right(begins, begins[last] - 1) : last + 1] if last >= 0 else ():
                if relocation.offset < code.end:
                    _relocate(image, code, relocation, targets)
    for code in codes:
        for insn, slot in calls_within(code):
            if insn not in code.targets and insn not in code.references:
                code.targets[insn] = (code.section.number, code.offset + 8 * slot)


def _relocate(image: Image, code: Code, relocation: ElfRelocation, targets: Targets) -> None:
    insn = code.insn_at(relocation.offset)
    at = image.file.at(code.section, relocation.offset)
    if insn is None:
        image.problem("bad-relocation", "relocation is not at the start of an instruction", at)
        return
    at = code.location(image, insn)
    opcode = code.insns[insn].opcode
    wanted = {WIDE_OPCODE: R_BPF_64_64, CALL_OPCODE: R_BPF_64_32}.get(opcode)
    if relocation.type != wanted:
        name = RELOCATION_NAMES.get(relocation.type, f"type {relocation.type}")
        said = f"relocation {name} against '{relocation.symbol.name}' does not fit opcode {opcode:#04x}"
        image.problem("bad-relocation", said, at)
    elif opcode == CALL_OPCODE:
        _relocate_call(image, code, insn, relocation, targets)
    else:
        _relocate_load(image, code, insn, relocation, targets)


def _relocate_call(
    image: Image, code: Code, number: int, relocation: ElfRelocation, targets: Targets
) -> None:
    insn, symbol, at = code.insns[number], relocation.symbol, code.location(image, number)
    if insn.src == Callee.HELPER.value:
        image.problem("bad-relocation", f"call of '{symbol.name}' is encoded as the call of a helper", at)
        return
    section = image.section_of(symbol)
    if section is None and symbol.section == 0 and symbol.name:
        extern = targets.externs.get(symbol.name)
        btf_id = extern.btf_id if extern is not None else 0
        code.insns[number] = insn._replace(src=Callee.KFUNC.value, offset=0, imm=0)
        reference = Reference(
            ReferenceKind.KFUNC,
            symbol.name,
            is_weak=symbol.is_weak,
            btf_id=btf_id,
            parameters=image.count_parameters(btf_id),
        )
        code.references[number] = reference
        return
    if section is None or not section.is_code:
        where = section.name if section is not None else "no section"
        image.problem("bad-relocation", f"call of '{symbol.name}', which is in {where or 'no section'}", at)
        return
    addend = 8 * (insn.imm + 1) if relocation.addend is None else relocation.addend
    code.targets[number] = (section.number, symbol.offset + addend)


def _relocate_load(
    image: Image, code: Code, number: int, relocation: ElfRelocation, targets: Targets
) -> None:
    insn, symbol, at = code.insns[number], relocation.symbol, code.location(image, number)
    addend = insn.imm & 0xFFFF_FFFF if relocation.addend is None else relocation.addend
    offset = symbol.offset + addend & 0xFFFF_FFFF
    section = image.section_of(symbol)
    if section is None:
        if symbol.section or not symbol.name:
            said = f"load of '{symbol.name}', which is in no section; a common symbol needs an initializer"
            image.problem("bad-relocation", said, at)
            return
        _load_extern(code, number, targets.externs.get(symbol.name), symbol.name, symbol.is_weak, targets)
        return
    if section.is_code:
        code.targets[number] = (section.number, offset)
        code.insns[number] = insn._replace(src=Wide.FUNC.value)
        return
    reference = _reference(section, offset, targets)
    if reference is None:
        said = f"load of '{symbol.name}': no map or global data at byte {offset:#x} of '{section.name}'"
        image.problem("bad-relocation", said, at)
        return
    code.references[number] = reference
    if reference.kind is ReferenceKind.MAP:
        code.insns[number] = insn._replace(src=Wide.MAP_FD.value, imm=0)
    else:
        code.insns[number] = insn._replace(src=Wide.MAP_VALUE.value, imm=reference.offset << 32)


def _reference(section: Section, offset: int, targets: Targets) -> Reference | None:
    declared = targets.declared.get((section.name, offset))
    if declared is not None:
        return Reference(ReferenceKind.MAP, declared.name)
    data = targets.data.get(section.name)
    return Reference(ReferenceKind.MAP_VALUE, data.name, offset) if data is not None else None


def _load_extern(
    code: Code, number: int, extern: Extern | None, name: str, is_weak: bool, targets: Targets
) -> None:
    insn = code.insns[number]
    if extern is not None and extern.section == ".kconfig":
        code.references[number] = Reference(ReferenceKind.MAP_VALUE, targets.kconfig, extern.offset)
        code.insns[number] = insn._replace(src=Wide.MAP_VALUE.value, imm=extern.offset << 32)
        return
    btf_id = extern.btf_id if extern is not None else 0
    code.references[number] = Reference(ReferenceKind.KSYM, name, is_weak=is_weak, btf_id=btf_id)
    code.insns[number] = insn._replace(src=Wide.PLAIN.value, imm=0)
