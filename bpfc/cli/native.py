"""Native code as people read it: disassembled by capstone, with symbols, relocations, patch sites and lines of C."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from backends.native_code import UNDEFINED, Form, NativeCode, PatchSite, Relocation, SiteKind, Symbol
from backends.registry import target_named
from bpfc.cli.terminal import Json, dim

if TYPE_CHECKING:
    from bpfc.loaded import Loaded
    from ir.object import Program
    from runtime.link_report import CallReport
    from runtime.linker import LinkedImage


def can_disassemble() -> bool:
    """Whether capstone is installed."""
    return importlib.util.find_spec("capstone") is not None


def compile_for(
    loaded: Loaded, program: Program, level: str, arch: str | None, with_lines: bool = False
) -> NativeCode:
    """The native code of a program; with lines, which instruction each piece of it is for."""
    from backends.registry import host
    from bpfc.compile import compile_program
    from bpfc.options import Options

    target = target_named(arch) if arch is not None else host()
    options = Options(level=level, lines=with_lines)
    return compile_program(program, loaded.maps, options, target=target if target != host() else None).code


def key_names(loaded: Loaded, program: Program) -> dict[int, str]:
    """The static key of each static branch of a program, by slot; '' for those without one."""
    from ir.static_keys import static_branches

    owners = {slot: key for key, slots in loaded.static_keys.of(program).items() for slot in slots}
    return {slot: owners.get(slot, "") for slot in static_branches(program)}


def code_json(program: Program, code: NativeCode) -> Json:
    """Sections, symbols, relocations, patch sites and lines; names as in the object file that LLVM wrote."""
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
        "sites": [
            {
                "kind": one.kind.name.lower(),
                "section": code.sections[one.section].name,
                "offset": one.offset,
                "length": one.length,
                "function": code.symbols[one.function].name,
                "form": one.first_form.name.lower(),
                **({"insn": one.key, "target": one.target_offset} if one.kind is SiteKind.STATIC else {}),
                **({} if code.sections[one.section].is_executable else {"flag": True}),
            }
            for one in code.sites
        ],
        "lines": [
            {"section": code.sections[section].name, "offset": offset, "insn": slot}
            for section, offset, slot in code.lines
        ],
    }


def symbol_lines(code: NativeCode) -> Iterator[str]:
    """The defined symbols by place, then the names that others must define."""
    defined = [one for one in code.symbols if one.section != UNDEFINED and one.name]
    for one in sorted(defined, key=lambda one: (one.section, one.offset, one.name)):
        yield f"{one.offset:8x} {one.size:6}  {_section(code, one)}  {one.name}"
    for name in code.undefined:
        yield f"{'undefined':>15}  {name}"


def source_texts(program: Program) -> dict[int, str]:
    """What to say before the native code of each instruction, by slot: its line of C, else itself."""
    from ir.asm import format_insn

    texts: dict[int, str] = {}
    for slot, insn in zip(program.starts, program.insns, strict=False):
        source = program.location(slot).source
        said = f"{source}: {source.text.strip()}" if source is not None else f"{slot}: {format_insn(insn)}"
        texts[slot] = said
    return texts


def disassemble(
    code: NativeCode, keys: Mapping[int, str] | None = None, sources: Mapping[int, str] | None = None
) -> Iterator[str]:
    """Every executable section, function by function; `keys` as `key_names` says, `sources` as `source_texts`."""
    engine = _engine(code.target)
    for number, section in enumerate(code.sections):
        if not section.is_executable:
            continue
        labels = _labels(code, number)
        notes = _notes(code, number, keys or {})
        lines = _lines(code, number, sources or {})
        yield dim(f"; section {section.name}, {section.size} bytes, {code.target}")
        for insn in engine.disasm(section.data, 0):
            yield from labels.get(insn.address, [])
            if insn.address in lines:
                yield dim(f"; {lines[insn.address]}")
            said = [
                text for at in range(insn.address, insn.address + insn.size) for text in notes.get(at, ())
            ]
            note = f"  ; {', '.join(said)}" if said else ""
            text = f"{insn.mnemonic} {insn.op_str}".rstrip()
            yield f"{insn.address:6x}: {dim(insn.bytes.hex(' ').ljust(30))} {text}{note}"
    yield from _flags(code, keys or {})


def _flags(code: NativeCode, keys: Mapping[int, str]) -> Iterator[str]:
    """The words that stand for static branches."""
    for site in code.sites:
        section = code.sections[site.section]
        if section.is_executable:
            continue
        word = section.data[site.offset : site.offset + site.length].hex(" ")
        name = code.symbols[site.function].name
        yield f"{name}: {dim(word)}  ; {_site(code, site, keys)}"


def link_lines(image: LinkedImage) -> Iterator[str]:
    """Where the functions of an image are, then a line for each of its calls."""
    for symbol in image.functions:
        yield f"{symbol.address:16x} {symbol.length:6}  {symbol.name}"
    for call in image.calls:
        place = f"{call.function}+{_within(image, call):#x}"
        yield f"{place:<32} {call.callee:<24} {call.distance:+#x}  {call.reach.value} ({call.why})"


def link_json(program: Program, image: LinkedImage) -> Json:
    """Where the functions of an image are, and its calls."""
    return {
        "name": program.name,
        "target": image.target.name,
        "functions": [
            {"name": one.name, "address": one.address, "size": one.length} for one in image.functions
        ],
        "calls": [
            {
                "function": call.function,
                "offset": _within(image, call),
                "callee": call.callee,
                "distance": call.distance,
                "reach": call.reach.name.lower(),
                "why": call.why,
            }
            for call in image.calls
        ],
    }


def _within(image: LinkedImage, call: CallReport) -> int:
    """Where a call is in its function, in bytes."""
    return image.address + call.offset - image.address_of(call.function) if call.function else call.offset


def _labels(code: NativeCode, section: int) -> dict[int, list[str]]:
    labels: dict[int, list[str]] = {}
    for symbol in code.symbols:
        if symbol.section == section and symbol.is_function:
            labels.setdefault(symbol.offset, []).append(f"{symbol.name}:")
    return labels


def _lines(code: NativeCode, section: int, sources: Mapping[int, str]) -> dict[int, str]:
    """What to say before the byte at an offset, where it is not what was said last."""
    found: dict[int, str] = {}
    last = ""
    for mark in code.lines:
        said = sources.get(mark.slot, "")
        if mark.section == section and said:
            if said != last:
                found[mark.offset] = said
            last = said
    return found


def _notes(code: NativeCode, section: int, keys: Mapping[int, str]) -> dict[int, list[str]]:
    """What is to be said of the byte at an offset: its relocation, the patch site that begins there."""
    notes: dict[int, list[str]] = {}
    for one in code.relocations:
        if one.section == section:
            notes.setdefault(one.offset, []).append(_said(code, one))
    for site in code.sites:
        if site.section == section:
            notes.setdefault(site.offset, []).append(_site(code, site, keys))
    return notes


def _site(code: NativeCode, site: PatchSite, keys: Mapping[int, str]) -> str:
    """A patch site in words: for static branches the instruction, the key, the form and where it can go."""
    if site.kind is not SiteKind.STATIC:
        return f"{site.kind.name.lower()} site, {site.length} bytes"
    key = f" of key {keys[site.key]}" if keys.get(site.key) else ""
    goes = f"{site.target_offset:#x}" if site.target_offset >= 0 else "nowhere: that side was deleted"
    form = site.first_form.name.lower()
    if target_named(code.target).flags is not None:
        value = int(site.first_form is Form.JUMP)
        return f"static flag, {site.length} bytes, insn {site.key}{key}, {value}: code tests it in memory"
    way = _way(code, site)
    return f"static site, {site.length} bytes, insn {site.key}{key}, {form}, jumps to {goes}{way}"


def _way(code: NativeCode, site: PatchSite) -> str:
    """How a site gets there, where not by its own jump alone."""
    patching, distance = target_named(code.target).patching, site.target_offset - site.offset
    if site.target_offset < 0 or patching.is_near(distance):
        return ""
    before = code.sections[site.section].data[max(site.offset - 8, 0) : site.offset]
    is_pair = patching.branch_forms(distance, before) is not None
    return ", by a pair with the instruction before it" if is_pair else ", which is out of its reach"


def _said(code: NativeCode, relocation: Relocation) -> str:
    addend = f"{relocation.addend:+#x}" if relocation.addend else ""
    return f"{relocation.type} {code.symbols[relocation.symbol].name}{addend}"


def _section(code: NativeCode, symbol: Symbol) -> str:
    return code.sections[symbol.section].name if symbol.section != UNDEFINED else ""


def _engine(target: str):  # type: ignore[no-untyped-def]  # capstone is an extra, without types
    import capstone  # late: an extra

    architecture, mode = target_named(target).disassembly
    return capstone.Cs(getattr(capstone, architecture), getattr(capstone, mode))
