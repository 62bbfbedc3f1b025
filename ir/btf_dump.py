"""Types as text: one line per record, as bpftool btf dump prints them.

[3] STRUCT 'list_head' size=16 vlen=2
        'next' type_id=4 bits_offset=0
        'prev' type_id=4 bits_offset=64
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ir.btf import Btf
from ir.btf_types import (
    Array,
    BtfKind,
    DataSection,
    DeclTag,
    Enum,
    Float,
    Forward,
    Function,
    Int,
    Linkage,
    Pointer,
    Prototype,
    Qualifier,
    Struct,
    Type,
    Typedef,
    TypeTag,
    Variable,
)

_LINKAGES = {Linkage.STATIC: "static", Linkage.GLOBAL: "global", Linkage.EXTERN: "extern"}


def dump_raw(btf: Btf, ids: Iterable[int] | None = None) -> Iterator[str]:
    """The lines that show the types `ids`, all of the section's own by default. Raises UnreadableError."""
    for id in btf.ids() if ids is None else ids:
        of = btf.type(id)
        yield f"[{id}] {btf.kind(id).name} '{btf.name(id) or '(anon)'}'{_fields(of)}"
        yield from _elements(btf, of)


def _fields(of: Type) -> str:
    match of:
        case Int(is_signed=is_signed, is_char=is_char, is_bool=is_bool):
            encoding = "SIGNED" if is_signed else "CHAR" if is_char else "BOOL" if is_bool else "(none)"
            return f" size={of.size} bits_offset={of.bit_offset} nr_bits={of.bits} encoding={encoding}"
        case Pointer(type_id=id) | Typedef(type_id=id) | Qualifier(type_id=id) | TypeTag(type_id=id):
            return f" type_id={id}"
        case Array():
            return f" type_id={of.element_id} index_type_id={of.index_id} nr_elems={of.count}"
        case Struct():
            return f" size={of.size} vlen={len(of.members)}"
        case Enum():
            encoding = "SIGNED" if of.is_signed else "UNSIGNED"
            return f" encoding={encoding} size={of.size} vlen={len(of.values)}"
        case Forward():
            return f" fwd_kind={'union' if of.is_union else 'struct'}"
        case Function():
            return f" type_id={of.type_id} linkage={_LINKAGES[of.linkage]}"
        case Prototype():
            return f" ret_type_id={of.returns} vlen={len(of.parameters) + of.is_variadic}"
        case Variable():
            return f" type_id={of.type_id}, linkage={_LINKAGES[of.linkage]}"
        case DataSection():
            return f" size={of.size} vlen={len(of.entries)}"
        case Float():
            return f" size={of.size}"
        case DeclTag():
            return f" type_id={of.type_id} component_idx={of.component}"
    return ""


def _elements(btf: Btf, of: Type) -> Iterator[str]:
    match of:
        case Struct():
            for member in of.members:
                size = f" bitfield_size={member.bit_size}" if member.bit_size else ""
                name = member.name or "(anon)"
                yield f"\t'{name}' type_id={member.type_id} bits_offset={member.bit_offset}{size}"
        case Enum():
            suffix = "" if not of.is_wide else "LL" if of.is_signed else "ULL"
            for value in of.values:
                yield f"\t'{value.name or '(anon)'}' val={value.value}{suffix}"
        case Prototype():
            for parameter in of.parameters:
                yield f"\t'{parameter.name or '(anon)'}' type_id={parameter.type_id}"
            if of.is_variadic:
                yield "\t'(anon)' type_id=0"
        case DataSection():
            for entry in of.entries:
                kind, name = btf.kind(entry.type_id), btf.name(entry.type_id)
                what = f" ({kind.name} '{name}')" if kind in (BtfKind.VAR, BtfKind.FUNC) else ""
                yield f"\ttype_id={entry.type_id} offset={entry.offset} size={entry.size}{what}"
