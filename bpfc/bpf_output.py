"""BPF as a target: an object's programs optimized as bytecode, written as an object for Linux to load.

    .rodata: debug = 0
    filter: 437 instructions     ->     filter: 311 instructions

The content of read-only data is taken as final: a loader that sets constants afterwards changes nothing any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from errno import EINVAL
from typing import TYPE_CHECKING, Final

from bpfc.options import Options
from ir.asm import disassemble_program
from ir.bytecode import Rewritten, unchanged
from ir.diagnostics import Diagnostic, Location, RejectedError, UnsupportedError
from ir.isa import Callee, Kind
from ir.object import Map, Program
from ir.shrink import shrink

if TYPE_CHECKING:
    from bpfc.loaded import Loaded

BYTE_ORDERS: Final = {"bpfel": "little", "bpfeb": "big"}
_LOADED_LATER: Final = ".kconfig"  # its content is the loader's


def shrink_programs(loaded: Loaded, names: Iterable[str], options: Options) -> dict[str, Rewritten]:
    """The programs as they are emitted; at level O0 as they are. Raises RejectedError, UnsupportedError."""
    found: dict[str, Rewritten] = {}
    for name in names:
        program = loaded.program(name)
        _check(program)
        maps = _known_maps(loaded.object.maps, options)
        found[program.name] = unchanged(program) if options.level == "O0" else shrink(program, maps)
    return found


def emit_bpf(
    loaded: Loaded, arch: str, names: Iterable[str] | None = None, options: Options | None = None
) -> bytes:
    """An ELF object with the programs `names` (all, if not said), optimized. Raises RejectedError, UnsupportedError."""
    from bpfc.elf.emit import emit_object  # late: pyelftools

    chosen = tuple(loaded.programs if names is None else names)
    _check_order(loaded, arch)
    if not loaded.source:
        said = "only what was read from an ELF object can be written as one"
        raise UnsupportedError(
            [Diagnostic("cannot-emit", said, Location(file=loaded.object.name), errno=EINVAL)]
        )
    if not chosen:
        said = "there is no program in it"
        raise RejectedError([Diagnostic("no-program", said, Location(file=loaded.object.name))])
    return emit_object(loaded.source, loaded.object, shrink_programs(loaded, chosen, options or Options()))


def bpf_text(loaded: Loaded, arch: str, name: str, options: Options) -> str:
    """One program as assembly text. Raises RejectedError, UnsupportedError."""
    _check_order(loaded, arch)
    return disassemble_program(shrink_programs(loaded, (name,), options)[name].program)


def _check_order(loaded: Loaded, arch: str) -> None:
    """The byte order is part of a program. Raises UnsupportedError for the other one."""
    own = "bpfeb" if loaded.object.big_endian else "bpfel"
    if arch != own:
        said = f"'{loaded.object.name}' is {BYTE_ORDERS[own]}-endian, {arch} is {BYTE_ORDERS[arch]}-endian"
        note = f"emit it for {own}, or compile its source with -target {arch}"
        at = Location(file=loaded.object.name)
        raise UnsupportedError([Diagnostic("foreign-byte-order", said, at, notes=(note,))])


def _known_maps(maps: Mapping[str, Map], options: Options) -> dict[str, Map]:
    """The maps whose content a loader leaves alone; without folding, of none it is looked at."""
    found = {name: map_ for name, map_ in maps.items() if map_.section != _LOADED_LATER}
    return found if options.fold else {name: replace(map_, initial=None) for name, map_ in found.items()}


def _check(program: Program) -> None:
    """Refuse what Linux does not have."""
    for slot, row in zip(program.starts, program.rows, strict=False):
        what = ""
        if row.kind is Kind.STATIC_BRANCH:
            what = "static branches"
        elif row.callee is Callee.INDIRECT:
            what = "calls through registers"
        if what:
            said = f"Linux has no {what}, so there is no object of this program for it"
            raise UnsupportedError([Diagnostic("cannot-emit", said, program.location(slot), errno=EINVAL)])
