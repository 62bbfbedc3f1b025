"""Ahead-of-time compilation: programs and maps of an object for C programs to link against, or to load at run time.

obj   a relocatable object, with a table of programs and maps (bpfc/include/bpfc_aot.h)
so    the same linked as a shared library, by the C compiler of the target
asm   the same as assembly text
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from errno import EINVAL
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backends.aot import SUPPORTED, close_module, program_symbol, world_text
from backends.machine import Machine
from backends.registry import host
from backends.target import Target
from bpfc.codegen import LEVELS, Front, build, front_of
from bpfc.compile import check_byte_order, effective_level
from bpfc.options import Options
from ir.diagnostics import Diagnostic, Location, RejectedError, UnsupportedError
from ir.isa import Kind
from ir.kinds import ProgramType
from ir.object import Program

if TYPE_CHECKING:
    from bpfc.loaded import Loaded

FORMS: Final = ("obj", "asm", "so")


def emit_aot(
    loaded: Loaded,
    names: Sequence[str],
    target: Target,
    form: str,
    options: Options | None = None,
    cpus: int = 1,
    fronts: dict[str, Front] | None = None,
) -> bytes:
    """The programs `names` of an object, and the maps they use, in one of FORMS, for any processor of `target`.

    `cpus`: how many values a key of a per-cpu map has. `fronts` is what calls for several targets share.

    Raises RejectedError, UnsupportedError.
    """
    programs = [loaded.program(name) for name in names]
    options = replace(options or Options(), extensible=False)
    for program in programs:
        _check(program, target)
    _check_names(programs)
    maps = {name: loaded.maps[name] for name in sorted(_used(loaded, programs))}
    for map_ in maps.values():
        if map_.type not in SUPPORTED:
            said = f"map '{map_.name}' is of type {map_.type.name.lower()}, which only bpfc's runtime can provide"
            raise UnsupportedError(
                [Diagnostic("aot-map", said, Location(file=loaded.object.name), errno=EINVAL)]
            )
    fronts = {} if fronts is None else fronts
    level = max((effective_level(program, options) for program in programs), default="O2")
    machine = Machine(target, LEVELS[level], target.cpu)
    first, *rest = world_text(loaded.object.name, programs, maps, cpus, target.byte_order == "big")
    module = machine.parse(first)
    for text in rest:
        module.link_in(machine.parse(text))
    for program in programs:
        meant = replace(options, level=level)
        if program.name not in fronts:
            fronts[program.name] = front_of(program, maps, meant)
        front = fronts[program.name]
        built = build(program, maps, meant, target, frozenset(), cpu=target.cpu, front=front)[1]
        close_module(built, program, loaded.object.name)
        module.link_in(built)
    for function in module.functions:
        if not function.is_declaration and function.name.startswith("bpfc.map."):
            function.linkage = "internal"
    if level != "O0":
        machine.optimize(module)
    if form == "asm":
        return machine.emit_assembly(module).encode()
    code = machine.emit_object(module)
    return code if form == "obj" else _link(code, target)


def _used(loaded: Loaded, programs: Sequence[Program]) -> set[str]:
    """The maps that the programs name, and those that a table of maps or programs brings along."""
    return {reference.name for program in programs for reference in program.references.values()} & set(
        loaded.maps
    )


def _check_names(programs: Sequence[Program]) -> None:
    """Refuse programs that C could not tell apart."""
    owners: dict[str, str] = {}
    for program in programs:
        other = owners.setdefault(program_symbol(program.name), program.name)
        if other != program.name:
            said = f"programs '{other}' and '{program.name}' have one name in C"
            at = Location(file=program.file, function=program.name)
            raise UnsupportedError([Diagnostic("aot-name", said, at, errno=EINVAL)])


def _check(program: Program, target: Target) -> None:
    check_byte_order(program, target)
    if program.type is ProgramType.EXT:
        said = "extensions replace functions of running programs, which bpfc's runtime does"
        raise UnsupportedError([Diagnostic("aot-extension", said, program.location(0), errno=EINVAL)])
    for slot, row in zip(program.starts, program.rows, strict=False):
        if row.kind is Kind.STATIC_BRANCH:
            said = "static branches are switched by bpfc's runtime; there is none in a C program"
            raise UnsupportedError([Diagnostic("aot-branch", said, program.location(slot), errno=EINVAL)])


def _link(code: bytes, target: Target) -> bytes:
    """A shared library of one object, by the C compiler of the target. UnsupportedError where there is none."""
    compiler = find_compiler(target)
    if compiler is None:
        names = ", ".join(_compilers(target))
        note = "emit obj and link it where there is one, or set CC"
        said = f"a shared library for {target.name} wants a C compiler to link it: {names}"
        raise UnsupportedError([Diagnostic("no-linker", said, notes=(note,))])
    with tempfile.TemporaryDirectory() as name:
        source, library = Path(name) / "programs.o", Path(name) / "programs.so"
        source.write_bytes(code)
        command = [*compiler, "-shared", "-nostdlib", "-o", str(library), str(source)]
        if target.word < 8:
            command.append("-lgcc")  # 64-bit divisions
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RejectedError([Diagnostic("link-failed", f"{compiler[0]} says: {done.stderr.strip()}")])
        return library.read_bytes()


def find_compiler(target: Target) -> list[str] | None:
    """The command that compiles and links C for `target`: $CC on the host, else what is installed; None if nothing is."""
    if target == host() and os.environ.get("CC"):
        return os.environ["CC"].split()
    return next(([found] for name in _compilers(target) if (found := shutil.which(name))), None)


def _compilers(target: Target) -> list[str]:
    machine, _, system, environment = target.triple.split("-")
    cross = target.tools or f"{machine}-{system}-{environment}"
    return ["cc", "gcc", "clang"] if target == host() else [f"{cross}-gcc"]
