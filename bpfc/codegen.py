"""The stages behind a cache miss; the one module of this floor that needs LLVM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from backends.lower import Facts, Lowered, LowerOptions, NothingProved, lower
from backends.machine import Level, Machine
from backends.native_code import NativeCode
from backends.object_reader import parse_object
from backends.registry import host
from ir.lift import lift
from ir.object import Map, Program
from ir.regions import Regions

if TYPE_CHECKING:
    from bpfc.compile import Options


LEVELS: Final = {"O0": Level.NONE, "O1": Level.FAST, "O2": Level.DEFAULT, "O3": Level.MOST}


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
    facts: Facts = NothingProved()
    lowered = lower(module, Regions(module), facts, LowerOptions(big_endian=target.byte_order == "big"))
    machine = Machine(target, LEVELS[options.level])
    parsed = machine.parse(lowered.text)
    if options.level != "O0":
        machine.optimize(parsed)
    return Generated(parse_object(machine.emit_object(parsed), target), lowered)
