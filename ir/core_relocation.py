"""CO-RE: fit a program that was compiled against its own types to the types of the kernel it shall run on.

    r2 = *(u32 *)(r1 + 8)      task_struct.pid, byte 8 here      ->      r2 = *(u32 *)(r1 + 2464)
    r3 = 1                     does task_struct.pid exist?       ->      r3 = 0
    r4 = 56                    offset of a field nobody has      ->      call 195896080        a helper
    that does not exist

What cannot be resolved is poisoned as libbpf does: harmless where dead, refused by verification where live.
Asked and answered as in libbpf's relo_core.c; types of kernel modules are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from errno import EINVAL, ERANGE
from functools import lru_cache
from typing import final

from ir.btf import Btf
from ir.btf_ext import CoreKind, CoreRelocation
from ir.btf_names import essential_name
from ir.btf_types import Array, Enum, Int, Pointer, Struct
from ir.core_access import (
    ENUMERATOR_KINDS,
    FIELD_KINDS,
    Path,
    are_kinds_compatible,
    match_enumerator,
    match_field,
    parse_path,
    refuse,
)
from ir.core_compatibility import Comparison
from ir.diagnostics import Diagnostic, DiagnosticError, RejectedError
from ir.isa import Insn, Kind, Row, find_row, row_of
from ir.object import POISON_HELPER, Program

_POISON = Insn(0x85, imm=POISON_HELPER)
_U64 = (1 << 64) - 1


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """A value, None when nothing has it; for an offset also the field's size and whether that may change.

    `is_exact`: the instruction must hold the local value before it is patched.
    """

    value: int | None
    size: int = 0
    resizable: str = ""
    is_exact: bool = True


_MISSING = Answer(None)


def relocate(program: Program, local: Btf, target: Btf) -> Program:
    """`program`, whose types are `local`, fitted to `target`.

    The slots of instructions that ask for something `target` does not have are in its `poisoned`, with
    the reason. Raises RejectedError with every relocation that is malformed, ambiguous or does not fit
    its instruction.
    """
    if not program.core:
        return program
    resolver = _resolver_for(local, target, program.big_endian)
    insns = list(program.insns)
    number_of = {slot: number for number, slot in enumerate(program.starts[:-1])}
    problems: list[Diagnostic] = []
    poisoned: dict[int, Diagnostic] = {}
    replaced: dict[int, tuple[Insn, ...]] = {}
    for slot, relocation in sorted(program.core.items()):
        at = program.location(slot)
        try:
            if slot not in number_of:
                raise refuse("relocation is not at the start of an instruction")
            before, after = resolver.resolve(relocation)
            insn = insns[number_of[slot]]
            reason = _reason(relocation, local) if after.value is None else _misfit(insn, before, after)
            if reason:
                poisoned[slot] = Diagnostic("core-unresolved", reason, at, errno=EINVAL)
                replaced[number_of[slot]] = (_POISON,) * insn.slots
            else:
                replaced[number_of[slot]] = (_patch(insn, before, after),)
        except DiagnosticError as error:
            problems += [replace(problem, at=at) for problem in error.diagnostics]
    if problems:
        raise RejectedError(problems)
    patched: list[Insn] = []
    done = 0
    for number, new in sorted(replaced.items()):
        patched += insns[done:number]
        patched += new
        done = number + 1
    return replace(program, insns=(*patched, *insns[done:]), core={}, poisoned=poisoned)


@final
class Resolver:
    """Answers CO-RE relocations of `local` types from `target`."""

    def __init__(self, local: Btf, target: Btf, big_endian: bool) -> None:
        self.local = local
        self.target = target
        self.big_endian = big_endian
        self._comparison = Comparison(local, target)
        self._candidates: dict[int, list[int]] = {}
        self._answers: dict[CoreRelocation, tuple[Answer, Answer]] = {}

    def resolve(self, relocation: CoreRelocation) -> tuple[Answer, Answer]:
        """The answers by the local and by the target types. Raises RejectedError when it makes no sense."""
        known = self._answers.get(relocation)
        if known is None:
            known = self._answers[relocation] = self._resolve(relocation)
        return known

    def _resolve(self, relocation: CoreRelocation) -> tuple[Answer, Answer]:
        path = parse_path(self.local, relocation)
        if relocation.kind is CoreKind.TYPE_ID_LOCAL:
            same = Answer(relocation.type_id, is_exact=False)
            return same, same
        name = self.local.name(relocation.type_id)
        if not name:
            raise refuse(f"type {relocation.type_id} is anonymous, which cannot be looked for")
        before = self._answer(relocation.kind, path)
        found: Path | None = None
        after = self._answer(relocation.kind, None)
        for id in self._find_candidates(relocation.type_id, name):
            matched = self._match(relocation.kind, path, id)
            if matched is None:
                continue
            answer = self._answer(relocation.kind, matched)
            if found is not None and (found.bit_offset != matched.bit_offset or answer.value != after.value):
                said = f"'{describe(path)}' is ambiguous: {describe(found)} and {describe(matched)} differ"
                raise refuse(said, "core-ambiguous")
            if found is None:
                found, after = matched, answer
        return before, after

    def _find_candidates(self, local_id: int, name: str) -> list[int]:
        known = self._candidates.get(local_id)
        if known is None:
            wanted = self.local.type(local_id)
            known = self._candidates[local_id] = [
                id
                for id in self.target.find_flavours(essential_name(name))
                if are_kinds_compatible(wanted, self.target.type(id))
            ]
        return known

    def _match(self, kind: CoreKind, path: Path, id: int) -> Path | None:
        if kind in ENUMERATOR_KINDS:
            return match_enumerator(path, self.target, id)
        if kind in FIELD_KINDS:
            return match_field(path, self.target, id)
        compare = self._comparison.match if kind is CoreKind.TYPE_MATCHES else self._comparison.are_compatible
        return Path(self.target, id) if compare(path.root_id, id) else None

    def _answer(self, kind: CoreKind, path: Path | None) -> Answer:
        if kind in (CoreKind.FIELD_EXISTS, CoreKind.ENUMVAL_EXISTS):
            return Answer(int(path is not None))
        if kind in FIELD_KINDS:
            return self._answer_field(kind, path) if path is not None else _MISSING
        if kind is CoreKind.ENUMVAL_VALUE:
            return Answer(_enumerator(path)) if path is not None else _MISSING
        if path is None:
            return Answer(0)
        if kind is CoreKind.TYPE_SIZE:
            return Answer(path.btf.size_of(path.root_id))
        if kind is CoreKind.TYPE_ID_TARGET:
            return Answer(path.root_id, is_exact=False)
        return Answer(1)

    def _answer_field(self, kind: CoreKind, path: Path) -> Answer:
        btf, last = path.btf, path.steps[-1]
        if not last.name:
            if kind is CoreKind.FIELD_BYTE_OFFSET:
                return Answer(
                    path.bit_offset // 8, _element_size(btf, last.type_id), _resizable(btf, last.type_id)
                )
            if kind is CoreKind.FIELD_BYTE_SIZE:
                return Answer(btf.size_of(last.type_id))
            raise refuse(f"{kind.name.lower()} of an array element")
        struct = btf.type(last.type_id)
        assert isinstance(struct, Struct)
        member = struct.members[last.index]
        id = btf.strip(member.type_id)
        of = btf.type(id)
        if member.bit_size:
            size = _bitfield_size(of, path.bit_offset, member.bit_size)
            byte_offset, bits = path.bit_offset // 8 // size * size, member.bit_size
        else:
            size, byte_offset = btf.size_of(id), path.bit_offset // 8
            bits = 8 * size
        first = path.bit_offset - 8 * byte_offset
        match kind:
            case CoreKind.FIELD_BYTE_OFFSET if member.bit_size:
                return Answer(byte_offset, is_exact=False)
            case CoreKind.FIELD_BYTE_OFFSET:
                return Answer(byte_offset, _element_size(btf, id), _resizable(btf, id))
            case CoreKind.FIELD_BYTE_SIZE:
                return Answer(size, is_exact=not member.bit_size)
            case CoreKind.FIELD_SIGNED:
                return Answer(int(isinstance(of, Int | Enum) and of.is_signed))
            case CoreKind.FIELD_RSHIFT_U64:
                return Answer(64 - bits & _U64)
            case _:
                unused = 8 * (8 - size) + first if self.big_endian else 64 - (first + bits)
                return Answer(unused & _U64, is_exact=not member.bit_size)


@lru_cache(maxsize=4)
def _resolver_for(local: Btf, target: Btf, big_endian: bool) -> Resolver:
    """The programs of an object ask much the same."""
    return Resolver(local, target, big_endian)


def describe(path: Path) -> str:
    """A path as C would write it: "struct task_struct.comm[3]"."""
    text = path.btf.name(path.root_id) or f"type {path.root_id}"
    for number, step in enumerate(path.steps):
        if step.name:
            text += f".{step.name}"
        elif number or step.index:
            text += f"[{step.index}]"
    return text


def _reason(relocation: CoreRelocation, local: Btf) -> str:
    what = "value" if relocation.kind is CoreKind.ENUMVAL_VALUE else "field"
    return f"the target has no {what} '{describe(parse_path(local, relocation))}'"


def _misfit(insn: Insn, before: Answer, after: Answer) -> str:
    """Why the instruction must not access a field of the target's size, '' when it may."""
    row = row_of(insn)
    if before.size == after.size or row.kind not in (Kind.LOAD, Kind.STORE, Kind.ATOMIC):
        return ""
    if before.resizable and before.resizable == after.resizable:
        return ""
    return (
        f"the field has {after.size} bytes in the target, not {before.size}, and is not an unsigned integer"
    )


