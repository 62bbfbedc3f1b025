"""Native code as people read it: disassembled by capstone, with symbols, relocations and patch sites."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from backends.native_code import UNDEFINED, NativeCode, PatchSite, Relocation, SiteKind, Symbol
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
    return parse_object(emit_bytes(loaded, program, Options(level=level), arch, Form.OBJECT), target)


def key_names(loaded: Loaded, program: Program) -> dict[int, str]:
    """The static key of each static branch of a program, by slot; '' for those without one."""
    from ir.static_keys import static_branches

    owners = {slot: key for key, slots in loaded.static_keys.of(program).items() for slot in slots}
    return {slot: owners.get(slot, "") for slot in static_branches(program)}


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


def disassemble(code: NativeCode, keys: Mapping[int, str] | None = None) -> Iterator[str]:
    """Every executable section, function by function; `keys` as `key_names` says."""
    engine = _engine(code.target)
    for number, section in enumerate(code.sections):
        if not section.is_executable:
            continue
        labels = _labels(code, number)
        notes = _notes(code, number, keys or {})
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


def _notes(code: NativeCode, section: int, keys: Mapping[int, str]) -> dict[int, list[str]]:
    """What is to be said of the byte at an offset: its relocation, the patch site that begins there."""
    notes: dict[int, list[str]] = {}
    for one in code.relocations:
        if one.section == section:
            notes.setdefault(one.offset, []).append(_said(code, one))
    for site in code.sites:
        if site.section == section:
            notes.setdefault(site.offset, []).append(_site(site, keys))
    return notes


def _site(site: PatchSite, keys: Mapping[int, str]) -> str:
    """A patch site in words: for static branches the instruction, the key, the form and where it can go."""
    if site.kind is not SiteKind.STATIC:
        return f"{site.kind.name.lower()} site, {site.length} bytes"
    key = f" of key {keys[site.key]}" if keys.get(site.key) else ""
    goes = f"{site.target_offset:#x}" if site.target_offset >= 0 else "nowhere: that side was deleted"
    form = site.first_form.name.lower()
    return f"static site, {site.length} bytes, insn {site.key}{key}, {form}, jumps to {goes}"


def _said(code: NativeCode, relocation: Relocation) -> str:
    addend = f"{relocation.addend:+#x}" if relocation.addend else ""
    return f"{relocation.type} {code.symbols[relocation.symbol].name}{addend}"


def _section(code: NativeCode, symbol: Symbol) -> str:
    return code.sections[symbol.section].name if symbol.section != UNDEFINED else ""


def _engine(target: str):  # type: ignore[no-untyped-def]  # capstone is an extra, without types
    import capstone  # late: an extra

    architecture, mode = target_named(target).disassembly
    return capstone.Cs(getattr(capstone, architecture), getattr(capstone, mode))
