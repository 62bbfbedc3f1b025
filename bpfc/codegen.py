"""The stages behind a cache miss; the one module of this floor that needs LLVM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from backends.helpers.table import EMITTERS
from backends.lower import Lowered, lower
from backends.machine import Level, Machine
from backends.native_code import NativeCode
from backends.natives import NativeHelpers
from backends.object_reader import parse_object
from backends.registry import host
from backends.unit import LowerOptions
from ir.helpers import HELPERS
from ir.lift import lift
from ir.object import Map, Program
from ir.pipeline import DEFAULT, DEFAULT_FAST, Pipeline
from ir.regions import Regions
from ir.verify.facts import analyze
from runtime.host_helpers import HOST_HELPERS

if TYPE_CHECKING:
    from bpfc.options import Options


LEVELS: Final = {"O0": Level.NONE, "O1": Level.FAST, "O2": Level.DEFAULT, "O3": Level.MOST}


CALLX_HELPERS: Final = frozenset(
    helper.id for helper in HELPERS.values() if helper.name in EMITTERS or helper.name in HOST_HELPERS
)
PIPELINES: Final = {"O0": Pipeline(()), "O1": DEFAULT_FAST, "O2": DEFAULT, "O3": DEFAULT}


@final
@dataclass(frozen=True, slots=True)
class Generated:
    """Native code and the LLVM IR it came from."""

    code: NativeCode
    lowered: Lowered


def generate(
    program: Program, maps: Mapping[str, Map], options: Options, overridden: frozenset[int] = frozenset()
) -> Generated:
    """Compile `program` for this host. Raises RejectedError."""
    target = host()
    module = lift(program, maps)
    PIPELINES[options.level].run(module)
    regions = Regions(module)
    facts = analyze(module, regions)
    natives = NativeHelpers(overridden, program.type)
    lower_options = LowerOptions(program.big_endian, options.count_insns, callx_helpers=CALLX_HELPERS)
    lowered = lower(module, regions, facts, lower_options, natives)
    machine = Machine(target, LEVELS[options.level])
    parsed = machine.parse(_joined(lowered.text, natives.text()))
    if options.level != "O0":
        machine.optimize(parsed)
    return Generated(parse_object(machine.emit_object(parsed), target), lowered)


def _joined(*texts: str) -> str:
    """Modules' texts as one: a function that several declare is declared once."""
    declared: set[str] = set()
    lines: list[str] = []
    for line in "\n".join(texts).split("\n"):
        if line.startswith("declare "):
            name = line.split("@", 1)[1].split("(", 1)[0].strip('"')
            if name in declared:
                continue
            declared.add(name)
        lines.append(line)
    return "\n".join(lines)
