"""Reading the text form of the SSA form (see `ir/text.py`); the inverse of printing it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, final

from ir.context import layout_of
from ir.core import (
    Address,
    Alu,
    Atomic,
    Block,
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
    substitute,
)
from ir.diagnostics import SourceLine
from ir.helpers import HELPER_IDS
from ir.isa import NOP_FIRST, REG, ROW_BY_NAME, Callee, Kind, Row
from ir.kinds import MapType, ProgramType
from ir.line_tokens import LineTokens, is_number
from ir.object import FunctionInfo, Map, Program, Reference, ReferenceKind
from ir.text import is_unary

_MASK: Final = (1 << 64) - 1
_REGISTERS: Final = tuple(f"r{number}" for number in REG)
_VALUE: Final = re.compile(r"v\d+")


def parse_module(text: str, file: str = "ir") -> Module:
    """The module that `text` describes. Its program has no instructions. Raises UnreadableError."""
    parser = _Parser(file)
    for number, line in enumerate(text.splitlines(), 1):
        parser.read(SourceLine(file, number, 1, line))
    return parser.finish()


def parse_function(text: str, file: str = "ir") -> Function:
    """The one function that `text` describes. Raises UnreadableError."""
    return parse_module(text, file).main


@final
@dataclass(slots=True)
class _Draft:
    """A function being read; `forward` are stand-ins for values that are used above their line."""

    name: str
    params: list[Param]
    info: FunctionInfo
    blocks: dict[int, Block] = field(default_factory=dict)
    order: list[Block] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    forward: dict[str, Param] = field(default_factory=dict)
    at: SourceLine | None = None


@final
class _Parser:
    """Reads line by line; `line` is what is left of the one it is at."""

    def __init__(self, file: str) -> None:
        self.line = LineTokens(SourceLine(file, 1, 1))
        self.name, self.type, self.big_endian = "main", ProgramType.UNSPEC, False
        self.maps: dict[str, Map] = {}
        self.drafts: list[_Draft] = []
        self.block: Block | None = None
        self.made: list[Inst] = []  # constants written in place, before the instruction that reads them

    def read(self, line: SourceLine) -> None:
        """Take in one line."""
        self.line = LineTokens(line)
        if not self.line.left:
            return
        match self.line.left[0]:
            case "program":
                self._program()
            case "map":
                self._map()
            case "function":
                self._function()
            case "block":
                self._block_header()
            case _:
                self._item()
        if self.line.left:
            self.line.fail(f"'{' '.join(self.line.left)}' is left over")

    def finish(self) -> Module:
        """The module, once every line was read."""
        if not self.drafts:
            self.line.fail("there is no function")
        infos = tuple(draft.info for draft in self.drafts)
        program = Program(self.name, "", self.type, (), infos, big_endian=self.big_endian)
        functions = {draft.name: self._finish(draft, program) for draft in self.drafts}
        return Module(program, functions, self.maps, layout_of(self.type))

    def _finish(self, draft: _Draft, program: Program) -> Function:
        missing = [number for number, block in draft.blocks.items() if block not in draft.order]
        open_ = [block for block in draft.order if not hasattr(block, "terminator")]
        if missing or open_ or not draft.order:
            what = f"block {missing[0]} is not there" if missing else "a block has no terminator"
            self.line.fail(f"function '{draft.name}': {what}")
        undefined = [name for name in draft.forward if name not in draft.values]
        if undefined:
            self.line.fail(f"function '{draft.name}': {undefined[0]} is not defined")
        found: dict[Value, Value] = {stand_in: draft.values[name] for name, stand_in in draft.forward.items()}
        for block in draft.order:
            for item in (*block.insts, block.terminator):
                substitute(item, found)
        return Function(draft.info, draft.params, draft.order, program)

    # headers

    def _program(self) -> None:
        self.line.take("program")
        self.name = self.line.name()
        if self.line.accept("type"):
            self.type = self.line.member(ProgramType)
        self.big_endian = self.line.accept("big-endian")

    def _map(self) -> None:
        self.line.take("map")
        name, type = self.line.name(), self.line.member(MapType)
        key, value, entries = (
            self.line.labeled("key"),
            self.line.labeled("value"),
            self.line.labeled("entries"),
        )
        flags = self.line.number() if self.line.accept("flags") else 0
        content = self.line.hex_bytes() if self.line.accept("read-only") else None
        words = []
        while self.line.accept("relocated"):
            offset = self.line.number()
            self.line.take(":")
            words.append((offset, self.line.number()))
        self.maps[name] = Map(
            name,
            type,
            key,
            value,
            entries,
            flags=flags,
            initial=content,
            is_read_only=content is not None,
            relocated=tuple(words),
        )

    def _function(self) -> None:
        self.line.take("function")
        name = self.line.name()
        if any(draft.name == name for draft in self.drafts):
            self.line.fail(f"there is a function '{name}' already")
        draft = _Draft(name, [], FunctionInfo(name, 0, 0, is_global=False))
        self.drafts.append(draft)
        draft.params = self._params()
        start, slots = (self.line.number(), self.line.number()) if self.line.accept("slots") else (0, 0)
        draft.info = FunctionInfo(name, start, slots, is_global=self.line.accept("global"))
        self.line.take(":")
        self.block = None

    def _block_header(self) -> None:
        self.line.take("block")
        self.block = self._block_numbered(self.line.number())
        if self.block in self._draft.order:
            self.line.fail("the block is there already")
        self._draft.order.append(self.block)
        self.block.params = self._params()
        if self.line.accept("@"):
            self.block.start = self.line.number()
        self.line.take(":")

    @property
    def _draft(self) -> _Draft:
        if not self.drafts:
            self.line.fail("there is no function yet")
        return self.drafts[-1]

    def _params(self) -> list[Param]:
        params: list[Param] = []
        if not self.line.accept("("):
            return params
        while not params or self.line.accept(","):
            name, param = self.line.word(), Param(-1)
            if self.line.accept(":"):
                param.register = self._register()
            self._define(name, param)
            params.append(param)
        self.line.take(")")
        return params

    def _register(self) -> int:
        word = self.line.word()
        if word not in _REGISTERS:
            self.line.fail(f"'{word}' is not a register")
        return _REGISTERS.index(word)

    # instructions and terminators

    def _item(self) -> None:
        block = self.block
        if block is None or hasattr(block, "terminator"):
            self.line.fail("an instruction stands outside of a block")
        tokens = self.line.left
        name = tokens.pop(0) if tokens[1:2] == ["="] else ""
        if name:
            self.line.take("=")
        at = -1
        if tokens[-2:-1] == ["@"] and is_number(tokens[-1]):
            at = int(tokens[-1], 0)
            del tokens[-2:]
        item = self._parse_item(self.line.word(), at)
        for const in self.made:
            const.at = at
        block.insts += self.made
        self.made = []
        if isinstance(item, Inst):
            block.insts.append(item)
            if name:
                self._define(name, item)
        else:
            block.terminator = item

    def _parse_item(self, word: str, at: int) -> Inst | Terminator:
        match word:
            case "const":
                return Const(self.line.number() & _MASK, at)
            case "frame":
                return Frame(at)
            case "address":
                return Address(self._reference(), at)
            case "call":
                return self._call(at)
            case "jump":
                return Jump(self._edge(), at)
            case "if":
                row = self._row(self.line.word())
                if row.kind is not Kind.BRANCH:
                    self.line.fail(f"'{row.name}' is not a condition")
                x, y = self._value(), self._after(",")
                self.line.take(":")
                return Branch(row, x, y, *self._ways(), at)
            case "return":
                return Return(self._value(), at)
            case "may_goto":
                self.line.take(":")
                return MayGoto(*self._ways(), at)
        return self._parse_row(self._row(word), at)

    def _parse_row(self, row: Row, at: int) -> Inst | Terminator:
        match row.kind:
            case Kind.ALU:
                x = self._value()
                return Alu(row, x, x if is_unary(row) or not self.line.accept(",") else self._value(), at)
            case Kind.LOAD:
                return Load(row, *self._place(), at)
            case Kind.STORE:
                return Store(row, *self._place(), self._after(","), at)
            case Kind.ATOMIC:
                base, offset = self._place()
                value = self._after(",")
                return Atomic(row, base, offset, value, self._value() if self.line.accept("if") else None, at)
            case Kind.PACKET:
                context = self._value()
                self.line.take("[")
                index = self._value() if row.uses_src else None
                imm = self.line.number() if index is None else self.line.labeled("+")
                self.line.take("]")
                return PacketLoad(row, context, index, imm, at)
            case Kind.STATIC_BRANCH:
                self.line.take(":")
                assert isinstance(row.src, int)
                taken, other = self._ways()
                return StaticBranch(row, taken, other, not row.src & NOP_FIRST, at)
            case _:
                self.line.fail(f"'{row.name}' does not stand for itself")

    def _row(self, word: str) -> Row:
        for name in (word, f"{word} reg", f"{word} imm"):
            if name in ROW_BY_NAME:
                return ROW_BY_NAME[name]
        self.line.fail(f"no operation is named '{word}'")

    def _place(self) -> tuple[Value, int]:
        self.line.take("[")
        base = self._value()
        sign = -1 if self.line.accept("-") else 1
        if sign == 1:
            self.line.take("+")
        offset = sign * self.line.number()
        self.line.take("]")
        return base, offset

    def _call(self, at: int) -> Call:
        callee = self.line.member(Callee)
        target: int | str | Value
        if callee is Callee.INDIRECT:
            target = self._value()
        elif callee is Callee.HELPER:
            word = self.line.word()
            known = HELPER_IDS.get(f"bpf_{word}")
            target = known if known is not None else self.line.to_number(word)
        else:
            target = self.line.name()
        return Call(callee, target, tuple(self._values()), at)

    def _reference(self) -> Reference:
        kind = next((kind for kind in ReferenceKind if self.line.accept(kind.value)), None)
        if kind is None:
            self.line.fail("no such kind of reference")
        name = self.line.name()
        offset = self.line.number() if self.line.accept("+") else 0
        is_weak = self.line.accept("weak")
        return Reference(kind, name, offset, is_weak, self.line.number() if self.line.accept("btf") else 0)

    def _ways(self) -> tuple[Edge, Edge]:
        taken = self._edge()
        self.line.take("else")
        return taken, self._edge()

    def _edge(self) -> Edge:
        self.line.take("block")
        return Edge(self._block_numbered(self.line.number()), self._values())

    def _values(self) -> list[Value]:
        values: list[Value] = []
        if self.line.accept("("):
            while not values or self.line.accept(","):
                values.append(self._value())
            self.line.take(")")
        return values

    def _value(self) -> Value:
        word = self.line.word()
        draft = self._draft
        if is_number(word):
            const = Const(int(word, 0) & _MASK)
            self.made.append(const)
            return const
        if not _VALUE.fullmatch(word):
            self.line.fail(f"'{word}' is not a value")
        return draft.values.get(word) or draft.forward.setdefault(word, Param(-1))

    def _define(self, name: str, value: Value) -> None:
        values = self._draft.values
        if not _VALUE.fullmatch(name) or name in values:
            self.line.fail(f"'{name}' is not a new value")
        values[name] = value

    def _block_numbered(self, number: int) -> Block:
        return self._draft.blocks.setdefault(number, Block(-1))

    def _after(self, token: str) -> Value:
        self.line.take(token)
        return self._value()