def _patch(insn: Insn, before: Answer, after: Answer) -> Insn:
    row, value = row_of(insn), after.value
    assert value is not None
    if row.kind is Kind.ALU and not row.uses_src:
        _expect(insn.imm & _U64, before)
        low = value & 0xFFFF_FFFF
        return insn._replace(imm=low - (1 << 32) if low >> 31 else low)
    if row.kind is Kind.WIDE and insn.src == 0:
        _expect(insn.imm, before)
        return insn._replace(imm=value & _U64)
    if row.kind not in (Kind.LOAD, Kind.STORE, Kind.ATOMIC):
        raise refuse(f"instruction '{row.name}' cannot be relocated")
    _expect(insn.offset & _U64, before)
    if value > 0x7FFF:
        said = f"offset {value} of the field is too large for an instruction"
        raise RejectedError([Diagnostic("core-relocation", said, errno=ERANGE)])
    patched = insn._replace(offset=value)
    return patched if before.size == after.size else _resize(row, patched, before.size, after.size)


def _expect(found: int, before: Answer) -> None:
    if before.is_exact and before.value is not None and found != before.value & _U64:
        raise refuse(f"instruction holds {found}, wanted {before.value} by its own types")


def _resize(row: Row, insn: Insn, before: int, after: int) -> Insn:
    """The same access with another width."""
    if row.size != before:
        raise refuse(f"instruction accesses {row.size} bytes of a field of {before}")
    code = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}.get(after)
    if code is None:
        raise refuse(f"the field has {after} bytes in the target, which no instruction accesses")
    resized = insn._replace(opcode=insn.opcode & ~0x18 | code)
    if find_row(resized) is None:
        raise refuse(f"instruction '{row.name}' cannot access {after} bytes")
    return resized


