"""`bpfc btf`: the types in an object, or in a file of raw BTF such as the kernel's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bpfc.cli.objects import object_argument
from bpfc.cli.root import Group
from bpfc.cli.terminal import Json, Terminal

if TYPE_CHECKING:
    from ir.btf import Btf

RAW_MAGICS: Final = (b"\x9f\xeb", b"\xeb\x9f")
_GUARD: Final = "BPFC_BTF_H"


@click.group(cls=Group)
def command() -> None:
    """The types in an object, or in raw BTF: /sys/kernel/btf/vmlinux."""


@command.command("dump")
@object_argument
@click.argument("form", metavar="[c|raw]", type=click.Choice(("c", "raw")), default="raw")
@click.option(
    "--type", "names", multiple=True, metavar="T", help="Only these types; for c, what they need too."
)
@click.pass_obj
def dump(terminal: Terminal, /, object_path: str, form: str, names: tuple[str, ...]) -> None:
    """The types as records, as bpftool prints them, or as a header for C; -j gives records."""
    btf = open_btf(object_path)
    ids = _ids(btf, names)
    if terminal.speaks_json:
        wanted = btf.ids() if ids is None else ids
        terminal.record("bpfc.btf/1", {"types": [_type_json(btf, id) for id in wanted]})
        return
    terminal.stream(_c_lines(btf, ids) if form == "c" else _raw_lines(btf, ids))


def open_btf(path: str) -> Btf:
    """The types of an ELF file as they stand in it, or of a file of raw BTF. Raises RejectedError without any."""
    from bpfc.elf.file import read_elf
    from ir.btf import read_btf
    from ir.diagnostics import Diagnostic, Location, RejectedError

    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    if data[:2] in RAW_MAGICS:
        return read_btf(data, at=Location(file=path))
    file = read_elf(data, path)
    section = file.find(".BTF")
    if section is None:
        said = "no BTF in it; compile it with clang -g"
        raise RejectedError([Diagnostic("no-btf", said, Location(file=path))])
    return read_btf(section.data, at=file.at(section))


def _ids(btf: Btf, names: tuple[str, ...]) -> list[int] | None:
    """The ids of the types with these names, None for all."""
    from ir.diagnostics import Diagnostic, RejectedError

    if not names:
        return None
    found = {name: list(btf.find(name)) for name in names}
    missing = [name for name, ids in found.items() if not ids]
    if missing:
        raise RejectedError([Diagnostic("no-such-type", f"no type is called '{name}'") for name in missing])
    return sorted(id for ids in found.values() for id in ids)


def _raw_lines(btf: Btf, ids: list[int] | None) -> Iterator[str]:
    from ir.btf_dump import dump_raw

    return dump_raw(btf, ids)


def _c_lines(btf: Btf, ids: list[int] | None) -> Iterator[str]:
    """A header that bpf programs may include: relocatable, where clang is told so."""
    from ir.btf_c import dump_c

    yield f"#ifndef {_GUARD}\n#define {_GUARD}\n"
    yield "#ifndef BPF_NO_PRESERVE_ACCESS_INDEX"
    yield "#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)"
    yield "#endif\n"
    yield from dump_c(btf, ids)
    yield "#ifndef BPF_NO_PRESERVE_ACCESS_INDEX\n#pragma clang attribute pop\n#endif\n"
    yield f"#endif /* {_GUARD} */"


def _type_json(btf: Btf, id: int) -> Json:
    return {"id": id, "kind": btf.kind(id).name, **_fields_json(btf.type(id))}


def _fields_json(value: Any) -> dict[str, Any]:
    return {one.name: _json(getattr(value, one.name)) for one in fields(value)}


def _json(value: Any) -> Any:
    """Records as objects, enumerations by name, the rest as it is."""
    if isinstance(value, tuple):
        return [_json(one) for one in value]
    if is_dataclass(value):
        return _fields_json(value)
    return value.name.lower() if isinstance(value, Enum) else value
