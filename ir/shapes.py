"""The shapes of assembly statements: what the rows' templates look like to the tokenizer.

A statement is cut into tokens; registers, numbers and names become one letter each, and what is left, the
*shape*, finds the rows it can be. A template is cut by the same tokenizer, so the rows are the only grammar
there is:

    r4 = *(u32 *)(r6 + 4)                 r = * ( u32 * ) ( r N )     operands 4, 6, 4
    r{dst} = *(u32 *)(r{src} {mem})       the same shape              slots dst, src, mem
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from typing import Final, NamedTuple, final

from ir.algebra import signed
from ir.isa import ROWS, Insn, Row


class Slot(NamedTuple):
    """A `{field}` of a template: how it is shown, which operands it takes and the bits of the insn it fills.

    `takes` are shape letters: N a number, J a number after `pc`, W a name, '' nothing at all (zero).
    """

    show: Callable[[Insn], str]
    takes: str | tuple[str, ...]
    part: str
    low: int = 0
    bits: int = 64
    is_signed: bool = True


def _displacement(value: int) -> str:
    return f"+ {value}" if value >= 0 else f"- {-value}"


_JUMP: Final = ("N", "J", "W")

SLOTS: Final[Mapping[str, Slot]] = {
    "dst": Slot(lambda i: f"{i.dst}", "R", "dst", bits=4, is_signed=False),
    "src": Slot(lambda i: f"{i.src}", "R", "src", bits=4, is_signed=False),
    "imm": Slot(lambda i: f"{i.imm}", "N", "imm", bits=32),
    "imm64": Slot(lambda i: f"{i.imm:#x}", "N", "imm"),
    "low": Slot(lambda i: f"{i.imm & 0xFFFF_FFFF}", "N", "imm", bits=32, is_signed=False),
    "high": Slot(lambda i: f"{i.imm >> 32}", "N", "imm", low=32, bits=32, is_signed=False),
    "from_space": Slot(lambda i: f"{i.imm & 0xFFFF}", "N", "imm", bits=16, is_signed=False),
    "to_space": Slot(lambda i: f"{i.imm >> 16}", "N", "imm", low=16, bits=16, is_signed=False),
    "offset": Slot(lambda i: f"{i.offset}", "N", "offset", bits=16),
    "mem": Slot(lambda i: _displacement(i.offset), ("N", ""), "offset", bits=16),
    "imm_mem": Slot(lambda i: _displacement(i.imm), ("N", ""), "imm", bits=32),
    "jump": Slot(lambda i: f"{i.offset:+d}", _JUMP, "offset", bits=16),
    "far_jump": Slot(lambda i: f"{i.imm:+d}", _JUMP, "imm", bits=32),
    "pc_jump": Slot(lambda i: f"pc{i.imm:+d}", ("J", "W"), "imm", bits=32),
    "low_jump": Slot(lambda i: f"pc{signed(32, i.imm):+d}", ("J", "W"), "imm", bits=32),
    "helper": Slot(lambda i: f"{i.imm}", ("N", "W"), "imm", bits=32),
}
NAMED: Final = frozenset(name for name, slot in SLOTS.items() if "W" in slot.takes)

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<J>pc\s*[+-]\s*(?:0[xX][0-9a-fA-F]+|\d{1,40})\b)"
    r"|(?P<sign>s(?:>>=|/=|%=|>=|<=|>|<)|<<=|>>=|[-+*/%&|^=!<>]=)"
    r"|(?P<R>[rw]\d{1,9}\b)"
    r"|(?P<W>[A-Za-z_.$][\w.$@]*)"
    r"|(?P<N>[+-]?\s*(?:0[xX][0-9a-fA-F]+|\d{1,40})(?:\b|(?=ll\b)))"
    r"|(?P<other>\S))"
)


_SAMPLE_BASE: Final = 1000  # no template holds a number this big


@final
class Form(NamedTuple):
    """One way to write a row: the slot, or the number itself, of each operand of its shape in order."""

    row: Row
    operands: tuple[str | int, ...]


class Operand(NamedTuple):
    """A number or a name in a statement, and the column it stands at (from 1)."""

    value: int | str
    column: int


def tokenize(
    code: str, column: int, is_name: Callable[[str], bool]
) -> tuple[tuple[str, ...], tuple[Operand, ...]]:
    """The shape of a statement and its operands. A register keeps its letter: r4 and w4 differ in shape."""
    shape: list[str] = []
    operands: list[Operand] = []
    for match in _TOKEN.finditer(code, column):
        kind = match.lastgroup
        assert kind is not None
        token, at = match[kind], match.start(kind) + 1
        if kind == "R":
            shape.append(token[0])
            operands.append(Operand(int(token[1:]), at))
        elif kind in ("N", "J"):
            shape.append(kind)
            operands.append(Operand(_number(token), at))
        elif kind == "W" and is_name(token):
            shape.append("W")
            operands.append(Operand(token, at))
        else:
            shape.append(token)
    return tuple(shape), tuple(operands)


def _number(token: str) -> int:
    sign, digits = re.fullmatch(r"(?:pc)?\s*([+-]?)\s*(\w+)", token).groups()  # type: ignore[union-attr]  # a J or N token
    magnitude = int(digits, 16 if digits[:2] in ("0x", "0X") else 10)
    return -magnitude if sign == "-" else magnitude


@cache
def forms_by_shape() -> Mapping[tuple[str, ...], tuple[Form, ...]]:
    """Every way to write every row, by shape; a row's own text before other rows' aliases."""
    templates = [(row, row.text) for row in ROWS] + [(row, alias) for row in ROWS for alias in row.aliases]
    forms: dict[tuple[str, ...], tuple[Form, ...]] = {}
    for row, template in templates:
        for shape, operands in _template_shapes(template):
            forms[shape] = (*forms.get(shape, ()), Form(row, operands))
    return forms


@cache
def keywords() -> frozenset[str]:
    """The words of the templates, which are not names unless one stands where only a name can."""
    words = frozenset(token for shape in forms_by_shape() for token in shape)
    return words - {"r", "w", "N", "J", "W"}


def _template_shapes(template: str) -> Iterator[tuple[tuple[str, ...], tuple[str | int, ...]]]:
    """The shapes of a template, one for each choice of what its slots take, with the slot of each operand.

    The template is read by the tokenizer for statements, each slot standing as a sample that is recognized
    afterwards.
    """
    names = re.findall(r"{(\w+)}", template)
    for letters in product(*(SLOTS[name].takes for name in names)):
        samples = {name: _sample(name, letter) for name, letter in zip(names, letters, strict=True)}
        slot_of = {_SAMPLE_BASE + number: name for number, name in enumerate(SLOTS)}
        shape, operands = tokenize(template.format(**samples), 0, lambda word: word.startswith("$"))
        values = (operand.value for operand in operands)
        yield shape, tuple(v[1:] if isinstance(v, str) else slot_of.get(v, v) for v in values)


def _sample(name: str, letter: str) -> str:
    number = _SAMPLE_BASE + list(SLOTS).index(name)
    return {"R": f"{number}", "N": f"{number}", "J": f"pc+{number}", "W": f"${name}", "": ""}[letter]
