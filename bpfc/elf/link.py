"""Linking: each entry function becomes a Program with every subprogram that it can reach behind it.

    main: call helper ... exit | helper: call leaf ... exit | leaf: ... exit      in the order of the calls

Calls and function addresses become distances in the new order; lines, CO-RE and references move along. A
program that calls through registers (`callx`) reaches what the read-only data it uses points at, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from bpfc.elf.functions import CALLX_OPCODE, WIDE_OPCODE, Code
from bpfc.elf.image import Image
from ir.btf_ext import CoreRelocation
from ir.btf_types import BtfKind, DeclTag
from ir.diagnostics import SourceLine
from ir.isa import Insn
from ir.lines import LineTable
from ir.object import FunctionInfo, FunctionTable, Map, Program, Reference, ReferenceKind
from ir.sections import section_meaning

E2BIG = 7
_EXCEPTION_TAG = "exception_callback:"
MAX_LINKED = 1 << 21
"""Slots that all programs of an object may have together, subprograms counted once per program."""


def link_programs(image: Image, codes: Sequence[Code], maps: Sequence[Map]) -> dict[str, Program]:
    """The programs of the object by name, in the order of the file; what does not link is noted."""
    by_place: dict[tuple[int, int], Code] = {}
    for code in codes:
        known = by_place.setdefault((code.section.number, code.offset), code)
        if code.is_global and not known.is_global:
            by_place[code.section.number, code.offset] = code
    _check_targets(image, codes, by_place)
    programs: dict[str, Program] = {}
    if image.problems:
        return programs
    tables = _tables(image, maps, by_place)
    callbacks = _exception_callbacks(image)
    linked = 0
    for entry in codes:
        if not entry.is_entry:
            continue
        if entry.name in programs:
            image.problem(
                "duplicate-program", f"there are two programs called '{entry.name}'", entry.location(image, 0)
            )
            continue
        ends = [code for code in codes if code.is_global and code.name == callbacks.get(entry.btf_id)]
        order, found = _reach_all([entry, *ends[:1]], by_place, tables)
        linked += sum(code.starts[-1] for code in order)
        if linked > MAX_LINKED:
            said = f"programs have more than {MAX_LINKED} instructions together"
            image.problem("too-large", said, entry.location(image, 0), E2BIG)
            return programs
        programs[entry.name] = _build(image, order, by_place, found)
    return programs


def _check_targets(image: Image, codes: Sequence[Code], by_place: Mapping[tuple[int, int], Code]) -> None:
    for code in codes:
        for number, place in code.targets.items():
            if place not in by_place:
                section = image.file.sections[place[0]]
                said = f"there is no function at byte {place[1]:#x} of section '{section.name}'"
                image.problem("bad-call-target", said, code.location(image, number))


def _tables(
    image: Image, maps: Sequence[Map], by_place: Mapping[tuple[int, int], Code]
) -> list[tuple[str, FunctionTable, dict[int, Code]]]:
    """Each table, the name of its map, and the functions it points at, by token."""
    numbers = {section.name: section.number for section in image.file.sections if section.is_code}
    tables: list[tuple[str, FunctionTable, dict[int, Code]]] = []
    for found in maps:
        for table in found.tables:
            codes = {word.token: by_place.get((numbers[word.section], word.place)) for word in table.words}
            known = {token: code for token, code in codes.items() if code is not None}
            tables.append((found.name, table, known))
    return tables


def _exception_callbacks(image: Image) -> dict[int, str]:
    """The name of the function that the exceptions of each entry function end in, by the entry's type (as libbpf appends it)."""
    tags = [image.btf.type(id) for id in image.btf.of_kind(BtfKind.DECL_TAG)] if image.btf is not None else []
    return {
        tag.type_id: tag.value.removeprefix(_EXCEPTION_TAG)
        for tag in tags
        if isinstance(tag, DeclTag) and tag.component < 0 and tag.value.startswith(_EXCEPTION_TAG)
    }


