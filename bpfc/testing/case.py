"""A case: a program, the maps it uses and what it is run on. As a value, and as JSON that needs nothing else to be replayed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, final

from ir.encoding import decode, encode
from ir.isa import Insn
from ir.kinds import MapType, ProgramType
from ir.object import FunctionInfo, Map, Program, Reference, ReferenceKind

LICENSE: Final = "GPL"


@final
@dataclass(frozen=True)
class Case:
    """`inputs` are packets, or raw memory for a program of type UNSPEC; runs go through them in order, on the same maps.

    `data` is what a case of bytes (a malformed object) has instead of a program; `seed` is what made it.
    """

    program: Program | None
    maps: Mapping[str, Map]
    inputs: tuple[bytes, ...]
    data: bytes = b""
    seed: int = 0

    @property
    def digest(self) -> str:
        """Tells programs apart, whatever they run on."""
        shape = to_json(replace(self, inputs=(), seed=0))
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def code_digest(self) -> str:
        """Tells the instructions of programs apart, quickly; one that only refers to other things of a map is the same."""
        assert self.program is not None, "a case of instructions"
        code = encode(self.program.insns) + bytes((self.program.type,))
        return hashlib.blake2b(code, digest_size=8).hexdigest()

    @property
    def size(self) -> int:
        """What a reduction makes smaller: instructions and bytes."""
        insns = len(self.program.insns) if self.program is not None else 0
        return 1000 * insns + sum(map(len, self.inputs)) + len(self.inputs) + len(self.data)


def with_insns(case: Case, insns: tuple[Insn, ...]) -> Case:
    """The case with other instructions in the same places."""
    assert case.program is not None, "a case of instructions"
    return replace(case, program=replace(case.program, insns=insns))


def to_json(case: Case) -> dict[str, Any]:
    """What `from_json` reads."""
    said: dict[str, Any] = {"inputs": [each.hex() for each in case.inputs], "seed": case.seed}
    if case.data:
        said["data"] = case.data.hex()
    program = case.program
    if program is None:
        return said
    return {
        **said,
        "code": encode(program.insns, program.big_endian).hex(),
        "type": program.type.name,
        "section": program.section,
        "big_endian": program.big_endian,
        "functions": [
            [each.name, each.start, each.slots, each.is_global, each.btf_id] for each in program.functions
        ],
        "references": {
            str(slot): [each.kind.name, each.name, each.offset] for slot, each in program.references.items()
        },
        "maps": {name: _map_to_json(map_) for name, map_ in case.maps.items()},
    }


def from_json(said: Mapping[str, Any]) -> Case:
    """The case that `to_json` wrote."""
    inputs = tuple(bytes.fromhex(each) for each in said["inputs"])
    data, seed = bytes.fromhex(said.get("data", "")), said["seed"]
    if "code" not in said:
        return Case(None, {}, inputs, data, seed)
    functions = tuple(FunctionInfo(*fields) for fields in said["functions"])
    references = {
        int(slot): Reference(ReferenceKind[kind], name, offset)
        for slot, (kind, name, offset) in said["references"].items()
    }
    program = Program(
        functions[0].name,
        said["section"],
        ProgramType[said["type"]],
        decode(bytes.fromhex(said["code"]), said["big_endian"]),
        functions,
        references=references,
        big_endian=said["big_endian"],
    )
    maps = {name: _map_from_json(name, fields) for name, fields in said["maps"].items()}
    return Case(program, maps, inputs, data, seed)


def _map_to_json(map_: Map) -> dict[str, Any]:
    initial = map_.initial.hex() if map_.initial is not None else None
    return {
        "type": map_.type.name,
        "sizes": [map_.key_size, map_.value_size, map_.max_entries],
        "flags": map_.flags,
        "initial": initial,
        "is_read_only": map_.is_read_only,
    }


def _map_from_json(name: str, said: Mapping[str, Any]) -> Map:
    initial = bytes.fromhex(said["initial"]) if said["initial"] is not None else None
    key_size, value_size, max_entries = said["sizes"]
    return Map(
        name,
        MapType[said["type"]],
        key_size,
        value_size,
        max_entries,
        flags=said["flags"],
        initial=initial,
        is_read_only=said["is_read_only"],
    )
