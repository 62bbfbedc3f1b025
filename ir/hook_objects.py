"""Structures that programs around functions find behind their context.

What such a program sees where a kernel has a struct xdp_buff is the header of the XDP program's own context:

    header    0       8          16          24                40        64
              | data  | data_end | data_meta | packet_start |  | rxq     | image of struct xdp_md
    rxq       0       8
              | dev   | queue_index 4 |
    dev       | ifindex 4 |

Only these members exist. Programs are fitted to them (CO-RE), so it does not matter where their own headers have them.
A session's cookie is one word that its program has from entry to exit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, final

from ir.btf import Btf, essential_name, read_btf
from ir.btf_encode import encode_btf
from ir.btf_types import Int, Member, Pointer, Struct, Type
from ir.core_relocation import relocate
from ir.object import Program

_INT: Final = 4
_WORD: Final = 8


@final
@dataclass(frozen=True, slots=True)
class HookObject:
    """A structure of `size` bytes; `members` are (offset, size), `pointers` the structures that some point to."""

    size: int
    members: Mapping[str, tuple[int, int]]
    pointers: Mapping[int, str]
    is_writable: bool = False


XDP_BUFF: Final = "xdp_buff"
RXQ_OFFSET: Final = 40  # in the header
OBJECTS: Final[Mapping[str, HookObject]] = {
    XDP_BUFF: HookObject(
        48,
        {
            "data": (0, 8),
            "data_end": (8, 8),
            "data_meta": (16, 8),
            "data_hard_start": (24, 8),
            "rxq": (40, 8),
        },
        {RXQ_OFFSET: "xdp_rxq_info"},
    ),
    "xdp_rxq_info": HookObject(16, {"dev": (0, 8), "queue_index": (8, 4)}, {0: "net_device"}),
    "net_device": HookObject(4, {"ifindex": (0, 4)}, {}),
}
SESSION_COOKIE: Final = "session cookie"
WITHOUT_TYPE: Final[Mapping[str, HookObject]] = {SESSION_COOKIE: HookObject(8, {}, {}, is_writable=True)}


def object_named(name: str) -> HookObject:
    """The structure that a region names."""
    return OBJECTS.get(name) or WITHOUT_TYPE[name]


def fit_to_objects(program: Program, local: Btf | None) -> Program:
    """`program` with its accesses to members of these structures at the places that they have here.

    Other relocations are as they were. Raises RejectedError for malformed ones.
    """
    if local is None or not program.core:
        return program
    mine = {
        slot: relocation
        for slot, relocation in program.core.items()
        if essential_name(local.name(relocation.type_id)) in OBJECTS
    }
    fitted = relocate(replace(program, core=mine), local, _types())
    others = {slot: relocation for slot, relocation in program.core.items() if slot not in mine}
    return replace(fitted, core=others, poisoned={**program.poisoned, **fitted.poisoned})


@cache
def _types() -> Btf:
    """The structures as BTF: int, void *, then for each a struct and a pointer to it."""
    ids = {name: 3 + 2 * number for number, name in enumerate(OBJECTS)}
    types: list[Type] = [Int("int", _INT, 8 * _INT, is_signed=True), Pointer(0)]
    for name, object_ in OBJECTS.items():
        members = []
        for member, (offset, size) in object_.members.items():
            pointed = object_.pointers.get(offset)
            type_id = 1 if size == _INT else 2 if pointed is None else ids[pointed] + 1
            members.append(Member(member, type_id, 8 * offset))
        types += [Struct(name, False, object_.size, tuple(members)), Pointer(ids[name])]
    return read_btf(encode_btf(types))
