"""Externs: names that the loader provides, and the .kconfig map with the values of those declared __kconfig.

extern int LINUX_KERNEL_VERSION __kconfig;             virtual: the loader knows it
extern enum libbpf_tristate CONFIG_X __kconfig __weak; y, m or n as configured; 0 when weak and unset
extern const void symbol __ksym;                       a kernel symbol, resolved by the runtime
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from bpfc.elf.image import Image
from ir.btf import MAX_DEPTH, Btf
from ir.btf_types import Array, BtfKind, DataSection, Enum, Function, Int, Pointer, Type, Variable
from ir.diagnostics import DiagnosticError, Location
from ir.object import Extern

DEFAULT_KERNEL_VERSION = 6 << 16 | 18 << 8
DEFAULTS: Mapping[str, str] = {
    "LINUX_KERNEL_VERSION": str(DEFAULT_KERNEL_VERSION),
    "LINUX_HAS_BPF_COOKIE": "1",
    "LINUX_HAS_SYSCALL_WRAPPER": "1",
}
"""What virtual externs are when nothing else is said: as on a recent kernel."""

MAX_KCONFIG = 1 << 20
_TRISTATE = {"n": 0, "y": 1, "m": 2}


def read_externs(image: Image) -> tuple[Extern, ...]:
    """The undefined symbols of the object; those in .kconfig ordered and placed as libbpf does."""
    sections = _sections_of_externs(image.btf) if image.btf is not None else {}
    found: dict[str, Extern] = {}
    for symbol in image.file.symbols:
        if symbol.section or not symbol.name or symbol.name in found:
            continue
        section, id = sections.get(symbol.name, ("", 0))
        is_function = image.btf is not None and id != 0 and image.btf.kind(id) is BtfKind.FUNC
        found[symbol.name] = Extern(symbol.name, section, symbol.is_weak, is_function, id)
    others = [extern for extern in found.values() if extern.section != ".kconfig"]
    placed = _place(image, [extern for extern in found.values() if extern.section == ".kconfig"])
    return (*placed, *sorted(others, key=lambda extern: extern.name))


def kconfig_content(image: Image, externs: tuple[Extern, ...], values: Mapping[str, str]) -> bytes:
    """The value of the .kconfig map, b'' when the object has none; `values` are as in a kernel's .config."""
    content = bytearray()
    order: Literal["big", "little"] = "big" if image.file.big_endian else "little"
    for extern in externs:
        if extern.section != ".kconfig" or image.btf is None:
            continue
        type_id = _type_of(image.btf, extern)
        size = image.btf.size_of(type_id)
        content += bytes(extern.offset - len(content))
        text = values.get(extern.name, DEFAULTS.get(extern.name))
        if text is None:
            if not extern.is_weak:
                said = f"'{extern.name}' is not configured; it reads as 0"
                image.warn("kconfig-unset", said, Location(image.file.name, ".kconfig"))
            content += bytes(size)
            continue
        value = _encode(image.btf.type(image.btf.strip(type_id)), text, size, order)
        if value is None:
            said = f"'{extern.name}' cannot hold the configured value {text!r}"
            image.problem("bad-kconfig", said, Location(image.file.name, ".kconfig"))
        content += bytes(size) if value is None else value
    return bytes(content)


def _sections_of_externs(btf: Btf) -> dict[str, tuple[str, int]]:
    """Name to section and BTF id of each variable and function declared in .kconfig and .ksyms."""
    found: dict[str, tuple[str, int]] = {}
    for name in (".kconfig", ".ksyms"):
        for id in btf.find(name, BtfKind.DATASEC):
            section = btf.type(id)
            assert isinstance(section, DataSection)
            for entry in section.entries:
                found.setdefault(btf.name(entry.type_id), (name, entry.type_id))
    return found


def _place(image: Image, externs: list[Extern]) -> list[Extern]:
    """Give each .kconfig extern its offset: by alignment (largest first), size and name."""
    btf = image.btf
    if btf is None:
        return []
    measured: list[tuple[int, int, str, Extern]] = []
    for extern in externs:
        at = Location(image.file.name, ".kconfig")
        try:
            type_id = _type_of(btf, extern)
            size, alignment = btf.size_of(type_id), _alignment(btf, type_id)
            is_supported = _is_supported(btf, type_id)
        except DiagnosticError as error:
            image.problems += error.diagnostics
            continue
        if extern.is_function or not is_supported or not 0 < size <= MAX_KCONFIG:
            said = f"'{extern.name}' is not an integer, bool, tristate or string, as __kconfig wants"
            image.problem("bad-kconfig", said, at)
            continue
        measured.append((-alignment, size, extern.name, extern))
    placed: list[Extern] = []
    end = 0
    for negative_alignment, size, _, extern in sorted(measured, key=lambda entry: entry[:3]):
        start = end - end % negative_alignment
        placed.append(replace(extern, offset=start))
        end = start + size
    return placed


def _type_of(btf: Btf, extern: Extern) -> int:
    match btf.type(extern.btf_id):
        case Variable(type_id=id) | Function(type_id=id):
            return id
    return 0


def _alignment(btf: Btf, id: int) -> int:
    for _ in range(MAX_DEPTH):
        match btf.type(btf.strip(id)):
            case Array(element_id=inner):
                id = inner
            case Int(size=size) | Enum(size=size) if size in (1, 2, 4, 8, 16):
                return min(size, 8)
            case Pointer():
                return 8
            case _:
                return 1
    return 1


def _is_supported(btf: Btf, id: int) -> bool:
    match btf.type(btf.strip(id)):
        case Int(size=size, is_bool=is_bool):
            return size == 1 if is_bool else size in (1, 2, 4, 8)
        case Enum(name=name, size=size):
            return name == "libbpf_tristate" and size in (4, 8)
        case Array(element_id=inner, count=count):
            return count > 0 and isinstance(btf.type(btf.strip(inner)), Int) and btf.size_of(inner) == 1
    return False


def _encode(type: Type, text: str, size: int, order: Literal["big", "little"]) -> bytes | None:
    """`text` ("y", "\\"string\\"", "0x10") as a value of `type`, None when it does not fit."""
    is_string = len(text) >= 2 and text[0] == text[-1] == '"'
    match type:
        case Array():
            return text[1:-1].encode()[: size - 1].ljust(size, b"\0") if is_string else None
        case Enum():
            value = _TRISTATE.get(text)
        case Int(is_bool=True):
            value = {"n": 0, "y": 1, "0": 0, "1": 1}.get(text)
        case Int(size=1) if text in _TRISTATE:
            value = ord(text)
        case _:
            value = _parse(text)
    if value is None:
        return None
    signed = isinstance(type, Int) and type.is_signed
    limit = 1 << 8 * size
    low, high = (-limit // 2, limit // 2) if signed else (0, limit)
    if size < 8 and not low <= value < high:
        return None
    return (value & limit - 1).to_bytes(size, order)


def _parse(text: str) -> int | None:
    try:
        return int(text, 8) if text.isdigit() and text.startswith("0") else int(text, 0)
    except ValueError:
        return None
