"""Native code as people read it: disassembled by capstone, with symbols, relocations and patch sites."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING

from backends.native_code import UNDEFINED, NativeCode, Relocation, Symbol
from backends.registry import target_named
from bpfc.cli.terminal import Json, dim

if TYPE_CHECKING:
    from bpfc.loaded import Loaded
    from ir.object import Program


def can_disassemble() -> bool:
    """Whether capstone is installed."""
    return importlib.util.find_spec("capstone") is not None


def compile_for(loaded: Loaded, program: Program, level: str, arch: str | None) -> NativeCode:
    """The native code of a program, from the cache when it is for this host."""
    from backends.object_reader import parse_object
    from backends.registry import host
    from bpfc.cli.dump import emit_bytes
    from bpfc.codegen import Form
    from bpfc.compile import compile_program
    from bpfc.options import Options

    if arch is None or target_named(arch) == host():
        return compile_program(program, loaded.maps, Options(level=level)).code
    target = target_named(arch)
    return parse_object(emit_bytes(loaded, program, level, arch, Form.OBJECT), target)


def code_json(program: Program, code: NativeCode) -> Json:
    """Sections, symbols and relocations; names as in the object file that LLVM wrote."""
    return {
        "name": program.name,
        "target": code.target,
        "sections": [
            {"name": one.name, "size": one.size, "executable": one.is_executable, "bytes": one.data}
            for one in code.sections
        ],
        "symbols": [
            {"name": one.name, "section": _section(code, one), "offset": one.offset, "size": one.size}
            for one in code.symbols
        ],
        "relocations": [
            {
                "section": code.sections[one.section].name,
                "offset": one.offset,
                "type": one.type,
                "symbol": code.symbols[one.symbol].name,
                "addend": one.addend,
            }
            for one in code.relocations
        ],
    }


def symbol_lines(code: NativeCode) -> Iterator[str]:
    """The defined symbols by place, then the names that others must define."""
    defined = [one for one in code.symbols if one.section != UNDEFINED and one.name]
    for one in sorted(defined, key=lambda one: (one.section, one.offset, one.name)):
        yield f"{one.offset:8x} {one.size:6}  {_section(code, one)}  {one.name}"
    for name in code.undefined:
        yield f"{'undefined':>15}  {name}"


def disassemble(code: NativeCode) -> Iterator[str]:
    """Every executable section, function by function."""
    engine = _engine(code.target)
    for number, section in enumerate(code.sections):
        if not section.is_executable:
            continue
        labels = _labels(code, number)
        notes = _notes(code, number)
        yield dim(f"; section {section.name}, {section.size} bytes, {code.target}")
        for insn in engine.disasm(section.data, 0):
            yield from labels.get(insn.address, [])
            said = [
                text for at in range(insn.address, insn.address + insn.size) for text in notes.get(at, ())
            ]
            note = f"  ; {', '.join(said)}" if said else ""
            text = f"{insn.mnemonic} {insn.op_str}".rstrip()
            yield f"{insn.address:6x}: {dim(insn.bytes.hex(' ').ljust(30))} {text}{note}"


def _labels(code: NativeCode, section: int) -> dict[int, list[str]]:
    labels: dict[int, list[str]] = {}
    for symbol in code.symbols:
        if symbol.section == section and symbol.is_function:
            labels.setdefault(symbol.offset, []).append(f"{symbol.name}:")
    return labels


def _notes(code: NativeCode, section: int) -> dict[int, list[str]]:
    """What is to be said of the byte at an offset: its relocation, the patch site that begins there."""
    notes: dict[int, list[str]] = {}
    for one in code.relocations:
        if one.section == section:
            notes.setdefault(one.offset, []).append(_said(code, one))
    for site in code.sites:
        if site.section == section:
            notes.setdefault(site.offset, []).append(f"{site.kind.name.lower()} site, {site.length} bytes")
    return notes


def _said(code: NativeCode, relocation: Relocation) -> str:
    addend = f"{relocation.addend:+#x}" if relocation.addend else ""
    return f"{relocation.type} {code.symbols[relocation.symbol].name}{addend}"


def _section(code: NativeCode, symbol: Symbol) -> str:
    return code.sections[symbol.section].name if symbol.section != UNDEFINED else ""


def _engine(target: str):  # type: ignore[no-untyped-def]  # capstone is an extra, without types
    import capstone  # late: an extra

    architecture, mode = target_named(target).disassembly
    return capstone.Cs(getattr(capstone, architecture), getattr(capstone, mode))
