"""The text form of the SSA form: what `ir/parse.py` reads back, golden tests hold and `bpfc dump ir` prints.

    function main (v0: r1, v1: r2) global:
    block 0:
      v2 = ldx32 [v0 + 4]
      v3 = call helper map_lookup_elem (v1, v2)
      if jeq64 v3, 0: block 2 else block 1 (v2)
    block 1 (v4: r6):
      ...

An instruction is the name of its row; `imm` and `reg` rows print alike. A constant made right before its
only user is written in place. Slots (`@12`) and C lines (comments) are optional; without slots a parsed
function has none.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, assert_never, final

from ir.core import (
    Address,
    Alu,
    Atomic,
    Branch,
    Call,
    Const,
    Edge,
    Frame,
    Function,
    Inst,
    Jump,
    Load,
    MayGoto,
    Module,
    PacketLoad,
    Param,
    Return,
    StaticBranch,
    Store,
    Terminator,
    Value,
    operands,
)
from ir.helpers import HELPERS
from ir.isa import Callee, Row
from ir.kinds import ProgramType
from ir.object import Map, Reference

PLAIN_NAME: Final = re.compile(r"[A-Za-z_.$][\w.$]*")
SMALL: Final = 1 << 16


def format_module(module: Module, slots: bool = False, lines: bool = False, maps: bool = False) -> str:
    """The text of a module: its program's type, its maps' declarations if wanted, its functions."""
    program = module.program
    kind = "" if program.type is ProgramType.UNSPEC else f" type {program.type.name.lower()}"
    order = " big-endian" if program.big_endian else ""
    parts = [f"program {format_name(program.name)}{kind}{order}"]
    if maps:
        parts += [format_map(map_) for map_ in module.maps.values()]
    parts += [format_function(function, slots, lines) for function in module.functions.values()]
    return "\n".join(parts)


def format_map(map_: Map) -> str:
    """One line that declares a map; the content only of a read-only one."""
    sizes = f"key {map_.key_size} value {map_.value_size} entries {map_.max_entries}"
    flags = f" flags {map_.flags:#x}" if map_.flags else ""
    content = map_.initial if map_.is_read_only else None
    data = "" if content is None else f" read-only {content.hex() or '00'}"
    words = "".join(f" relocated {offset}:{size}" for offset, size in map_.relocated) if data else ""
    return f"map {format_name(map_.name)} {map_.type.name.lower()} {sizes}{flags}{data}{words}"


def format_function(function: Function, slots: bool = False, lines: bool = False) -> str:
    """The text of a function; `slots` adds where instructions come from, `lines` the C lines as comments."""
    return "\n".join(_Printer(function, slots, lines).lines())


def format_name(name: str) -> str:
    """A name as it stands, or in quotes when it could be read as something else."""
    return name if PLAIN_NAME.fullmatch(name) else json.dumps(name)


def format_constant(value: int) -> str:
    """An unsigned 64-bit value: small ones in decimal, signed; others in hexadecimal."""
    signed = value - (1 << 64) if value >> 63 else value
    return str(signed) if -SMALL < signed < SMALL else f"{value:#x}"


def row_text(row: Row) -> str:
    """A row's name without its operand form."""
    return row.name.removesuffix(" imm").removesuffix(" reg")


def is_unary(row: Row) -> bool:
    """Whether an ALU row has one operand."""
    return not row.reads_dst or (not row.uses_src and isinstance(row.imm, int))


