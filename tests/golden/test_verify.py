"""The cases of verify/*.txt: programs, whether they are proved safe, and where and why not.

    === name                       a case starts
    type xdp                       its program type, and attach type after a slash; the last given stays
    map m hash 4 16 8 spin_lock@0  a map: type, key size, value size, entries, flags=N, fields of its values
    unprivileged                   by the rules for loaders without capabilities; that stays, too
    linux accepts                  said only where Linux (wrongly, or for lack of insight) does not say the same
        r0 = 0                     code is indented; map_fd(m) and map_value(m, 8) name maps
        exit                       !reference-leak   the line, and the code of the refusal

Where bpf(2) may be called the running kernel has to give the same verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import pytest

from bpfc.testing.capabilities import only_capabilities
from bpfc.testing.kernel import bound, create_map, load_program, load_types
from bpfc.verification import verify_program
from ir.asm import read_assembly
from ir.btf import read_btf
from ir.btf_encode import encode_btf
from ir.btf_types import Int, Member, Struct, Type
from ir.diagnostics import Diagnostic
from ir.functions import discover_functions
from ir.helpers import HELPER_IDS
from ir.kinds import AttachType, MapType, ProgramType
from ir.object import Map, Object, Program, Reference, ReferenceKind
from runtime.bpf_syscall import KernelError

FOLDER = Path(__file__).parent / "verify"
_MAP = re.compile(r"map_(fd|value)\((\w+)(?:, *(\d+))?\)")
_EXPECTED = re.compile(r"\s!([a-z-]+)$")
CAP_BPF = 39
_SIZES = {"spin_lock": 4, "timer": 16}


@dataclass(slots=True)
class Case:
    """One program; `refusals` are (line number within the file, code), none when it is safe."""

    place: str
    type: ProgramType = ProgramType.XDP
    attach_type: AttachType | None = None
    maps: dict[str, Map] = field(default_factory=dict)
    fields: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    license: str = "GPL"
    unprivileged: bool = False
    linux: str = ""
    text: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    refusal: tuple[int, str] | None = None


def read_cases(path: Path) -> Iterator[Case]:
    """The cases of a file, in order."""
    case, type, attach, unprivileged = Case(""), ProgramType.XDP, None, False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = _EXPECTED.search(line)
        code, expected = (line[: found.start()], found[1]) if found else (line.partition("#")[0], "")
        if line.startswith("==="):
            if case.place:
                yield case
            case = Case(f"{path.stem}: {line[3:].strip()}", type, attach, unprivileged=unprivileged)
        elif line.startswith(" ") or code.rstrip().endswith(":"):
            case.text.append(code)
            case.lines.append(number)
            if expected:
                case.refusal = number, expected
        elif line.strip() and not line.startswith("#"):
            read_directive(case, *code.split())
            type, attach, unprivileged = case.type, case.attach_type, case.unprivileged
    yield case


def read_directive(case: Case, word: str, *rest: str) -> None:
    """Take in a line that is not code."""
    if word == "type":
        program, _, attach = rest[0].partition("/")
        case.type = ProgramType[program.upper()]
        case.attach_type = AttachType[attach.upper()] if attach else None
    elif word == "map":
        name, type, key, value, entries, *more = rest
        flags = sum(int(item.removeprefix("flags="), 0) for item in more if item.startswith("flags="))
        case.maps[name] = Map(name, MapType[type.upper()], int(key), int(value), int(entries), flags)
        case.fields[name] = [(kind, int(at)) for kind, _, at in (i.partition("@") for i in more) if at]
    elif word == "unprivileged":
        case.unprivileged = True
    elif word == "license":
        case.license = " ".join(rest)
    else:
        assert word == "linux", word
        case.linux = rest[0]


def build(case: Case) -> tuple[Program, bytes, dict[str, Map], dict[int, int]]:
    """The program, the BTF of its maps' values, its maps, and the line of each slot."""
    names: list[tuple[str, str, int]] = []

    def remember(found: re.Match[str]) -> str:
        names.append((found[1], found[2], int(found[3] or 0)))
        return f"map_fd({len(names) - 1})" if found[1] == "fd" else f"map_value({len(names) - 1}, 0)"

    assembly = read_assembly("\n".join(_MAP.sub(remember, line) for line in case.text), HELPER_IDS)
    references = {}
    program = Program("case", "", case.type, assembly.insns, discover_functions(assembly.insns, "case"))
    for slot, insn in zip(program.starts, assembly.insns, strict=False):
        if insn.opcode == 0x18 and insn.src in (1, 2):
            kind, name, offset = names[insn.imm & 0xFFFF_FFFF]
            references[slot] = Reference(ReferenceKind("map" if kind == "fd" else "map-value"), name, offset)
    lines = {slot: case.lines[line.line - 1] for slot, line in assembly.lines.items()}
    types, maps = value_types(case)
    program = replace(program, attach_type=case.attach_type, references=references)
    return program, encode_btf(types) if types else b"", maps, lines


