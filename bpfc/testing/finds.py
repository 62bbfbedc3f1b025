"""A find: the case that shows a bug, in a form that can be replayed without what drew it; and as a golden case to keep."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, final

from bpfc.testing.case import Case, from_json, to_json
from bpfc.testing.oracle import Finding
from ir.asm import format_insn
from ir.helpers import HELPERS
from ir.isa import ROW_BY_NAME
from ir.object import Reference, ReferenceKind

_CALL: Final = ROW_BY_NAME["call helper"].opcode
_PARTS: Final = ("bpfc", "llvmlite", "unicorn")


@final
@dataclass(frozen=True, slots=True)
class Find:
    """`seed` is that of the case before it was reduced; `archs` the emulated targets, `versions` what it was found with."""

    finding: Finding
    case: Case
    seed: int
    archs: tuple[str, ...]
    versions: Mapping[str, str]

    @staticmethod
    def of(finding: Finding, case: Case, seed: int, archs: tuple[str, ...]) -> Find:
        """A find made here."""
        return Find(finding, case, seed, archs, versions())

    @property
    def name(self) -> str:
        """A file name that tells finds apart."""
        return re.sub(r"[^a-z0-9]+", "-", self.finding.signature.lower()).strip("-")[:80]

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        said = self.finding
        return {
            "oracle": said.oracle,
            "what": said.what,
            "where": said.where,
            "said": said.said,
            "case": to_json(self.case),
            "seed": self.seed,
            "archs": list(self.archs),
            "versions": dict(self.versions),
        }

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> Find:
        """The find that `to_json` wrote."""
        finding = Finding(said["oracle"], said["what"], said["where"], said["said"])
        return Find(
            finding, from_json(said["case"]), said["seed"], tuple(said["archs"]), dict(said["versions"])
        )


def write(find: Find, folder: Path) -> Path:
    """Write a find as JSON, and as a golden case beside it when it is a program; the JSON file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{find.name}.json"
    path.write_text(json.dumps(find.to_json(), indent=1) + "\n")
    if find.case.program is not None:
        path.with_suffix(".txt").write_text(golden_case(find))
    else:
        path.with_suffix(".o").write_bytes(find.case.data)
    return path


def read(path: Path) -> Find:
    """The find in a JSON file."""
    return Find.from_json(json.loads(path.read_text()))


def versions() -> dict[str, str]:
    """What a find may depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "kernel": platform.release()}
    for name in _PARTS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def golden_case(find: Find) -> str:
    """The program as a case of tests/golden/verify: its type, maps and code by name; comments say what it ran on."""
    case, program = find.case, find.case.program
    assert program is not None, "a case of instructions"
    lines = [f"=== {find.finding.signature}", f"type {program.type.name.lower()}"]
    used = {reference.name for reference in program.references.values()}
    for name, map_ in case.maps.items():
        if name in used:
            sizes = f"{map_.key_size} {map_.value_size} {map_.max_entries}"
            lines.append(f"map {name} {map_.type.name.lower()} {sizes}")
    lines += [f"# {line}" for line in find.finding.said.splitlines()[:8]]
    lines += [f"# input {data.hex() or '(empty)'}" for data in case.inputs]
    helpers = {number: f"bpf_{helper.name}" for number, helper in HELPERS.items()}
    for slot, insn in zip(program.starts, program.insns, strict=False):
        calls = insn.opcode == _CALL and insn.src == 0
        text = format_insn(insn, helpers.get(insn.imm, "") if calls else "")
        lines.append(f"    {_named(text, program.references.get(slot))}")
    return "\n".join(lines) + "\n"


def _named(text: str, reference: Reference | None) -> str:
    """Assembly with the map by its name."""
    if reference is None:
        return text
    is_map = reference.kind is ReferenceKind.MAP
    name = f"map_fd({reference.name})" if is_map else f"map_value({reference.name}, {reference.offset})"
    return re.sub(r"map_(?:fd|value)\([^)]*\)", name, text)