def _reach_all(
    roots: Sequence[Code],
    by_place: Mapping[tuple[int, int], Code],
    tables: Sequence[tuple[str, FunctionTable, Mapping[int, Code]]],
) -> tuple[list[Code], dict[int, Code]]:
    """An entry function, its exception callback, and what they call, by name or through tables.

    And the functions that they may find in tables, by token.
    """
    order = _reachable(roots, by_place)
    found: dict[int, Code] = {}
    while any(insn.opcode == CALLX_OPCODE for code in order for insn in code.insns):
        used = {(one.name, one.offset) for code in order for one in code.references.values()}
        found = {
            token: code
            for map, table, functions in tables
            if any(name == map and table.start <= offset < table.end for name, offset in used)
            for token, code in functions.items()
        }
        longer = _reachable([*roots, *(found[token] for token in sorted(found))], by_place)
        if len(longer) == len(order):
            break
        order = longer
    return order, {token: code for token, code in sorted(found.items()) if code is not roots[0]}


def _reachable(roots: Sequence[Code], by_place: Mapping[tuple[int, int], Code]) -> list[Code]:
    """Each root and what it calls, depth first in the order of the calls (as libbpf appends them)."""
    order: list[Code] = []
    seen: set[int] = set()
    for root in roots:
        if id(root) not in seen:
            seen.add(id(root))
            order.append(root)
            _append_callees(root, by_place, order, seen)
    return order


def _append_callees(
    code: Code, by_place: Mapping[tuple[int, int], Code], order: list[Code], seen: set[int]
) -> None:
    pending: list[Iterator[tuple[int, int]]] = [_callees(code)]
    while pending:
        place = next(pending[-1], None)
        if place is None:
            pending.pop()
            continue
        callee = by_place[place]
        if id(callee) not in seen:
            seen.add(id(callee))
            order.append(callee)
            pending.append(_callees(callee))


def _callees(code: Code) -> Iterator[tuple[int, int]]:
    return (code.targets[number] for number in sorted(code.targets))


def _build(
    image: Image,
    order: Sequence[Code],
    by_place: Mapping[tuple[int, int], Code],
    found: Mapping[int, Code],
) -> Program:
    bases: dict[int, int] = {}
    names: dict[int, str] = {}
    taken: Counter[str] = Counter()
    total = 0
    for code in order:
        bases[id(code)] = total
        names[id(code)] = f"{code.name}.{taken[code.name]}" if taken[code.name] else code.name
        taken[code.name] += 1
        total += code.starts[-1]
    insns: list[Insn] = []
    references: dict[int, Reference] = {}
    core: dict[int, CoreRelocation] = {}
    functions: list[FunctionInfo] = []
    for code in order:
        base = bases[id(code)]
        first = len(insns)
        insns += code.insns
        for number, place in code.targets.items():
            callee, slot = by_place[place], base + code.starts[number]
            distance = bases[id(callee)] - slot - 1
            insn = insns[first + number]
            if insn.opcode == WIDE_OPCODE:
                insns[first + number] = insn._replace(imm=distance & 0xFFFF_FFFF)
                references[slot] = Reference(ReferenceKind.FUNCTION, names[id(callee)], bases[id(callee)])
            else:
                insns[first + number] = insn._replace(imm=distance)
        references.update((base + code.starts[number], found) for number, found in code.references.items())
        core.update((base + slot, relocation) for slot, relocation in code.core.items())
        functions.append(
            FunctionInfo(
                name=names[id(code)],
                start=base,
                slots=code.starts[-1],
                is_global=code.is_global,
                btf_id=code.btf_id,
                section=code.section.name,
                offset=code.offset,
                parameters=image.count_parameters(code.btf_id) or 0,
            )
        )
    entry = order[0]
    meaning = section_meaning(entry.section.name)
    if not meaning.is_exact:
        said = f"section name '{entry.section.name}' is from before libbpf 1.0; taken as '{meaning.row.stem}'"
        image.warn("legacy-section-name", said, image.file.at(entry.section))
    records = [(bases[id(code)], code.lines) for code in order]
    lines: Mapping[int, SourceLine] = LineTable(records, image.btf) if image.btf is not None else {}
    program = Program(
        name=entry.name,
        section=entry.section.name,
        type=meaning.row.type,
        insns=tuple(insns),
        functions=tuple(functions),
        attach_type=meaning.row.attach_type,
        attach_target=meaning.target,
        is_sleepable=meaning.row.is_sleepable,
        has_frags=meaning.row.has_frags,
        autoload=meaning.autoload,
        references=dict(sorted(references.items())),
        core=core,
        lines=lines,
        tokens={token: bases[id(code)] for token, code in found.items()},
        file=image.file.name,
        big_endian=image.file.big_endian,
    )
    _ = program.digest  # now, so that finding its code in the cache waits for nothing
    return program