def value_types(case: Case) -> tuple[list[Type], dict[str, Map]]:
    """BTF types for the values of maps with special fields, and the maps naming them."""
    types: list[Type] = [Int("int", 4, 32, is_signed=True)] if any(case.fields.values()) else []
    maps = dict(case.maps)
    for name, fields in case.fields.items():
        if not fields:
            continue
        members = []
        for kind, at in fields:
            size = _SIZES[kind]
            types.append(Struct(f"bpf_{kind}", False, size, (Member("raw", 1, 0),)))
            members.append(Member(kind, len(types), 8 * at))
        types.append(Struct(f"value_{name}", False, case.maps[name].value_size, tuple(members)))
        maps[name] = replace(maps[name], key_btf_id=1, value_btf_id=len(types))
    return types, maps


CASES = [case for path in sorted(FOLDER.glob("*.txt")) for case in read_cases(path)]


def verdict(case: Case) -> tuple[int, str] | None:
    """The line and the code of the refusal, None when the program is proved safe."""
    found = refusal_of(case.place)
    if found is None:
        return None
    lines = build(case)[3]
    return lines.get(found.at.insn or 0, 0), found.code


@cache
def refusal_of(place: str) -> Diagnostic | None:
    """Why the program of a case is refused, None when it is proved safe."""
    case = next(case for case in CASES if case.place == place)
    program, types, maps, _ = build(case)
    btf = read_btf(types) if types else None
    source = Object("case", {program.name: program}, maps, case.license, btf=btf)
    report = verify_program(source, program, unprivileged=case.unprivileged)
    return report.diagnostics[0] if report.diagnostics else None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.place)
def test_programs_are_proved_or_refused_where_the_case_says(case: Case) -> None:
    assert verdict(case) == case.refusal


# Refusals of these codes always have a history: somebody made the value, acquired the object or took the branch.
WITH_HISTORY = frozenset(
    (
        *("reference-leak", "lock-held", "section-open", "null-dereference", "null-argument", "return-range"),
        *("map-value-out-of-bounds", "packet-out-of-bounds", "untrusted-pointer", "bad-size"),
    )
)
CATEGORIES = {"memory", "pointer", "resource", "call", "permission", "result", "termination", "structure"}


@pytest.mark.parametrize("case", [case for case in CASES if case.refusal], ids=lambda case: case.place)
def test_refusals_say_what_is_wrong_where_why_and_what_would_help(case: Case) -> None:
    found = refusal_of(case.place)
    assert found is not None
    why = found.why
    assert why is not None
    assert why.category in CATEGORIES
    assert why.assembly
    assert why.hint
    assert found.errno in (1, 7, 13, 22)
    slots = [cause.at.insn or 0 for cause in why.causes]
    assert slots or found.code not in WITH_HISTORY
    assert slots == sorted(set(slots))
    assert found.at.insn not in slots
    assert str(found).splitlines() == [
        f"{found.at}: error: {found.message} [{why.category}: {found.code}]",
        f"    {found.at.insn}: {why.assembly}",
        *(["  because of"] if slots else []),
        *(f"    {cause}" for cause in why.causes),
        f"  help: {why.hint}",
    ]


@pytest.mark.kernel
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.place)
def test_the_running_kernel_gives_the_same_verdict(case: Case) -> None:
    program, types, maps, _ = build(case)
    wanted = case.linux or ("rejects" if case.refusal else "accepts")
    with ExitStack() as stack:
        btf = stack.enter_context(load_types(types)) if types else 0
        descriptors = {
            name: stack.enter_context(create_map(map_, btf if map_.value_btf_id else 0))
            for name, map_ in maps.items()
        }
        if case.unprivileged:
            # Without CAP_BPF, too, nobody may load anything where kernel.unprivileged_bpf_disabled says so.
            stack.enter_context(only_capabilities(CAP_BPF))
        load = load_program(bound(program, descriptors), case.type, 0, case.attach_type or 0, case.license)
        if wanted == "accepts":
            stack.enter_context(load)
        else:
            with pytest.raises(KernelError):
                stack.enter_context(load)
