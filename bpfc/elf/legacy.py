"""Maps of a section "maps": an array of struct bpf_map_def, from before BTF described maps.

    byte   0      4          8            12            16       20
         +------+----------+------------+-------------+--------+- - - - - - - - - - - - - - - - - - - - - -
         | type | key_size | value_size | max_entries | flags  | more, by a newer or another loader's header
         +------+----------+------------+-------------+--------+- - - - - - - - - - - - - - - - - - - - - -

Every symbol of the section starts one, all of one size. iproute2 adds id, pinning, inner id and inner index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from struct import Struct as Layout

from bpfc.elf.declared import MAPS_OF_MAPS
from bpfc.elf.file import ElfSymbol, Section
from bpfc.elf.image import Image
from ir.kinds import MapType
from ir.object import Map

EOPNOTSUPP = 95
_NUMBERS = 5
_IPROUTE2_SIZE = 36


def read_legacy(image: Image) -> list[Map]:
    """The maps of every section "maps", "maps/..." or ".../maps", in the order of their offsets."""
    maps: list[Map] = []
    for section in image.file.sections:
        if section.type == "SHT_PROGBITS" and not section.is_code and is_legacy(section.name):
            maps += _read_section(image, section)
    return maps


def is_legacy(name: str) -> bool:
    """Whether a section of this name holds maps by definition structs."""
    return "maps" in (name.partition("/")[0], name.rpartition("/")[2])


def _read_section(image: Image, section: Section) -> list[Map]:
    at = image.file.at(section)
    symbols = [symbol for symbol in image.symbols(section) if symbol.name and not symbol.is_section]
    symbols.sort(key=lambda symbol: symbol.offset)
    if not symbols:
        if section.size:
            image.problem("bad-map", "maps have no symbols to name them", at)
        return []
    size, rest = divmod(len(section.data), len(symbols))
    if rest or size < 4 * (_NUMBERS - 1) or size % 4:
        said = (
            f"{len(symbols)} maps in {section.size} bytes are not of one size, at least {4 * (_NUMBERS - 1)}"
        )
        image.problem("bad-map", said, at)
        return []
    layout = Layout(f"{image.order}{size // 4}I")
    maps: list[Map] = []
    ids: dict[int, Map] = {}
    inner_ids: dict[str, int] = {}
    for number, symbol in enumerate(symbols):
        if symbol.offset != number * size:
            image.problem("bad-map", f"map '{symbol.name}' is not at a multiple of {size} bytes", at)
            return []
        words = layout.unpack_from(section.data, symbol.offset)
        found = _read_definition(image, section, symbol, words)
        if found is None:
            continue
        if size == _IPROUTE2_SIZE:
            id, pinning, inner_id, _ = words[_NUMBERS:]
            found = replace(found, is_pinned=pinning != 0)
            ids.setdefault(id, found)
            inner_ids[found.name] = inner_id
        maps.append(found)
    return [
        replace(found, inner=ids.get(inner_ids.get(found.name, 0))) if found.type in MAPS_OF_MAPS else found
        for found in maps
    ]


def _read_definition(image: Image, section: Section, symbol: ElfSymbol, words: Sequence[int]) -> Map | None:
    at = image.file.at(section, symbol.offset)
    type, key_size, value_size, max_entries, flags = (*words[:_NUMBERS], 0)[:_NUMBERS]
    if symbol.is_local:
        image.problem("static-map", f"map '{symbol.name}' is static, wanted global", at, EOPNOTSUPP)
        return None
    if not 0 < type < len(MapType):
        image.problem("bad-map", f"map '{symbol.name}' has type {type}, which is not known", at)
        return None
    more = words[_NUMBERS:]
    if any(more) and 4 * len(words) != _IPROUTE2_SIZE:
        said = f"map '{symbol.name}' has options that are not known: {', '.join(map(hex, more))}"
        image.problem("unknown-map-options", said, at)
        return None
    return Map(
        symbol.name,
        MapType(type),
        key_size,
        value_size,
        max_entries,
        flags,
        section=section.name,
        offset=symbol.offset,
    )
