"""A native helper's row: how it is emitted and what callers must know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from backends.writer import Writer
from ir.kinds import ProgramType
from ir.object import Map

ENOTSUPP: Final = 524  # what programs see where the host says EOPNOTSUPP


@final
@dataclass(frozen=True, slots=True)
class Site:
    """Where a helper is called: in programs of which type, with which map argument if any. `trusts`: what the
    program passes was proved right, so nothing needs a check at run time. `has_xdp_buff`: where a kernel has a struct
    xdp_buff, there is the header of a context.
    """

    program_type: ProgramType = ProgramType.UNSPEC
    map: Map | None = None
    trusts: bool = False
    has_xdp_buff: bool = False

    @property
    def known_map(self) -> Map:
        """The map, for helpers that need one."""
        assert self.map is not None, "asked for with a map"
        return self.map


def operation_symbol(name: str, map: Map) -> str:
    """The symbol of a map's operation in the program's module."""
    return f"bpfc.{name}.{map.name}"


@final
@dataclass(frozen=True, slots=True)
class HelperRow:
    """`emit` writes the body, with parameters run and r1..rN. `needs_map`: there is one form for each map;
    `may_trap`: callers must look at the trap code; `parts`: functions of backends/natives that it calls;
    `operations`: those of the map that it calls, as `operation_symbol` names them.
    """

    emit: Callable[[Writer, Site], None]
    is_small: bool = True
    needs_map: bool = False
    may_trap: bool = False
    operations: tuple[str, ...] = ()
    returns_pointer: bool = False
    parts: tuple[str, ...] = ()
