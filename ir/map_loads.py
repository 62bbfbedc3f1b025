"""Wide loads that name a map by a number, as programs that no ELF file describes have them (kernel:
resolve_pseudo_ldimm64).

    kind           low half                  high half
    MAP_FD         map's descriptor          0
    MAP_VALUE      map's descriptor          byte offset in the value of an array of one entry
    MAP_IDX        index into the fd array   0
    MAP_IDX_VALUE  index into the fd array   byte offset

Here a descriptor is any number that the caller gave a map. Binding replaces the numbers with references by
name; `numbered` is the way back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from errno import EBADF, EFAULT, EINVAL, EPROTO
from typing import Final

from ir.diagnostics import Diagnostic, RejectedError
from ir.isa import WIDE_OPCODE, Insn, Wide
from ir.object import Map, Program, Reference, ReferenceKind

_INDEXED: Final = (Wide.MAP_IDX.value, Wide.MAP_IDX_VALUE.value)
_VALUES: Final = (Wide.MAP_VALUE.value, Wide.MAP_IDX_VALUE.value)
_MAPS: Final = (Wide.MAP_FD.value, Wide.MAP_IDX.value, *_VALUES)
_LOW: Final = 0xFFFF_FFFF


def bind_maps(program: Program, maps: Mapping[int, Map], fd_array: Sequence[int] | None = None) -> Program:
    """`program` with its wide loads of maps bound to `maps`, by descriptor or by index into `fd_array`.

    Loads that have a reference already are left alone. Raises RejectedError with Linux's errno: EBADF,
    EINVAL, EPROTO, EFAULT, EOPNOTSUPP.
    """
    references = dict(program.references)
    problems: list[Diagnostic] = []
    for slot, insn in _map_loads(program):
        found = _bind(insn, maps, fd_array)
        if isinstance(found, Diagnostic):
            problems.append(replace(found, at=program.location(slot)))
        else:
            references[slot] = found
    if problems:
        raise RejectedError(problems)
    return replace(program, references=references)


def numbered(program: Program, ids: Mapping[str, int]) -> tuple[Insn, ...]:
    """The instructions with the references to maps as numbers again: `map[id:N]` and `map[id:N][0]+offset` of
    a dump.
    """
    insns = list(program.insns)
    for number, (slot, insn) in enumerate(zip(program.starts, program.insns, strict=False)):
        reference = program.references.get(slot)
        if reference is None or reference.kind not in (ReferenceKind.MAP, ReferenceKind.MAP_VALUE):
            continue
        is_value = reference.kind is ReferenceKind.MAP_VALUE
        kind = Wide.MAP_VALUE if is_value else Wide.MAP_FD
        imm = ids[reference.name] | (reference.offset << 32 if is_value else 0)
        insns[number] = insn._replace(src=kind.value, imm=imm)
    return tuple(insns)


def _map_loads(program: Program) -> Iterator[tuple[int, Insn]]:
    for slot, insn in zip(program.starts, program.insns, strict=False):
        if insn.opcode == WIDE_OPCODE and insn.src in _MAPS and slot not in program.references:
            yield slot, insn


def _bind(insn: Insn, maps: Mapping[int, Map], fd_array: Sequence[int] | None) -> Reference | Diagnostic:
    low, high = insn.imm & _LOW, insn.imm >> 32 & _LOW
    if insn.src in _INDEXED:
        if fd_array is None:
            return Diagnostic("no-fd-array", "a map is named by index and there is no fd array", errno=EPROTO)
        if low >= len(fd_array):
            said = f"index {low} is outside the fd array of {len(fd_array)} entries"
            return Diagnostic("fd-array-index", said, errno=EFAULT)
        low = fd_array[low]
    map = maps.get(low)
    if map is None:
        return Diagnostic("bad-map-descriptor", f"descriptor {low} is no map", errno=EBADF)
    if insn.src not in _VALUES:
        if high:
            said = f"the second half of a load of a map is {high}, wanted 0"
            return Diagnostic("bad-wide-load", said, errno=EINVAL)
        return Reference(ReferenceKind.MAP, map.name)
    from ir.maps import (
        check_direct_value,  # late: what Linux takes of maps, and few loads name a map by a number
    )

    return check_direct_value(map, high) or Reference(ReferenceKind.MAP_VALUE, map.name, high)