def _element_size(btf: Btf, id: int) -> int:
    """The size of a value, of the innermost element when it is an array."""
    of = btf.type(btf.strip(id))
    for _ in range(64):
        if not isinstance(of, Array):
            break
        id = btf.strip(of.element_id)
        of = btf.type(id)
    return btf.size_of(id)


def _resizable(btf: Btf, id: int) -> str:
    """What kind of zero-extending value it is, so that another width means the same; '' when it is none."""
    match btf.type(id):
        case Pointer():
            return "pointer"
        case Int(is_signed=is_signed, is_char=is_char, is_bool=is_bool):
            return "" if is_signed and not is_char and not is_bool else "integer"
    return ""


def _bitfield_size(of: object, bit_offset: int, bits: int) -> int:
    """Bytes of the smallest aligned integer that holds the whole bit field, from its type's size up."""
    size = of.size if isinstance(of, Int | Enum) else 0
    if size not in (1, 2, 4, 8):
        raise refuse(f"bit field of a type of {size} bytes")
    while bit_offset + bits - bit_offset // 8 // size * size * 8 > 8 * size:
        if size == 8:
            raise refuse("bit field cannot be read with one load of 64 bits")
        size *= 2
    return size


def _enumerator(path: Path) -> int:
    enum = path.btf.type(path.steps[0].type_id)
    assert isinstance(enum, Enum)
    return enum.values[path.steps[0].index].value & _U64
