"""Reading the text form of the SSA form (see `ir/text.py`); the inverse of printing it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Final, NoReturn, final

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
from ir.diagnostics import Diagnostic, Location, SourceLine, UnreadableError
from ir.helpers import HELPER_IDS
from ir.isa import NOP_FIRST, ROW_BY_NAME, Callee, Kind, Row
from ir.kinds import MapType, ProgramType
from ir.object import FunctionInfo, Map, Program, Reference, ReferenceKind
from ir.text import is_unary

_MASK: Final = (1 << 64) - 1
_TOKEN: Final = re.compile(
    r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>[A-Za-z_.$0-9-][\w.$-]*)|(?P<sign>[@+\[\](),:=])|(?P<end>;.*)?$)'
)
_VALUE: Final = re.compile(r"v\d+")
_NUMBER: Final = re.compile(r"-?(?:0x[0-9a-f]+|\d+)")


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
    """Reads line by line; `tokens` is what is left of the line."""

    def __init__(self, file: str) -> None:
        self.line = SourceLine(file, 1, 1)
        self.tokens: list[str] = []
        self.name, self.type, self.big_endian = "main", ProgramType.UNSPEC, False
        self.maps: dict[str, Map] = {}
        self.drafts: list[_Draft] = []
        self.block: Block | None = None
        self.made: list[Inst] = []  # constants written in place, before the instruction that reads them

    def read(self, line: SourceLine) -> None:
        """Take in one line."""
        self.line = line
        self.tokens = self._tokenize(line.text)
        if not self.tokens:
            return
        match self.tokens[0]:
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
        if self.tokens:
            self._fail(f"'{' '.join(self.tokens)}' is left over")

    def finish(self) -> Module:
        """The module, once every line was read."""
        if not self.drafts:
            self._fail("there is no function")
        infos = tuple(draft.info for draft in self.drafts)
        program = Program(self.name, "", self.type, (), infos, big_endian=self.big_endian)
        functions = {draft.name: self._finish(draft, program) for draft in self.drafts}
        return Module(program, functions, self.maps, layout_of(self.type))

    def _finish(self, draft: _Draft, program: Program) -> Function:
        missing = [number for number, block in draft.blocks.items() if block not in draft.order]
        open_ = [block for block in draft.order if not hasattr(block, "terminator")]
        if missing or open_ or not draft.order:
            what = f"block {missing[0]} is not there" if missing else "a block has no terminator"
            self._fail(f"function '{draft.name}': {what}")
        undefined = [name for name in draft.forward if name not in draft.values]
        if undefined:
            self._fail(f"function '{draft.name}': {undefined[0]} is not defined")
        found: dict[Value, Value] = {stand_in: draft.values[name] for name, stand_in in draft.forward.items()}
        for block in draft.order:
            for item in (*block.insts, block.terminator):
                substitute(item, found)
        return Function(draft.info, draft.params, draft.order, program)

    # headers

    def _program(self) -> None:
        self._take("program")
        self.name = self._name()
        if self._accept("type"):
            self.type = ProgramType[self._word().upper()]
        self.big_endian = self._accept("big-endian")

    def _map(self) -> None:
        self._take("map")
        name, type = self._name(), MapType[self._word().upper()]
        key, value, entries = self._labeled("key"), self._labeled("value"), self._labeled("entries")
        flags = self._number() if self._accept("flags") else 0
        content = bytes.fromhex(self._word()) if self._accept("read-only") else None
        words = []
        while self._accept("relocated"):
            offset = self._number()
            self._take(":")
            words.append((offset, self._number()))
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
        self._take("function")
        name = self._name()
        draft = _Draft(name, [], FunctionInfo(name, 0, 0, is_global=False))
        self.drafts.append(draft)
        draft.params = self._params()
        start, slots = (self._number(), self._number()) if self._accept("slots") else (0, 0)
        draft.info = FunctionInfo(name, start, slots, is_global=self._accept("global"))
        self._take(":")
        self.block = None

    def _block_header(self) -> None:
        self._take("block")
        self.block = self._block_numbered(self._number())
        if self.block in self.drafts[-1].order:
            self._fail("the block is there already")
        self.drafts[-1].order.append(self.block)
        self.block.params = self._params()
        if self._accept("@"):
            self.block.start = self._number()
        self._take(":")

    def _params(self) -> list[Param]:
        params: list[Param] = []
        if not self._accept("("):
            return params
        while not params or self._accept(","):
            name, param = self._word(), Param(-1)
            if self._accept(":"):
                param.register = int(self._word().removeprefix("r"))
            self._define(name, param)
            params.append(param)
        self._take(")")
        return params

    # instructions and terminators

    def _item(self) -> None:
        block = self.block
        if block is None or hasattr(block, "terminator"):
            self._fail("an instruction stands outside of a block")
        name = self.tokens.pop(0) if self.tokens[1:2] == ["="] else ""
        if name:
            self._take("=")
        at = -1
        if self.tokens[-2:-1] == ["@"]:
            at = self._to_number(self.tokens[-1])
            del self.tokens[-2:]
        item = self._parse_item(self._word(), at)
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
                return Const(self._number() & _MASK, at)
            case "frame":
                return Frame(at)
            case "address":
                return Address(self._reference(), at)
            case "call":
                return self._call(at)
            case "jump":
                return Jump(self._edge(), at)
            case "if":
                row = self._row(self._word())
                x, y = self._value(), self._after(",")
                self._take(":")
                return Branch(row, x, y, *self._ways(), at)
            case "return":
                return Return(self._value(), at)
            case "may_goto":
                self._take(":")
                return MayGoto(*self._ways(), at)
        return self._parse_row(self._row(word), at)

    def _parse_row(self, row: Row, at: int) -> Inst | Terminator:
        match row.kind:
            case Kind.ALU:
                x = self._value()
                return Alu(row, x, x if is_unary(row) or not self._accept(",") else self._value(), at)
            case Kind.LOAD:
                return Load(row, *self._place(), at)
            case Kind.STORE:
                return Store(row, *self._place(), self._after(","), at)
            case Kind.ATOMIC:
                base, offset = self._place()
                value = self._after(",")
                return Atomic(row, base, offset, value, self._value() if self._accept("if") else None, at)
            case Kind.PACKET:
                context = self._value()
                self._take("[")
                index = self._value() if row.uses_src else None
                imm = self._number() if index is None else self._labeled("+")
                self._take("]")
                return PacketLoad(row, context, index, imm, at)
            case Kind.STATIC_BRANCH:
                self._take(":")
                assert isinstance(row.src, int)
                taken, other = self._ways()
                return StaticBranch(row, taken, other, not row.src & NOP_FIRST, at)
            case _:
                self._fail(f"'{row.name}' does not stand for itself")

    def _row(self, word: str) -> Row:
        for name in (word, f"{word} reg", f"{word} imm"):
            if name in ROW_BY_NAME:
                return ROW_BY_NAME[name]
        self._fail(f"no operation is named '{word}'")

    def _place(self) -> tuple[Value, int]:
        self._take("[")
        base = self._value()
        sign = -1 if self._accept("-") else 1
        if sign == 1:
            self._take("+")
        offset = sign * self._number()
        self._take("]")
        return base, offset

    def _call(self, at: int) -> Call:
        callee = Callee[self._word().upper()]
        target: int | str | Value
        if callee is Callee.INDIRECT:
            target = self._value()
        elif callee is Callee.HELPER:
            word = self._word()
            known = HELPER_IDS.get(f"bpf_{word}")
            target = known if known is not None else self._to_number(word)
        else:
            target = self._name()
        return Call(callee, target, tuple(self._values()), at)

    def _reference(self) -> Reference:
        kind, name = ReferenceKind(self._word()), self._name()
        offset = self._number() if self._accept("+") else 0
        is_weak = self._accept("weak")
        return Reference(kind, name, offset, is_weak, self._number() if self._accept("btf") else 0)

    def _ways(self) -> tuple[Edge, Edge]:
        taken = self._edge()
        self._take("else")
        return taken, self._edge()

    def _edge(self) -> Edge:
        self._take("block")
        return Edge(self._block_numbered(self._number()), self._values())

    def _values(self) -> list[Value]:
        values: list[Value] = []
        if self._accept("("):
            while not values or self._accept(","):
                values.append(self._value())
            self._take(")")
        return values

    def _value(self) -> Value:
        word = self._word()
        draft = self.drafts[-1]
        if _NUMBER.fullmatch(word):
            const = Const(int(word, 0) & _MASK)
            self.made.append(const)
            return const
        if not _VALUE.fullmatch(word):
            self._fail(f"'{word}' is not a value")
        return draft.values.get(word) or draft.forward.setdefault(word, Param(-1))

    def _define(self, name: str, value: Value) -> None:
        values = self.drafts[-1].values
        if not _VALUE.fullmatch(name) or name in values:
            self._fail(f"'{name}' is not a new value")
        values[name] = value

    def _block_numbered(self, number: int) -> Block:
        return self.drafts[-1].blocks.setdefault(number, Block(-1))

    # tokens

    def _tokenize(self, text: str) -> list[str]:
        tokens: list[str] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                self._fail(f"'{text[position:].strip()}' is not understood")
            if match.lastgroup in (None, "end"):
                break
            tokens.append(match[match.lastgroup])
            position = match.end()
        return tokens

    def _word(self) -> str:
        if not self.tokens:
            self._fail("the line ends too early")
        return self.tokens.pop(0)

    def _name(self) -> str:
        word = self._word()
        return str(json.loads(word)) if word.startswith('"') else word

    def _after(self, token: str) -> Value:
        self._take(token)
        return self._value()

    def _labeled(self, label: str) -> int:
        self._take(label)
        return self._number()

    def _number(self) -> int:
        return self._to_number(self._word())

    def _to_number(self, word: str) -> int:
        if not _NUMBER.fullmatch(word):
            self._fail(f"'{word}' is not a number")
        return int(word, 0)

    def _accept(self, token: str) -> bool:
        if self.tokens[:1] != [token]:
            return False
        del self.tokens[0]
        return True

    def _take(self, token: str) -> None:
        if not self._accept(token):
            self._fail(f"found '{' '.join(self.tokens[:1])}', wanted '{token}'")

    def _fail(self, message: str) -> NoReturn:
        raise UnreadableError([Diagnostic("bad-ir", message, Location(source=self.line))])