@final
class _Printer:
    """Prints one function; numbers values as they appear."""

    def __init__(self, function: Function, slots: bool, lines: bool) -> None:
        self.function, self.slots, self.with_lines = function, slots, lines
        self.blocks = {block: number for number, block in enumerate(function.blocks)}
        self.names: dict[Value, str] = {}
        self.source = ""

    def lines(self) -> Iterator[str]:
        """The lines of the function."""
        function, info = self.function, self.function.info
        uses = self._uses()
        for value in self._numbered(uses):
            self.names[value] = f"v{len(self.names)}"
        place = f" slots {info.start} {info.slots}" if self.slots else ""
        linkage = " global" if info.is_global else ""
        yield f"function {format_name(function.name)}{self._params(function.params)}{place}{linkage}:"
        for block, number in self.blocks.items():
            start = f" @{block.start}" if self.slots else ""
            yield f"block {number}{self._params(block.params)}{start}:"
            for item in (*block.insts, block.terminator):
                if isinstance(item, Const) and item not in self.names:
                    self.names[item] = format_constant(item.value)
                    continue
                yield from self._c_line(item)
                yield f"  {self._item(item)}{f'  @{item.at}' if self.slots and item.at >= 0 else ''}"

    def _uses(self) -> Counter[Value]:
        uses: Counter[Value] = Counter()
        for block in self.function.blocks:
            for item in (*block.insts, block.terminator):
                uses.update(operands(item))
        return uses

    def _numbered(self, uses: Counter[Value]) -> Iterator[Value]:
        """The values that get a number: all but stores and constants written in place."""
        yield from self.function.params
        for block in self.function.blocks:
            yield from block.params
            waiting: list[Const] = []
            for item in (*block.insts, block.terminator):
                if isinstance(item, Const) and uses[item] == 1:
                    waiting.append(item)
                    continue
                read = operands(item) if waiting else ()
                in_place = [value for value in read if isinstance(value, Const)]
                yield from (
                    const
                    for const in waiting
                    if not any(const is value for value in in_place) or (self.slots and const.at != item.at)
                )
                waiting = []
                if isinstance(item, Inst) and has_result(item):
                    yield item

    def _params(self, params: list[Param]) -> str:
        said = [
            self.names[param] + (f": r{param.register}" if param.register >= 0 else "") for param in params
        ]
        return f" ({', '.join(said)})" if said else ""

    def _c_line(self, item: Inst | Terminator) -> Iterator[str]:
        if not self.with_lines or item.at < 0:
            return
        line = self.function.location(item.at).source
        if line is not None and str(line) != self.source:
            self.source = str(line)
            yield f"  ; {line.file}:{line.line}: {line.text.strip()}".rstrip()

    def _item(self, item: Inst | Terminator) -> str:
        names = self.names
        result = f"{names[item]} = " if item in names else ""
        match item:
            case Const(value):
                return f"{result}const {format_constant(value)}"
            case Frame():
                return f"{result}frame"
            case Address(reference):
                return f"{result}address {_reference(reference)}"
            case Alu(row, x, y):
                return f"{result}{row_text(row)} {names[x]}" + ("" if is_unary(row) else f", {names[y]}")
            case Load(row, base, offset):
                return f"{result}{row_text(row)} {self._place(base, offset)}"
            case Store(row, base, offset, value):
                return f"{row_text(row)} {self._place(base, offset)}, {names[value]}"
            case Atomic(row, base, offset, value, expected):
                second = "" if expected is None else f" if {names[expected]}"
                return f"{result}{row.name} {self._place(base, offset)}, {names[value]}{second}"
            case PacketLoad(row, context, index, imm):
                place = f"{imm}" if index is None else f"{names[index]} + {imm}"
                return f"{result}{row.name} {names[context]} [{place}]"
            case Call():
                return f"{result}{self._call(item)}"
            case _:
                return self._terminator(item)

    def _terminator(self, item: Terminator) -> str:
        match item:
            case Jump(edge):
                return f"jump {self._edge(edge)}"
            case Branch(row, x, y, taken, other):
                condition = f"if {row_text(row)} {self.names[x]}, {self.names[y]}"
                return f"{condition}: {self._edge(taken)} else {self._edge(other)}"
            case StaticBranch(row, taken, other):
                return f"{row.name}: {self._edge(taken)} else {self._edge(other)}"
            case MayGoto(taken, other):
                return f"may_goto: {self._edge(taken)} else {self._edge(other)}"
            case Return(value):
                return f"return {self.names[value]}"
            case _:
                assert_never(item)

    def _place(self, base: Value, offset: int) -> str:
        return f"[{self.names[base]} {'-' if offset < 0 else '+'} {abs(offset)}]"

    def _call(self, call: Call) -> str:
        args = f" ({', '.join(self.names[arg] for arg in call.args)})" if call.args else ""
        target = call.target
        if call.callee is Callee.HELPER:
            helper = HELPERS.get(target) if isinstance(target, int) else None
            return f"call helper {target if helper is None else helper.name}{args}"
        if isinstance(target, int | str):
            return f"call {call.callee.name.lower()} {format_name(str(target))}{args}"
        return f"call indirect {self.names[target]}{args}"

    def _edge(self, edge: Edge) -> str:
        args = f" ({', '.join(self.names[arg] for arg in edge.args)})" if edge.args else ""
        return f"block {self.blocks[edge.block]}{args}"


def has_result(inst: Inst) -> bool:
    """Whether an instruction is a value that others may read."""
    return not isinstance(inst, Store) and not (
        isinstance(inst, Atomic) and not inst.row.fetches and inst.expected is None
    )


def _reference(reference: Reference) -> str:
    offset = f" + {reference.offset}" if reference.offset else ""
    weak = " weak" if reference.is_weak else ""
    btf = f" btf {reference.btf_id}" if reference.btf_id else ""
    return f"{reference.kind.value} {format_name(reference.name)}{offset}{weak}{btf}"
