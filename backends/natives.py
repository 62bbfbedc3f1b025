"""Helpers that need no host: which they are, and their definitions for one program's module.

A Natives collects what lowering asks for; `text()` is the IR to put beside the program. A helper that the
user overrides, or that works on a map nobody knows while compiling, is not native: it goes to the host as
`helper.<id>`.
"""

from __future__ import annotations

from typing import Final, final

from backends.calls import NativeHelper
from backends.helpers.memory import READ, read_part
from backends.helpers.row import Site, operation_symbol
from backends.helpers.segments import IN_SEGMENT, in_segment_part
from backends.helpers.table import EMITTERS
from backends.maps.elements import part
from backends.maps.operation import SIGNATURES
from backends.maps.registry import emit_known, operation_of
from backends.writer import Writer
from ir.helpers import Argument, ArgumentKind, Helper
from ir.kinds import ProgramType
from ir.object import Map

MAP_OPERATIONS: Final = {
    "map_lookup_elem": "lookup",
    "map_update_elem": "update",
    "map_delete_elem": "delete",
    "map_push_elem": "push",
    "map_pop_elem": "pop",
    "map_peek_elem": "peek",
    "map_lookup_percpu_elem": "lookup_cpu",
    "for_each_map_elem": "each",
    "ringbuf_reserve": "reserve",
    "ringbuf_output": "output",
    "ringbuf_query": "query",
}
_NUMBERS: Final = (ArgumentKind.ANYTHING, ArgumentKind.SIZE, ArgumentKind.ALLOC_SIZE)


@final
class NativeHelpers:
    """The native helpers of one program's module; `overridden` helpers are left to the host.

    `trusts`: the program was verified, so what it passes needs no check. `word` is a pointer's size.
    """

    def __init__(
        self,
        overridden: frozenset[int] = frozenset(),
        program_type: ProgramType = ProgramType.UNSPEC,
        trusts: bool = False,
        has_xdp_buff: bool = False,
        word: int = 8,
    ) -> None:
        self._word = word
        self._overridden, self._type, self._trusts = overridden, program_type, trusts
        self._has_xdp_buff = has_xdp_buff
        self._found: dict[str, NativeHelper] = {}
        self._texts: dict[str, str] = {}
        self._declared: dict[str, str] = {}

    def find(self, helper: Helper, map: Map | None) -> NativeHelper | None:
        """The native form of `helper` for this map, or None."""
        if helper.id and helper.id in self._overridden:
            return None
        operation = MAP_OPERATIONS.get(helper.name)
        if operation is not None:
            return self._map_operation(operation, map) if map is not None else None
        return self._helper(helper, map)

    @property
    def externals(self) -> tuple[str, ...]:
        """The symbols that the definitions leave to the linker."""
        return tuple(sorted(name for name in self._declared if not name.startswith("llvm.")))

    def text(self) -> str:
        """The definitions of everything found so far."""
        declared = [f"declare {signature}" for _, signature in sorted(self._declared.items())]
        return "\n".join([*declared, *(text for _, text in sorted(self._texts.items()))])

    def _map_operation(self, operation: str, map: Map) -> NativeHelper | None:
        if operation_of(map.type, operation) is None:
            return None
        symbol = operation_symbol(operation, map)
        if symbol not in self._found:
            emitted = emit_known(symbol, map, operation, self._word)
            self._texts[symbol] = emitted.text
            self._declared.update(emitted.externals)
            self._add_parts(emitted.parts)
            self._found[symbol] = NativeHelper(symbol, SIGNATURES[operation][0], may_trap=operation == "each")
        return self._found[symbol]

    def _helper(self, helper: Helper, map: Map | None) -> NativeHelper | None:
        row = EMITTERS.get(helper.name)
        if row is None or (row.needs_map and map is None):
            return None
        symbol = (
            f"bpfc.{helper.name}.{map.name}" if map is not None and row.needs_map else f"bpfc.{helper.name}"
        )
        if symbol not in self._found:
            returns = "ptr" if row.returns_pointer else "i64"
            params = [
                ("ptr", "run"),
                *(_parameter(n, argument) for n, argument in enumerate(helper.arguments)),
            ]
            inline = "alwaysinline" if row.is_small else "noinline"
            writer = Writer(
                symbol, *params, returns=returns, attributes=f"internal {inline} nounwind", word=self._word
            )
            row.emit(writer, Site(self._type, map, self._trusts, self._has_xdp_buff))
            self._texts[symbol] = writer.text()
            self._declared.update(writer.externals)
            self._add_parts(row.parts)
            for operation in row.operations:
                assert map is not None, "operations are of a map"
                self._map_operation(operation, map)
            self._found[symbol] = NativeHelper(symbol, returns, row.may_trap)
        return self._found[symbol]

    def _add_parts(self, parts: tuple[str, ...]) -> None:
        for name in parts:
            if name in self._texts:
                continue
            if name == READ:
                self._texts[name], externals = read_part()
                self._declared.update(externals)
            else:
                self._texts[name] = in_segment_part() if name == IN_SEGMENT else part(name)


def _parameter(number: int, argument: Argument) -> tuple[str, str]:
    return ("i64" if argument.kind in _NUMBERS else "ptr", f"r{number + 1}")
