"""Ahead of time: programs and their maps as one module that a C program links against (bpfc/include/bpfc_aot.h).

    bpfc_object_NAME    -> programs: name, entry, batch loop, what the context is
                           maps: name, block, layout, operations
    bpfc_init_NAME      fills the maps' blocks: headers, initial values, tail-call tables

The maps' blocks are zeroed memory of the module, so that an object file stays small; their operations are the ones that
the runtime itself uses, for all maps of a type. What is left open are helpers without native form, bpfc_helper_ID,
kernel functions, bpfc_kfunc_NAME, and a few functions of the C library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from backends.abi import batch_symbol
from backends.c_names import c_identifier
from backends.maps.operation import SIGNATURES
from backends.maps.registry import OPERATIONS, host_module, host_symbol
from backends.unit import quote
from ir import map_layout
from ir.context import layout_of as context_of
from ir.kinds import MapFlag, MapType, ProgramType
from ir.maps import HASHES, PAGE, SLOT_ARRAYS
from ir.object import Map, Program

VERSION: Final = 2
SUPPORTED: Final = frozenset(
    (
        *(MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.LPM_TRIE, MapType.QUEUE, MapType.STACK),
        *(MapType.BLOOM_FILTER, MapType.PROG_ARRAY),
        *HASHES,
        *(SLOT_ARRAYS - {MapType.ARRAY_OF_MAPS}),
    )
)
"""Map types whose blocks can stand in a module: no memory mapped twice, no addresses of other maps in them."""
_OPERATIONS: Final = ("locate", "update", "delete", "push", "pop", "peek", "put")
_OPEN: Final = {"helper.": "bpfc_helper_", "kfunc.": "bpfc_kfunc_", "ksym.": "bpfc_ksym_"}
_RAW, _PACKET, _PLAIN = 0, 1, 2  # what r1 is: enum bpfc_context_kind


def object_symbol(name: str) -> str:
    """The symbol of the table of an object's programs and maps."""
    return f"bpfc_object_{c_identifier(name)}"


def program_symbol(name: str) -> str:
    """The symbol of a program's entry."""
    return f"bpfc_program_{c_identifier(name)}"


def close_module(module: Any, program: Program, owner: str) -> None:
    """Rename what a program's LLVM module shows and wants; everything else becomes internal to it.

    `owner` is the object's name: its maps are told apart from those of others by it.
    """
    shown = {program.name: program_symbol(program.name)}
    shown[batch_symbol(program.name)] = f"{program_symbol(program.name)}_batch"
    for function in module.functions:
        if function.is_declaration:
            function.name = _open_name(function.name, owner)
        elif function.name in shown:
            function.name = shown[function.name]
        else:
            function.linkage = "internal"
            function.name = f"{owner}.{program.name}.{function.name}"
    for variable in module.global_variables:
        if variable.is_declaration:
            variable.name = _open_name(variable.name, owner)


def _open_name(name: str, owner: str) -> str:
    if name.startswith(("map.", "value.")):
        return f"{owner}.{name}"
    for prefix, new in _OPEN.items():
        if name.startswith(prefix):
            return new + c_identifier(name[len(prefix) :])
    return name


def world_text(
    name: str, programs: Sequence[Program], maps: Mapping[str, Map], cpus: int, big_endian: bool
) -> list[str]:
    """LLVM IR, as modules: the maps with their table, then the operations of each type."""
    order = ">" if big_endian else "<"
    types = sorted({map_.type for map_ in maps.values()})
    lines = [*_map_lines(name, maps, cpus), *_init_lines(name, programs, maps, cpus, order)]
    lines += _table_lines(name, programs, maps, cpus)
    lines += [_declaration(type, operation) for type in types for operation in _known(type)]
    return ["\n".join([*lines, ""]), *map(host_module, types)]


def _block(owner: str, name: str) -> str:
    """A map's memory, as an operand."""
    return f"@{quote(f'{owner}.map.{name}')}"


def _map_lines(owner: str, maps: Mapping[str, Map], cpus: int) -> Iterator[str]:
    for name, map_ in maps.items():
        layout = map_layout.layout_of(map_, cpus)
        block = _block(owner, name)
        align = PAGE if map_.flags & MapFlag.MMAPABLE else map_layout.LINE
        yield f"{block} = global [{layout.size} x i8] zeroinitializer, align {align}"
        place = f"getelementptr inbounds (i8, ptr {block}, i64 {layout.values_offset})"
        yield f"@{quote(f'{owner}.value.{name}')} = alias i8, ptr {place}"


