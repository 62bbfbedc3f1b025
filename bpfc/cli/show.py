"""`bpfc show`: what is in an object, read but not compiled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from bpfc.cli.errors import diagnostic_json
from bpfc.cli.objects import object_argument, open_object, program_argument, select_programs
from bpfc.cli.root import Command
from bpfc.cli.terminal import Json, Terminal, bold, indent, table
from bpfc.cli.values import show_value, type_name

if TYPE_CHECKING:
    from ir.object import Map, Object, Program

_WIDEST: Final = 60


@click.command(cls=Command)
@object_argument
@program_argument
@click.pass_obj
def command(terminal: Terminal, object_path: str, program: str | None) -> None:
    """What is in an object: programs, maps, global variables, sections, types.

    With PROG, only those programs, with their functions.
    """
    loaded = open_object(object_path)
    chosen = select_programs(loaded, program)
    data: dict[str, object] = {"object": loaded.object.name, "file": object_path}
    data["programs"] = [_program(one) for one in chosen]
    if program is None:
        data |= _whole(loaded.object)
    terminal.result("bpfc.show/1", data, "\n".join(_text(data)))
    for warning in loaded.object.warnings:
        terminal.detail(str(warning))


def _program(program: Program) -> Json:
    return {
        "name": program.name,
        "section": program.section,
        "type": program.type.name.lower(),
        "attach_type": program.attach_type.name.lower() if program.attach_type is not None else None,
        "attach_target": program.attach_target,
        "insns": program.starts[-1],
        "sleepable": program.is_sleepable,
        "autoload": program.autoload,
        "functions": [
            {"name": one.name, "insns": one.slots, "global": one.is_global} for one in program.functions
        ],
        "maps": sorted(_maps_of(program)),
    }


def _maps_of(program: Program) -> set[str]:
    return {one.name for one in program.references.values() if one.kind.value in ("map", "map-value")}


def _whole(object: Object) -> Json:
    from bpfc.globals import Globals, find_variables  # late: BTF values

    variables = find_variables(object)
    values = Globals(variables, object, lambda name: object.maps[name].initial or b"", _refuse)
    return {
        "maps": [_map(object, one) for one in object.maps.values()],
        "globals": [
            {
                "name": one.name,
                "section": one.section,
                "type": type_name(object.btf, one.type_id),
                "offset": one.offset,
                "size": one.size,
                "value": values[one.name],
            }
            for one in variables.values()
        ],
        "externs": [
            {"name": one.name, "section": one.section, "weak": one.is_weak, "function": one.is_function}
            for one in object.externs
        ],
        "license": object.license,
        "byte_order": "big" if object.big_endian else "little",
        "kernel_version": object.kernel_version,
        "btf": {"types": len(object.btf) - 1, "bytes": len(object.btf.data)}
        if object.btf is not None
        else None,
        "sections": _sections(object),
        "warnings": [diagnostic_json(one) for one in object.warnings],
    }


def _refuse(map: str, offset: int, data: bytes) -> None:
    raise AssertionError("show changes nothing")


def _map(object: Object, map: Map) -> Json:
    return {
        "name": map.name,
        "type": map.type.name.lower(),
        "key_size": map.key_size,
        "value_size": map.value_size,
        "max_entries": map.max_entries,
        "flags": map.flags,
        "key": type_name(object.btf, map.key_btf_id),
        "value": type_name(object.btf, map.value_btf_id) if map.initial is None else "",
        "section": map.section,
        "read_only": map.is_read_only,
        "pinned": map.is_pinned,
    }


def _sections(object: Object) -> list[str]:
    """Every section that something of the object is in, by name."""
    found = {program.section for program in object.programs.values()}
    found |= {map.section for map in object.maps.values()} | set(object.data)
    found |= {symbol.section for symbol in object.symbols}
    if object.license:
        found.add("license")
    if object.btf is not None:
        found.add(".BTF")
    return sorted(found - {""})


def _text(data: Mapping[str, Any]) -> Iterator[str]:
    yield from _summary(data)
    yield from _listed("programs", *_program_rows(data["programs"]))
    if "maps" not in data:
        for one in data["programs"]:
            rows = [(f["name"], f["insns"], "global" if f["global"] else "static") for f in one["functions"]]
            yield from _listed(f"functions of {one['name']}", ("name", "insns", ""), rows)
            yield f"\n{bold('maps')}\n  {', '.join(one['maps']) or 'none'}"
        return
    yield from _listed("maps", *_map_rows(data["maps"]))
    variables = [
        (one["name"], one["type"], one["section"], one["size"], _cut(show_value(one["value"])))
        for one in data["globals"]
    ]
    yield from _listed("globals", ("name", "type", "section", "bytes", "value"), variables)
    externs = [(one["name"], one["section"], "weak" if one["weak"] else "") for one in data["externs"]]
    yield from _listed("externs", ("name", "section", ""), externs)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}..."


def _summary(data: Mapping[str, Any]) -> Iterator[str]:
    if "license" not in data:
        return
    btf = data["btf"]
    types = f"BTF with {btf['types']} types" if btf else "no BTF"
    order = f"{data['byte_order']}-endian"
    yield f"{bold(data['object'])}: license {data['license'] or 'none'}, {order}, {types}"
    yield f"sections: {', '.join(data['sections'])}"
    if data["warnings"]:
        yield f"{len(data['warnings'])} warnings: -v shows them"


def _listed(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield bold(title)
    yield from indent(table(rows, heads))


def _program_rows(programs: list[Any]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    rows: list[tuple[object, ...]] = []
    for one in programs:
        attach = " ".join(filter(None, (one["attach_type"], one["attach_target"])))
        rows.append((one["name"], one["type"], one["section"], one["insns"], len(one["functions"]), attach))
    return ("name", "type", "section", "insns", "functions", "attach"), rows


def _map_rows(maps: list[Any]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    rows: list[tuple[object, ...]] = []
    for one in maps:
        key = one["key"] or f"{one['key_size']} B"
        value = one["value"] or f"{one['value_size']} B"
        flags = ", ".join(filter(None, ("read-only" * one["read_only"], "pinned" * one["pinned"])))
        rows.append((one["name"], one["type"], key, value, one["max_entries"], flags))
    return ("name", "type", "key", "value", "entries", ""), rows