def _init_lines(
    name: str, programs: Sequence[Program], maps: Mapping[str, Map], cpus: int, order: str
) -> Iterator[str]:
    """`void bpfc_init_NAME(u64 seed)`: as new; hashes are seeded by `seed`."""
    known = {program.name for program in programs}
    body: list[str] = []
    for name_, map_ in maps.items():
        block = _block(name, name_)
        size = map_layout.layout_of(map_, cpus).size
        body.append(f"  call void @llvm.memset.p0.i64(ptr {block}, i8 0, i64 {size}, i1 false)")
        for number, (offset, content) in enumerate(map_layout.first_bytes(map_, cpus, 0, order)):
            if not any(content):
                continue
            first = f"@{quote(f'first.{name_}.{number}')}"
            yield f"{first} = internal constant [{len(content)} x i8] {_bytes(content)}"
            place = f"getelementptr (i8, ptr {block}, i64 {offset})"
            body.append(
                f"  call void @llvm.memcpy.p0.p0.i64(ptr {place}, ptr {first}, i64 {len(content)}, i1 false)"
            )
        if map_.type in HASHES:
            body.append(f"  store i64 %seed, ptr getelementptr (i8, ptr {block}, i64 {map_layout.SEED})")
        for index, program in map_.slots if map_.type is MapType.PROG_ARRAY else ():
            if program in known:
                slot = map_layout.DATA + map_layout.SLOT_STRIDE * index
                body.append(
                    f"  store ptr @{program_symbol(program)}, ptr getelementptr (i8, ptr {block}, i64 {slot})"
                )
    yield f"define void @bpfc_init_{c_identifier(name)}(i64 %seed) nounwind {{"
    yield from body
    yield "  ret void\n}"
    yield "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)"
    yield "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)"


def _table_lines(name: str, programs: Sequence[Program], maps: Mapping[str, Map], cpus: int) -> Iterator[str]:
    yield "%program = type { ptr, ptr, ptr, i32, i32, i32, i32 }"
    yield (
        "%map = type { ptr, ptr, i32, i32, i32, i32, i32, i32, i64, i64, i64, i64, i64, "
        + ", ".join(["ptr"] * len(_OPERATIONS))
        + " }"
    )
    yield "%object = type { i32, i32, i32, i32, ptr, ptr, ptr }"
    rows: list[str] = []
    for program in programs:
        yield from _string(f"name.program.{program.name}", program.name)
        rows.append(_program_row(program))
        raw = context_of(program.type).is_raw
        entry = program_symbol(program.name)
        yield f"declare i64 @{entry}(ptr, ptr{', i64' if raw else ''})"
        yield f"declare i64 @{entry}_batch(ptr, ptr, ptr, ptr, i64, i64, ptr, i64)"
    yield f"@programs = internal constant [{len(rows)} x %program] [{', '.join(rows)}]"
    rows = []
    for map_name, map_ in maps.items():
        yield from _string(f"name.map.{map_name}", map_name)
        rows.append(_map_row(name, map_, cpus))
    yield f"@maps = internal constant [{len(rows)} x %map] [{', '.join(rows)}]"
    fields = f"i32 {VERSION}, i32 {len(programs)}, i32 {len(maps)}, i32 {cpus}"
    tables = f"ptr @programs, ptr @maps, ptr @bpfc_init_{c_identifier(name)}"
    yield f"@{object_symbol(name)} = constant %object {{ {fields}, {tables} }}"


def _program_row(program: Program) -> str:
    layout = context_of(program.type)
    kind = _RAW if layout.is_raw else _PACKET if layout.pointers else _PLAIN
    length = layout.fields["len"][0] if "len" in layout.fields else -1
    type_ = 0 if program.type is ProgramType.UNSPEC else int(program.type)
    entry = program_symbol(program.name)
    pointers = f"ptr @{quote(f'name.program.{program.name}')}, ptr @{entry}, ptr @{entry}_batch"
    return f"%program {{ {pointers}, i32 {type_}, i32 {kind}, i32 {layout.size}, i32 {length} }}"


def _map_row(owner: str, map_: Map, cpus: int) -> str:
    layout = map_layout.layout_of(map_, cpus)
    sizes = (map_layout.key_bytes(map_), map_layout.value_bytes(map_))
    numbers = (int(map_.type), *sizes, map_.max_entries, map_.flags, cpus)
    places = map_layout.value_places(map_, cpus)
    end = places.end if places is not None else 0
    longs = (layout.values_offset, end, layout.value_stride, layout.cpu_stride, layout.size)
    known = _known(map_.type)
    operations = [
        f"ptr @{quote(host_symbol(map_.type, each))}" if each in known else "ptr null" for each in _OPERATIONS
    ]
    fields = [
        f"ptr @{quote(f'name.map.{map_.name}')}",
        f"ptr {_block(owner, map_.name)}",
        *(f"i32 {number}" for number in numbers),
        *(f"i64 {number}" for number in longs),
        *operations,
    ]
    return f"%map {{ {', '.join(fields)} }}"


def _known(type: MapType) -> list[str]:
    return [name for name in _OPERATIONS if name in OPERATIONS[type]]


def _declaration(type: MapType, operation: str) -> str:
    returns, params = SIGNATURES[operation]
    types = ", ".join(kind for kind, _ in params)
    return f"declare {returns} @{quote(host_symbol(type, operation))}({types})"


def _string(symbol: str, text: str) -> Iterator[str]:
    content = text.encode() + b"\0"
    yield f"@{quote(symbol)} = internal constant [{len(content)} x i8] {_bytes(content)}"


def _bytes(content: bytes) -> str:
    return 'c"' + "".join(f"\\{byte:02X}" for byte in content) + '"'
